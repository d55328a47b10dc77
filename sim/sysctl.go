package sim

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"drawbridge/sim/fabric"
	"drawbridge/sim/ports"
)

// setting is one sysctl of a network namespace. All of those used here may be written without privileges outside of the namespace's
// own user namespace (net.ipv4, net.ipv6: net_ctl_permissions in net/sysctl_net.c).
type setting struct{ name, value string }

// everyNode holds for every namespace. What a new namespace starts with depends on the machine
// (net.core.devconf_inherit_init_net), so nothing is taken for granted. The list is short because each file of /proc/sys/net that is
// opened costs more the more namespaces there are: the kernel keeps an entry for each of them under the same name.
var everyNode = []setting{
	// The fabric filters forged sources itself, where real networks do; a node must not do so on its own.
	{"net.ipv4.conf.all.rp_filter", "0"},
	{"net.ipv4.conf.default.rp_filter", "0"},
	{"net.ipv6.conf.default.disable_ipv6", "0"},
}

// probesOwnTheirPorts is for nodes that probes start from, and for those that answer them: nothing else may have one of a probe's ports by
// chance.
var probesOwnTheirPorts = []setting{{"net.ipv4.ip_local_port_range", fmt.Sprintf("%d %d", ports.Kernel.First, ports.Kernel.Last)}}

// servingNodes is for those that pass packets on or answer them. What is left out of it at a client of the databases, which has one link
// and hears from nobody but those whom it asks, makes no difference there.
var servingNodes = []setting{
	{"net.ipv6.conf.default.accept_dad", "0"},
	{"net.ipv6.conf.default.accept_ra", "0"},
	{"net.ipv4.conf.all.accept_redirects", "0"},
	{"net.ipv4.conf.default.accept_redirects", "0"},
	{"net.ipv6.conf.default.accept_redirects", "0"},
	{"net.ipv4.conf.all.send_redirects", "0"},
	{"net.ipv4.conf.default.send_redirects", "0"},
	// A refusal told by ICMP must arrive for every probe, not for some a second.
	{"net.ipv4.icmp_ratelimit", "0"},
	{"net.ipv6.icmp.ratelimit", "0"},
	// A server answers every packet that it discards, so that clients made by hand learn what it has.
	{"net.ipv4.tcp_invalid_ratelimit", "0"},
	// Every listener takes data in a SYN, from everybody and without a cookie (TFO_CLIENT_ENABLE, TFO_SERVER_ENABLE,
	// TFO_SERVER_COOKIE_NOT_REQD, TFO_SERVER_WO_SOCKOPT1 in include/net/tcp.h): the worst that Force TLS may meet (SPEC X-08).
	{"net.ipv4.tcp_fastopen", "1539"},
}

var routersOnly = []setting{
	{"net.ipv4.ip_forward", "1"},
	{"net.ipv6.conf.all.forwarding", "1"},
}

// wholeNetworks lets sockets bind to the addresses of networks that are the node's own by a local route: IPv4 always does, IPv6 looks for
// the one assigned address (net/ipv6/af_inet6.c, __inet6_bind).
var wholeNetworks = []setting{{"net.ipv6.ip_nonlocal_bind", "1"}}

// soonRepeated has TCP repeat SYNs and data after a second at most, where packets get lost: what a probe waits for then has some thirty
// chances to arrive, not six. SYN-ACKs are not subject to it: after an ACK that was lost a server doubles its time, unless the client
// says something. Kernels before 6.15 do not have it (net/ipv4/sysctl_net_ipv4.c). It holds for sockets that are opened later, so nodes
// have it from the beginning.
var soonRepeated = setting{"net.ipv4.tcp_rto_max_ms", "1000"}

