package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"drawbridge/sim/netns"

	"golang.org/x/sys/unix"
)

// Inventory is what every node of a lab needs for its part: who listens where, and which routes there are. An enforcer may add to it,
// and has nothing to take away.
type Inventory map[string][]string // by node

// routes are the kernel's lists of them (proc_net(5)), with the fields of a line that say what it is; the others are counters and the like.
var routes = []struct {
	path   string
	fields []int
}{{"route", []int{0, 1, 2, 7}}, {"ipv6_route", []int{0, 1, 4, 9}}}

// routeFields is how many fields a route's line has at least in either list.
const routeFields = 10

// Inventory looks at every node.
func (l *Lab) Inventory() (Inventory, error) {
	all := Inventory{}
	for name, h := range l.nodes {
		found, err := inventory(h)
		if err != nil {
			return nil, fmt.Errorf("look at node %s: %w", name, err)
		}
		all[name] = found
	}
	return all, nil
}

func inventory(h *netns.Handle) (all []string, err error) {
	err = h.Do(func() error {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			sockets, err := listeners(family)
			if err != nil {
				return err
			}
			for _, at := range sockets {
				all = append(all, "tcp "+at.String())
			}
		}
		for _, r := range routes {
			found, err := routesIn(r.path, r.fields)
			if err != nil {
				return err
			}
			all = append(all, found...)
		}
		return nil
	})
	return all, err
}

func routesIn(path string, fields []int) (all []string, err error) {
	text, err := os.ReadFile("/proc/thread-self/net/" + path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel without the family
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < routeFields {
			continue
		}
		entry := []string{path}
		for _, i := range fields {
			entry = append(entry, words[i])
		}
		all = append(all, strings.Join(entry, " "))
	}
	return all, nil
}

// Missing names what there was and is no more, as in "redis-a: no longer there: tcp 0200000A:18EB".
func (was Inventory) Missing(now Inventory) []string {
	var out []string
	for node, all := range was {
		there := make(map[string]bool, len(now[node]))
		for _, entry := range now[node] {
			there[entry] = true
		}
		for _, entry := range all {
			if !there[entry] {
				out = append(out, fmt.Sprintf("%s: no longer there: %s", node, entry))
			}
		}
	}
	slices.Sort(out)
	return out
}
