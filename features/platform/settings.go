// Package platform owns what the users and the operator of an emulated platform have decided at one moment: the settings
// of every database, which node is primary, which addresses a region's traffic leaves from, and which of them its managed
// range publishes. It decides nothing about traffic: package oracle does, and package driver turns it into policies.
package platform

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Toggle is a setting that its user may never have touched. The zero value is Untouched: the model's default applies.
type Toggle int

// Positions of a Toggle.
const (
	Untouched Toggle = iota
	On
	Off
)

// String returns "untouched", "on" or "off".
func (t Toggle) String() string {
	switch t {
	case On:
		return "on"
	case Off:
		return "off"
	}
	return "untouched"
}

// ParseToggle reads "on" or "off".
func ParseToggle(s string) (Toggle, error) {
	switch s {
	case "on":
		return On, nil
	case "off":
		return Off, nil
	}
	return Untouched, fmt.Errorf("setting %q: neither on nor off", s)
}

// Rule is one firewall rule: either a custom range (CIDR is valid) or a managed range (Managed names it), never both.
// Rules are comparable; two equal rules are the same rule.
type Rule struct {
	CIDR    netip.Prefix
	Managed string
}

// Custom returns the rule for a CIDR such as "198.51.100.0/28". Host bits must be clear.
func Custom(cidr string) (Rule, error) {
	p, err := netip.ParsePrefix(cidr)
	if err != nil {
		return Rule{}, fmt.Errorf("firewall rule: %w", err)
	}
	if p != p.Masked() {
		return Rule{}, fmt.Errorf("firewall rule %s: host bits are set; the network is %s", p, p.Masked())
	}
	return Rule{CIDR: p}, nil
}

// Managed returns the rule for a region's managed range.
func Managed(name string) Rule { return Rule{Managed: name} }

// String prints the CIDR, or "managed range NAME".
func (r Rule) String() string {
	if r.Managed != "" {
		return "managed range " + r.Managed
	}
	return r.CIDR.String()
}

// Unknown says what becomes of connections whose beginning the enforcer never saw, when Force TLS is turned on (SPEC X-05).
// The zero value says nothing: the enforcer's default, to cut them, applies.
type Unknown string

// Treatments of unknown connections.
const (
	CutUnknown  Unknown = "cut"
	KeepUnknown Unknown = "keep"
)

// Settings are everything a database's owner can decide. The zero value is a database that nobody ever touched.
type Settings struct {
	ForceTLS              Toggle
	InternetAccessibility Toggle
	Rules                 []Rule
	Unknown               Unknown
}

// Clone returns a copy that shares nothing.
func (s Settings) Clone() Settings { s.Rules = slices.Clone(s.Rules); return s }

// Equal reports whether both say the same, rules in the same order.
func (s Settings) Equal(o Settings) bool {
	return s.ForceTLS == o.ForceTLS && s.InternetAccessibility == o.InternetAccessibility && s.Unknown == o.Unknown &&
		slices.Equal(s.Rules, o.Rules)
}

// String prints the settings on one line, for messages.
func (s Settings) String() string {
	rules := make([]string, len(s.Rules))
	for i, r := range s.Rules {
		rules[i] = r.String()
	}
	return fmt.Sprintf("Force TLS %s, Internet accessibility %s, rules [%s]", s.ForceTLS, s.InternetAccessibility, strings.Join(rules, ", "))
}
