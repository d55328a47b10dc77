package suite

import (
	"fmt"
	"net/netip"
	"slices"

	"drawbridge/features/oracle"
	"drawbridge/features/platform"
)

// hypothesis is one setting that an enforcer may have got wrong.
type hypothesis struct {
	words string
	state *platform.State
}

// explain adds to the last attempt, if it did not end as it must, the single setting that would make what happened right.
func (s *scenario) explain(c oracle.Connection, got Outcome) {
	line := &s.record.Attempts[len(s.record.Attempts)-1]
	if line.Proof == nil || got.Finding != Served && got.Finding != Denied {
		return // nothing would make a leak right
	}
	line.Proof.RightIf = s.rightIf(c, got.Finding)
}

// rightIf looks for the smallest change under which the oracle expects what happened; "" if no single one does.
func (s *scenario) rightIf(c oracle.Connection, was Finding) string {
	class := map[Finding]oracle.Class{Served: oracle.Served, Denied: oracle.Denied}[was]
	for _, h := range s.hypotheses(c) {
		if v, err := oracle.Expect(h.state, c); err == nil && v.Class == class {
			return h.words
		}
	}
	return ""
}

// hypotheses are the states that differ from the present one in one setting of the database, the likeliest mistakes first.
func (s *scenario) hypotheses(c oracle.Connection) []hypothesis {
	name := c.To.Database
	var all []hypothesis
	with := func(words string, change func(*platform.Settings)) {
		next, settings := s.state.Clone(), s.state.Of(name)
		change(&settings)
		if !settings.Equal(s.state.Of(name)) {
			next.Set(name, settings)
			all = append(all, hypothesis{words, next})
		}
	}
	if d := s.last; d != nil && d.database == name && d.refused == nil {
		with("the owner's last change had not been made", func(o *platform.Settings) { *o = d.before })
	}
	for _, t := range []platform.Toggle{platform.On, platform.Off} {
		with(fmt.Sprintf("Force TLS of %s were %s", name, t), func(o *platform.Settings) { o.ForceTLS = t })
		with(fmt.Sprintf("Internet accessibility of %s were %s", name, t), func(o *platform.Settings) { o.InternetAccessibility = t })
	}
	for i, r := range s.state.Of(name).Rules {
		with(fmt.Sprintf("%s had no rule %s", name, r), func(o *platform.Settings) { o.Rules = slices.Delete(o.Rules, i, i+1) })
	}
	if a, err := oracle.Arrive(s.state, c); err == nil && a.Source.IsValid() {
		only := platform.Rule{CIDR: netip.PrefixFrom(a.Source, a.Source.BitLen())}
		with(fmt.Sprintf("%s had a rule %s", name, only), func(o *platform.Settings) { o.Rules = append(o.Rules, only) })
	}
	return all
}
