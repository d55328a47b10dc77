package enforcer

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/intent"
	"drawbridge/enforcer/proof"
	"drawbridge/enforcer/ruleset"
)

// AccessChange says who would gain access to a port, and who would lose it.
type AccessChange struct {
	Database string         `json:"database"`
	At       netip.AddrPort `json:"at"`
	// Interfaces by which that is so.
	Interfaces []string           `json:"interfaces"`
	Gains      []addrset.Interval `json:"gains"`
	Loses      []addrset.Interval `json:"loses"`
}

// Words says it in a sentence.
func (a AccessChange) Words() string {
	var parts []string
	if len(a.Gains) > 0 {
		parts = append(parts, addrset.Of(a.Gains...).String()+" would gain access")
	}
	if len(a.Loses) > 0 {
		parts = append(parts, addrset.Of(a.Loses...).String()+" would lose access")
	}
	return fmt.Sprintf("%s at %v, by %s: %s", a.Database, a.At, strings.Join(a.Interfaces, ", "), strings.Join(parts, ", and "))
}

// accessChanges compares whom the rules that stand let in with whom a policy would. have is the zero value where there are
// none: then everybody gets in.
func accessChanges(have ruleset.Table, before compile.Inventory, p *intent.Point) ([]AccessChange, error) {
	admission, err := proof.AdmissionOf(have)
	if err != nil {
		return nil, err
	}
	ports := before.Ports()
	for _, t := range p.Targets() {
		ports[t.At] = t.Database
	}
	var out []AccessChange
	for at, database := range ports {
		groups := map[string]int{}
		for _, iface := range p.Interfaces() {
			old, wanted := admission.Admits(at, iface), p.TCP(iface, at).Sources()
			gains, loses := admission.Minus(wanted, old), admission.Minus(old, wanted)
			if gains.IsEmpty() && loses.IsEmpty() {
				continue
			}
			key := gains.String() + "/" + loses.String()
			i, known := groups[key]
			if !known {
				i = len(out)
				groups[key] = i
				out = append(out, AccessChange{Database: database, At: at, Gains: gains.Intervals(), Loses: loses.Intervals()})
			}
			out[i].Interfaces = append(out[i].Interfaces, p.InterfaceWords(iface))
		}
	}
	slices.SortFunc(out, func(a, b AccessChange) int {
		return cmp.Or(cmp.Compare(a.Database, b.Database), a.At.Compare(b.At), slices.Compare(a.Interfaces, b.Interfaces))
	})
	return out, nil
}

// settings says in words what else would change about databases.
func settings(have, want compile.Inventory) (words []string) {
	before, after := have.Names(), want.Names()
	for _, name := range before {
		if _, stays := slices.BinarySearch(after, name); !stays {
			words = append(words, fmt.Sprintf("database %s would not be protected any more", name))
		}
	}
	for _, name := range after {
		if _, there := slices.BinarySearch(before, name); !there {
			words = append(words, fmt.Sprintf("database %s would be protected", name))
		} else if old, wanted := have.ForceTLS(name), want.ForceTLS(name); old != wanted {
			words = append(words, fmt.Sprintf("Force TLS of %s would be %s, and is %s", name, wanted, old))
		}
	}
	return words
}
