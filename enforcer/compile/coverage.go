package compile

import (
	"math/bits"
	"time"

	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

// Covering is a rule of a policy that an element is there for.
type Covering struct {
	Database string
	Rule     int // its index among the database's rules
}

// Coverage tells for each set whose elements count packets, and for each element of it by key, which rules of the policy
// cover it: all of those are used when it is. What a database's custom ranges let in never gets to its managed ranges.
func Coverage(p *policy.Policy, now time.Time) map[string]map[ruleset.Key][]Covering {
	c := compiler{now: now, dedicated: p.Model() != policy.Shared}
	out := map[string]map[ruleset.Key][]Covering{}
	if !c.dedicated {
		return out
	}
	add := func(set string, key ruleset.Key, by ...Covering) {
		if out[set] == nil {
			out[set] = map[ruleset.Key][]Covering{}
		}
		out[set][key] = append(out[set][key], by...)
	}
	for _, db := range p.Databases() {
		for _, f := range families {
			for _, piece := range c.pieces(db, f) {
				add(setCustom(f, db.Name()), addrKey(piece.first), coverings(db.Name(), piece.rules)...)
			}
		}
		for i, r := range db.Rules() {
			for _, e := range db.Endpoints() {
				if r.Range != "" {
					add(setUsers(familyOf(e.Addr.Addr()), r.Range), endpointKey(e.Addr), Covering{db.Name(), i})
				}
			}
		}
	}
	return out
}

func coverings(database string, rules uint64) (out []Covering) {
	for ; rules != 0; rules &= rules - 1 {
		out = append(out, Covering{database, bits.TrailingZeros64(rules)})
	}
	return out
}
