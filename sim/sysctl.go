package sim

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"drawbridge/sim/fabric"
)

// setting is one sysctl of a network namespace. All of those used here may be written without privileges outside of the namespace's
// own user namespace (net.ipv4, net.ipv6: net_ctl_permissions in net/sysctl_net.c).
type setting struct{ name, value string }

// everyNode holds for every namespace. What a new namespace starts with depends on the machine
// (net.core.devconf_inherit_init_net), so nothing is taken for granted.
var everyNode = []setting{
	// The fabric filters forged sources itself, where real networks do; a node must not do so on its own.
	{"net.ipv4.conf.all.rp_filter", "0"},
	{"net.ipv4.conf.default.rp_filter", "0"},
	// No chatter: link-local addresses, duplicate address detection, router solicitations.
	{"net.ipv6.conf.default.disable_ipv6", "0"},
	{"net.ipv6.conf.default.addr_gen_mode", "1"},
	{"net.ipv6.conf.default.accept_dad", "0"},
	{"net.ipv6.conf.default.accept_ra", "0"},
	{"net.ipv6.conf.default.router_solicitations", "0"},
	{"net.ipv4.conf.all.accept_redirects", "0"},
	{"net.ipv4.conf.default.accept_redirects", "0"},
	{"net.ipv6.conf.default.accept_redirects", "0"},
	{"net.ipv4.conf.all.send_redirects", "0"},
	{"net.ipv4.conf.default.send_redirects", "0"},
	// A refusal told by ICMP must arrive for every probe, not for some a second.
	{"net.ipv4.icmp_ratelimit", "0"},
	{"net.ipv6.icmp.ratelimit", "0"},
	// Probes own the ports from 20000: nothing else may have one of them by chance.
	{"net.ipv4.ip_local_port_range", "10000 19999"},
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

// settingsOf returns all that a node needs.
func settingsOf(n fabric.Node) []setting {
	all := slices.Clone(everyNode)
	if n.Router {
		all = append(all, routersOnly...)
	}
	if len(n.Owned) > 0 {
		all = append(all, wholeNetworks...)
	}
	return all
}

// apply writes settings of the calling thread's namespace: what /proc/sys/net shows depends on who opens it.
func apply(settings []setting) error {
	for _, s := range settings {
		path := "/proc/sys/" + strings.ReplaceAll(s.name, ".", "/")
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
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