// soonForgetting is for nodes that translate addresses. A probe's port says everything (package ports), and a translation gives a client another
// port while it remembers a connection that would be the same behind it: of another client to the same server, or of the same one to
// another of the server's addresses. It remembers one for two minutes after its end, or after a SYN that nobody answered, in which
// thousands of probes use up all of their ports. Ten seconds are what it remembers a connection for that was reset, and are enough for
// the last packets of the others.
var soonForgetting = []setting{
	{"net.netfilter.nf_conntrack_tcp_timeout_syn_sent", "10"},
	{"net.netfilter.nf_conntrack_tcp_timeout_syn_recv", "10"},
	{"net.netfilter.nf_conntrack_tcp_timeout_fin_wait", "10"},
	{"net.netfilter.nf_conntrack_tcp_timeout_close_wait", "10"},
	{"net.netfilter.nf_conntrack_tcp_timeout_last_ack", "10"},
	{"net.netfilter.nf_conntrack_tcp_timeout_time_wait", "10"},
}

// settingsFor returns all that a node of the lab needs.
func (l *Lab) settingsFor(n fabric.Node) []setting {
	all := settingsOf(n)
	if l.opts.Impairment.Loss > 0 && soonRepeated.exists() {
		all = append(all, soonRepeated)
	}
	return all
}

// settingsOf returns all that a node needs in any lab.
func settingsOf(n fabric.Node) []setting {
	all := slices.Clone(everyNode)
	if n.Router || n.Serves {
		all = append(append(all, servingNodes...), probesOwnTheirPorts...)
	}
	if n.Router {
		all = append(all, routersOnly...)
	}
	if len(n.Owned) > 0 {
		all = append(all, wholeNetworks...)
	}
	return all
}

// defaults are what a new namespace starts with here. All new ones of one lab start alike, so one of them is asked, once. The zero value has
// asked none.
type defaults struct {
	once   sync.Once
	values map[string][]string
	err    error
}

// apply writes those settings of the calling thread's namespace, a new one, that it does not start with.
func (d *defaults) apply(settings []setting) error {
	d.once.Do(func() {
		d.values, d.err = readAll(everyNode, servingNodes, probesOwnTheirPorts, routersOnly, wholeNetworks)
	})
	if d.err != nil {
		return d.err
	}
	return apply(slices.DeleteFunc(slices.Clone(settings), func(s setting) bool {
		return slices.Equal(d.values[s.name], strings.Fields(s.value))
	}))
}

func readAll(lists ...[]setting) (map[string][]string, error) {
	values := make(map[string][]string)
	for _, s := range slices.Concat(lists...) {
		text, err := os.ReadFile(s.path())
		if err != nil {
			return nil, fmt.Errorf("sysctl %s: %w", s.name, err)
		}
		values[s.name] = strings.Fields(string(text))
	}
	return values, nil
}

// path is the setting's file. What /proc/sys/net shows depends on the thread that opens it.
func (s setting) path() string { return "/proc/sys/" + strings.ReplaceAll(s.name, ".", "/") }

// exists reports whether the kernel knows the setting.
func (s setting) exists() bool {
	_, err := os.Stat(s.path())
	return err == nil
}

// PrepareVantages makes nodes fit for probes: the kernel no longer picks their ports for anything else there.
func (l *Lab) PrepareVantages(nodes ...string) error {
	for _, name := range nodes {
		h, ok := l.nodes[name]
		if !ok {
			return fmt.Errorf("prepare vantage %s: %w", name, ErrUnknown)
		}
		if err := h.Do(func() error { return apply(probesOwnTheirPorts) }); err != nil {
			return fmt.Errorf("prepare vantage %s: %w", name, err)
		}
	}
	return nil
}

// keepAddresses has an interface of the calling thread's namespace keep its IPv6 addresses when it goes down, as it keeps those of IPv4
// (Documentation/networking/ip-sysctl.rst). It is set where it is needed, since each file that is opened costs.
func keepAddresses(iface string) error {
	return os.WriteFile("/proc/sys/net/ipv6/conf/"+iface+"/keep_addr_on_down", []byte("1"), 0) // a name may have dots
}

// apply writes settings of the calling thread's namespace.
func apply(settings []setting) error {
	for _, s := range settings {
		f, err := os.OpenFile(s.path(), os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("sysctl %s: %w", s.name, err)
		}
		_, err = f.WriteString(s.value)
		f.Close() // nothing is buffered
		if err != nil {
			return fmt.Errorf("sysctl %s=%s: %w", s.name, s.value, err)
		}
	}
	return nil
}
