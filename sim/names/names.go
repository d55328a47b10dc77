// Package names writes the files by which ordinary programs look names up (hosts(5), resolv.conf(5), nsswitch.conf(5)), so
// that those of a world's endpoints and hosts mean their addresses in its lab. It is pure.
package names

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"drawbridge/topology"
)

// Hosts returns a hosts(5) file: each database's endpoint by its domain name, each node, app and Internet host by its own. The
// part of an app's name before the slash becomes its domain, as in web.osc-fr1.
func Hosts(w *topology.World) []byte {
	f := &file{seen: map[string]bool{}}
	f.add("localhost", netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
	for _, d := range w.Databases() {
		for _, e := range d.Endpoints() {
			name := d.Domain()
			if e.Kind == topology.PrivatePeeringRW {
				name = d.PrivateDomain()
			}
			f.add(name, e.Addr.Addr())
		}
		for _, n := range d.Nodes {
			f.add(n.Name, n.Addresses...)
		}
	}
	for _, h := range w.Hosts() {
		f.add(h.Name, h.Addresses...)
	}
	for _, v := range w.Vantages() {
		f.add(dotted(v.Name), v.Addresses...)
	}
	return f.text.Bytes()
}

// longestHostname is how many bytes the kernel keeps of it (__NEW_UTS_LEN, linux/utsname.h).
const longestHostname = 64

// Hostname returns what a node calls itself: its name in Hosts, or the first part of that if the kernel takes no more.
func Hostname(node string) string {
	name := dotted(node)
	if len(name) > longestHostname {
		name, _, _ = strings.Cut(name, ".")
	}
	return name
}

// dotted turns region/app into app.region.
func dotted(name string) string {
	if owner, own, ok := strings.Cut(name, "/"); ok {
		return own + "." + owner
	}
	return name
}

// file is a hosts file; a pair of an address and a name stands in it once.
type file struct {
	text bytes.Buffer
	seen map[string]bool
}

func (f *file) add(name string, addrs ...netip.Addr) {
	for _, a := range addrs {
		line := fmt.Sprintf("%s\t%s\n", a, name)
		if !f.seen[line] {
			f.seen[line] = true
			f.text.WriteString(line)
		}
	}
}

// Resolver returns a resolv.conf(5). The machine's own name servers cannot be reached from a lab, and asking them would cost
// seconds for each name that does not exist; nobody answers at the loopback address, and says so at once.
func Resolver() []byte {
	return []byte("# The names of this lab are in /etc/hosts; there is no name server.\nnameserver 127.0.0.1\noptions attempts:1 timeout:1\n")
}

// Sources returns an nsswitch.conf(5) like the given one, in which host names come from the hosts file alone. What else may stand
// there asks a service of the machine, which knows the machine's names.
func Sources(machine []byte) []byte {
	lines := slices.DeleteFunc(strings.Split(strings.TrimRight(string(machine), "\n"), "\n"), func(line string) bool {
		database, _, _ := strings.Cut(strings.TrimSpace(line), ":")
		return database == "hosts"
	})
	return []byte(strings.TrimLeft(strings.Join(append(lines, "hosts: files dns"), "\n")+"\n", "\n"))
}
