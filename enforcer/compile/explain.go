package compile

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

// maxComment is the longest comment that nft(8) takes (NFTNL_UDATA_COMMENT_MAXLEN).
const maxComment = 128

// unexplained marks an element that the policy has no reason for: another policy is in force, or somebody added it.
const unexplained = "nothing in this policy"

// endpointMeanings say what it means that an endpoint is in a set, by the set's name without the family.
var endpointMeanings = map[string]string{
	setRules: "its firewall rules", setAnswers: "its firewall rules, for answers", setWatched: "is told TLS from plaintext",
	setForce: "Force TLS is on", setKeep: "connections of unknown beginning are kept", setTLSFirst: "begins with TLS",
	setEither: "TLS or plaintext from the first byte", setPG: "negotiates TLS as PostgreSQL does", setMySQL: "negotiates TLS as MySQL does",
}

// judgedMeaning says what it means that an endpoint's packets, or for a reply its answers, are sent there.
func judgedMeaning(w way, v ruleset.Verdict) string {
	switch v {
	case accept, goTo(chainWitness + w.suffix):
		return "Internet accessibility is on"
	case goTo(w.region()):
		return "open to its region"
	case goTo(w.strangers()):
		return "open to its region, but for the nodes of its cluster"
	case goTo(w.peering()):
		return "endpoint of the peering"
	case goTo(w.nodes()):
		return "for the nodes of its cluster"
	}
	return "its firewall rules"
}

// pairMeanings are those of sets of sources with endpoints.
var pairMeanings = map[string]string{setCluster: "a node of its cluster", setForcePair: "Force TLS among its nodes"}

// Explain returns a table as it was read from the kernel, with a comment at each element of its constant sets that says which
// setting, rule or endpoint of the policy it is there for. Comments that an element has already are kept.
func Explain(p *policy.Policy, t ruleset.Table) ruleset.Table {
	x := explainer{p: p, owner: map[netip.AddrPort]policy.Database{}, custom: map[string]policy.Database{}, managed: map[string]string{}}
	for _, db := range p.Databases() {
		x.know(db)
	}
	for _, r := range p.ManagedRanges() {
		for _, f := range families {
			x.managed[setRange(f, r.Name)] = fmt.Sprintf("managed range %s", r.Name)
			x.managed[setUsers(f, r.Name)] = fmt.Sprintf("rule: managed range %s", r.Name)
		}
	}
	t.Sets = slices.Clone(t.Sets)
	for i, s := range t.Sets {
		if s.Dynamic {
			continue
		}
		t.Sets[i].Elements = slices.Clone(s.Elements)
		for j, e := range s.Elements {
			if e.Comment == "" {
				t.Sets[i].Elements[j].Comment = short(x.reason(s, e))
			}
		}
	}
	return t
}

// explainer knows a policy by the keys of the sets made of it.
type explainer struct {
	p       *policy.Policy
	owner   map[netip.AddrPort]policy.Database
	custom  map[string]policy.Database // by name of the set with its intervals
	managed map[string]string          // meaning, by name of the set
}

func (x explainer) know(db policy.Database) {
	for _, e := range db.Endpoints() {
		x.owner[e.Addr] = db
	}
	for _, n := range db.Nodes() {
		for _, a := range n.Addresses {
			for _, port := range n.Ports {
				x.owner[netip.AddrPortFrom(a, port.Number)] = db
			}
		}
	}
	for _, f := range families {
		x.custom[setCustom(f, db.Name())] = db
	}
}

func (x explainer) reason(s ruleset.Set, e ruleset.Element) string {
	if db, ok := x.custom[s.Name]; ok {
		return db.Name() + ": " + rulesBehind(db, e)
	}
	meaning, managed := x.managed[s.Name]
	if managed && s.Interval {
		return meaning
	}
	for _, f := range families {
		for _, w := range []way{inbound(f), new(compiler).outbound(f)} {
			if s.Name == w.judged {
				return x.of(e.Key, judgedMeaning(w, e.Verdict))
			}
		}
	}
	base := strings.TrimRight(s.Name, "46")
	if !managed {
		meaning = endpointMeanings[base]
	}
	if meaning != "" {
		return x.of(e.Key, meaning)
	}
	if meaning = pairMeanings[base]; meaning != "" {
		// A source of half the addresses' bytes stands before the endpoint.
		return x.of(e.Key[(len(e.Key)-portBytes)/2:], meaning)
	}
	if base == setRegion {
		return "network of region " + x.p.Region().Name
	}
	return ""
}

const portBytes = 2

// of names the database of an endpoint.
func (x explainer) of(key ruleset.Key, meaning string) string {
	at := len(key) - portBytes
	addr, ok := netip.AddrFromSlice([]byte(key[:max(at, 0)]))
	if !ok {
		return unexplained
	}
	db, ok := x.owner[netip.AddrPortFrom(addr, binary.BigEndian.Uint16([]byte(key[at:])))]
	if !ok {
		return unexplained
	}
	return db.Name() + ": " + meaning
}

// rulesBehind names the rules that cover an interval.
func rulesBehind(db policy.Database, e ruleset.Element) string {
	from, ok1 := netip.AddrFromSlice([]byte(e.Key))
	to, ok2 := netip.AddrFromSlice([]byte(e.End))
	if !ok1 || !ok2 {
		return unexplained
	}
	var found []string
	for _, r := range db.Rules() {
		if r.Range == "" && r.CIDR.Contains(from) && r.CIDR.Contains(to) {
			found = append(found, strings.TrimSpace("rule "+r.CIDR.String()+" "+r.Label))
		}
	}
	if len(found) == 0 {
		return unexplained
	}
	return strings.Join(found, ", ")
}

func short(comment string) string {
	// nft(8) has no way to write a quotation mark inside a comment, and no use for other signs of control.
	comment = strings.Map(func(r rune) rune {
		if r == '"' || r < ' ' {
			return ' '
		}
		return r
	}, comment)
	const more = "…"
	if len(comment) <= maxComment {
		return comment
	}
	return strings.ToValidUTF8(comment[:maxComment-len(more)], "") + more
}
