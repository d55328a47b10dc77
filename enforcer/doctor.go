package enforcer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/nft"
)

// Severity says what a finding means.
type Severity string

// The severities.
const (
	// Undermines: verdicts may be wrong.
	Undermines Severity = "undermines"
	// Weakens: verdicts hold, but something that the enforcer would do is not done, or only later.
	Weakens Severity = "weakens"
	// Notes are worth knowing.
	Notes Severity = "note"
)

// Finding is something beside the enforcer that has a bearing on it.
type Finding struct {
	Severity Severity `json:"severity"`
	// What it is, and what follows.
	What string `json:"what"`
	// Where: a rule, a flow table, a sysctl.
	Where string `json:"where"`
	// WayOut is what to do about it.
	WayOut string `json:"way_out"`
}

// Examine looks for what undermines the enforcer in the network namespace of the calling thread: other programs' tables, sysctls,
// and a kernel that lacks something. It changes nothing. Where the options name no mark mask, it is the one that the rules in force have.
func Examine(ctx context.Context, options Options) (_ []Finding, err error) {
	kernel, err := nft.Open(compile.TableName)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	missing, err := kernel.Missing(ctx)
	if err != nil {
		return nil, err
	}
	survey, err := nft.ReadSurvey(ctx, compile.TableName)
	if err != nil {
		return nil, err
	}
	if options.Compile.MarkMask == 0 {
		state, err := kernel.Read(ctx)
		if err != nil {
			return nil, err
		}
		options = options.maskOr(markMask(state.Table)).withDefaults()
	}
	findings := slices.Concat(lackings(missing), besides(survey, options.Compile.MarkMask), unsafeSettings(func(name string) (string, bool) {
		text, err := os.ReadFile(filepath.Join("/proc/sys/net", name))
		return strings.TrimSpace(string(text)), err == nil
	}))
	slices.SortStableFunc(findings, func(a, b Finding) int { return b.Severity.weight() - a.Severity.weight() })
	return findings, nil
}

func (s Severity) weight() int {
	switch s {
	case Undermines:
		return 2
	case Weakens:
		return 1
	}
	return 0
}

func lackings(missing []nft.Feature) (out []Finding) {
	for _, f := range missing {
		found := Finding{Severity: Undermines, What: "the kernel lacks it: databases that need TLS are denied as a whole", Where: string(f), WayOut: "a newer kernel (docs/OPERATING.md)"}
		if f == nft.OwnedTable {
			found.Severity, found.What = Weakens, "the kernel lacks it: other programs can change the tables, and enforce run mends them afterwards"
		}
		out = append(out, found)
	}
	return out
}

// besides judges what the tables of other programs do.
func besides(s nft.Survey, mask uint32) (out []Finding) {
	for _, w := range s.MarkWriters {
		if w.Bits&mask == 0 {
			continue
		}
		out = append(out, Finding{
			Severity: Undermines, Where: place(w.Place),
			What:   fmt.Sprintf("writes bits %#x of the connection mark, which hold what a connection speaks: Force TLS can be passed by or cut off who speaks TLS", w.Bits&mask),
			WayOut: "have it write under a mask, or give drawbridge other bits (--mark-mask)",
		})
	}
	for _, u := range s.Untracking {
		out = append(out, Finding{
			Severity: Weakens, Where: place(u),
			What:   "exempts packets from connection tracking: those for databases with Force TLS would all be dropped, and connections are not found when they must end",
			WayOut: "have it pass over the protected addresses",
		})
	}
	for _, f := range s.Flowtables {
		out = append(out, Finding{
			Severity: Undermines, Where: fmt.Sprintf("flow table %s in table %s, devices %s", f.Name, f.Table, strings.Join(f.Devices, ", ")),
			What:   "takes established connections past every filter: a rule that is removed does not end them",
			WayOut: "leave the interfaces of protected traffic out of it",
		})
	}
	return out
}

func place(p nft.Place) string {
	families := map[uint8]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_NETDEV: "netdev", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_ARP: "arp"}
	return fmt.Sprintf("table %s %s, chain %s, rule handle %d", families[p.Family], p.Table, p.Chain, p.Handle)
}

// unsafeSettings judges sysctls below net. One that cannot be read is not there.
func unsafeSettings(read func(name string) (string, bool)) (out []Finding) {
	for _, s := range []struct {
		name, bad string
		finding   Finding
	}{
		{"netfilter/nf_conntrack_tcp_be_liberal", "1", Finding{Severity: Weakens, What: "connection tracking takes segments outside of the window for valid: the gate still judges by the server's own acknowledgements", WayOut: "set it to 0"}},
		{"netfilter/nf_conntrack_checksum", "0", Finding{Severity: Weakens, What: "segments with a wrong checksum, which the server discards, count as seen", WayOut: "set it to 1"}},
		{"netfilter/nf_conntrack_tcp_loose", "0", Finding{Severity: Notes, What: "connections from before the rules are not tracked: Force TLS cuts them off where it is turned on", WayOut: "set it to 1 while enforcement begins"}},
		{"ipv4/conf/all/route_localnet", "1", Finding{Severity: Weakens, What: "packets from outside may be addressed to 127.0.0.0/8: a database that listens there alone can be reached", WayOut: "set it to 0"}},
		{"ipv4/conf/all/rp_filter", "0", Finding{Severity: Notes, What: "the kernel does not check source addresses itself; drawbridge checks those of nodes and of zones only", WayOut: "set it to 1 where routing is symmetric"}},
	} {
		if value, ok := read(s.name); ok && value == s.bad {
			s.finding.Where = "net." + strings.ReplaceAll(s.name, "/", ".") + "=" + value
			out = append(out, s.finding)
		}
	}
	return out
}
