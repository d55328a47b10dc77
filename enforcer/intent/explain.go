package intent

import (
	"fmt"
	"net/netip"

	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/policy"
)

// Speech is what a client says first.
type Speech string

// What clients say. The zero value: nothing is asked about that.
const (
	SaysNothing Speech = ""
	SaysTLS     Speech = "tls"
	SaysPlain   Speech = "plaintext"
)

// Verdict is what a policy says of one client. The zero value denies.
type Verdict struct {
	Allowed bool `json:"allowed"`
	// Why names the rule or the default that decides.
	Why string `json:"why"`
	// Nearest is the rule whose networks come closest, for a client that none covers.
	Nearest string `json:"nearest,omitempty"`
}

// Explain says what becomes of a client that comes by an interface, and why.
func (i *Point) Explain(from netip.Addr, iface string, to netip.AddrPort, says Speech) Verdict {
	j := i.TCP(iface, to)
	if j.Forged.Contains(from) {
		return Verdict{Why: "nobody outside speaks in a server's name (X-03)"}
	}
	v := Verdict{Why: j.Default}
	for _, g := range j.Grants {
		if g.Sources().Contains(from) {
			v = Verdict{Allowed: true, Why: j.Why(g)}
			break
		}
	}
	for _, g := range j.Expired {
		if !v.Allowed && g.Sources().Contains(from) {
			v.Why = j.Why(g) + ", has expired"
		}
	}
	if !v.Allowed {
		v.Nearest = j.nearest(from)
		return v
	}
	if forced, why := i.ForcesTLS(from, to); forced && j.Judged && says == SaysPlain {
		return Verdict{Why: why + ": plaintext is refused (S-06, D-04), though the source is let in by " + v.Why}
	}
	return v
}

// nearest is the rule with the network that comes closest to an address.
func (j Judgement) nearest(from netip.Addr) string {
	best, gap, found := "", addrset.Gap{}, false
	for _, g := range j.Grants {
		for _, interval := range g.Sources().Intervals() {
			d := interval.Gap(from)
			if interval.First.Is4() == from.Is4() && (!found || d.Less(gap)) {
				best, gap, found = fmt.Sprintf("%v, by %s", interval, j.Why(g)), d, true
			}
		}
	}
	return best
}

// Databases names the databases of the policy, in order, each once.
func (i *Point) Databases() (names []string) {
	seen := map[string]bool{}
	for _, t := range i.Targets() {
		if !seen[t.Database] {
			seen[t.Database] = true
			names = append(names, t.Database)
		}
	}
	return names
}

// Target returns a port that the policy protects.
func (i *Point) Target(at netip.AddrPort) (Target, bool) {
	p, ok := i.ports[at]
	if !ok {
		return Target{}, false
	}
	return Target{Database: p.database.Name(), At: at, Endpoint: p.endpoint != nil, Engine: p.database.Engine(), TLS: p.tls}, true
}

// Negotiates tells how clients arrive at TLS there: "postgresql" or "mysql" inside the protocol, "first" with the first byte, ""
// never.
func (t Target) Negotiates() string {
	switch {
	case t.TLS == policy.TLSNone:
		return ""
	case t.TLS == policy.TLSInBand && t.Engine.Speaks(policy.PostgreSQL):
		return "postgresql"
	case t.TLS == policy.TLSInBand && t.Engine.Speaks(policy.MySQL):
		return "mysql"
	}
	return "first"
}
