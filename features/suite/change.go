package suite

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"drawbridge/features/platform"
)

var (
	toggleRE  = regexp.MustCompile(`^turns (Force TLS|Internet accessibility) (on|off)$`)
	customRE  = regexp.MustCompile(`^(adds|removes) the firewall rule "([^"]+)"$`)
	managedRE = regexp.MustCompile(`^(adds|removes) the managed range of "([^"]+)"$`)
	manyRE    = regexp.MustCompile(`^adds ([0-9]+) firewall rules from "([^"]+)" on$`)
	unknownRE = regexp.MustCompile(`^(keep|cut)s unknown connections$`)
)

// changes reads what an owner decides: actions joined by "and" are one change of the policy, changes joined by ", then" follow
// each other.
func changes(text string) [][]string {
	var all [][]string
	for _, one := range strings.Split(text, ", then ") {
		all = append(all, strings.Split(one, " and "))
	}
	return all
}

// decide carries one action out on a database's settings.
func decide(s *platform.Settings, action string) error {
	if action == "changes nothing" {
		return nil
	}
	if m := toggleRE.FindStringSubmatch(action); m != nil {
		to, err := platform.ParseToggle(m[2])
		if m[1] == "Force TLS" {
			s.ForceTLS = to
		} else {
			s.InternetAccessibility = to
		}
		return err
	}
	if m := unknownRE.FindStringSubmatch(action); m != nil {
		s.Unknown = platform.Unknown(m[1])
		return nil
	}
	if m := manyRE.FindStringSubmatch(action); m != nil {
		return addMany(s, m[1], m[2])
	}
	if m := managedRE.FindStringSubmatch(action); m != nil {
		return ruleChange(s, m[1], platform.Managed(m[2]))
	}
	if m := customRE.FindStringSubmatch(action); m != nil {
		r, err := platform.Custom(m[2])
		if err != nil {
			return err
		}
		return ruleChange(s, m[1], r)
	}
	return fmt.Errorf("%q: not a decision that features can name", action)
}

func ruleChange(s *platform.Settings, verb string, r platform.Rule) error {
	i := slices.Index(s.Rules, r)
	switch {
	case verb == "adds" && i >= 0:
		return fmt.Errorf("%s: is there already", r)
	case verb == "adds":
		s.Rules = append(s.Rules, r)
	case i < 0:
		return fmt.Errorf("%s: there is no such rule to remove", r)
	default:
		s.Rules = slices.Delete(s.Rules, i, i+1)
	}
	return nil
}

// addMany adds rules for consecutive networks of one size, single addresses only.
func addMany(s *platform.Settings, count, first string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return fmt.Errorf("%s rules: %w", count, err)
	}
	r, err := platform.Custom(first)
	if err != nil {
		return err
	}
	if !r.CIDR.IsSingleIP() {
		return fmt.Errorf("%s: consecutive rules are made for single addresses only", r)
	}
	for a := r.CIDR.Addr(); n > 0; a, n = a.Next(), n-1 {
		if err := ruleChange(s, "adds", platform.Rule{CIDR: netip.PrefixFrom(a, a.BitLen())}); err != nil {
			return err
		}
	}
	return nil
}
