package mutant

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"drawbridge/features/driver"
)

// memoryFile keeps a point's last policy for the next call.
const memoryFile = "policy"

// recall returns the policy that remember kept, or nil.
func recall() (*driver.Document, error) {
	text, err := os.ReadFile(memoryFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return decode(text)
}

func remember(doc *driver.Document) error {
	text, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	return os.WriteFile(memoryFile, text, 0o600)
}

// remembering returns a change that sees the policy as it left it the last time. None is seen after the canary alone.
func remembering(change func(was, now *driver.Database)) func(*driver.Document) error {
	return func(doc *driver.Document) error {
		before, err := recall()
		if err != nil {
			return err
		}
		for i := range doc.Databases {
			now := &doc.Databases[i]
			if before == nil || isCanary(*now) {
				continue
			}
			j := slices.IndexFunc(before.Databases, func(d driver.Database) bool { return d.Name == now.Name })
			if j >= 0 {
				change(&before.Databases[j], now)
			}
		}
		return remember(doc)
	}
}

// memories are mutants that forget to change something.
func memories() []Mutant {
	return []Mutant{
		{
			Name: "removal ignored", Breaks: "a removed rule stays in force", Statement: "D-10", Tags: "@D-10",
			change: remembering(func(was, now *driver.Database) {
				for _, r := range was.FirewallRules {
					addRule(now, r)
				}
			}),
		},
		{
			Name: "removal takes what overlaps", Breaks: "a removed rule takes along what another still covers",
			Statement: "D-10", Tags: "@D-10",
			change: remembering(func(was, now *driver.Database) {
				for _, gone := range was.FirewallRules {
					if gone.CIDR == nil || slices.ContainsFunc(now.FirewallRules, sameAs(gone)) {
						continue
					}
					now.FirewallRules = slices.DeleteFunc(now.FirewallRules, func(r driver.Rule) bool {
						return r.CIDR != nil && r.CIDR.Overlaps(*gone.CIDR)
					})
				}
			}),
		},
		{
			Name: "Force TLS stays on", Breaks: "Force TLS cannot be turned off", Statement: "S-05", Tags: "@S-05",
			change: remembering(func(was, now *driver.Database) {
				if on(was.ForceTLS) {
					now.ForceTLS = set(true)
				}
			}),
		},
		{
			Name: "Force TLS stays off", Breaks: "Force TLS cannot be turned on again", Statement: "D-04", Tags: "@D-04",
			change: remembering(func(was, now *driver.Database) {
				if was.ForceTLS != nil && !*was.ForceTLS && !on(now.InternetAccessibility) {
					now.ForceTLS = set(false)
				}
			}),
		},
		{
			Name: "Internet accessibility stays on", Breaks: "it cannot be turned off", Statement: "S-08", Tags: "@S-08",
			change: remembering(func(was, now *driver.Database) {
				if on(was.InternetAccessibility) && on(now.ForceTLS) {
					now.InternetAccessibility = set(true)
				}
			}),
		},
		{
			Name: "managed ranges stale", Breaks: "managed ranges are those of the first policy", Statement: "D-13", Tags: "@D-13",
			change: staleRanges,
		},
		{
			Name: "fail-over loses the rules", Breaks: "a fail-over closes the endpoint", Statement: "D-17", Tags: "@D-17",
			change: remembering(func(was, now *driver.Database) {
				if failedOver(was, now) {
					now.FirewallRules = nil
				}
			}),
		},
		{
			Name: "fail-over loses Force TLS", Breaks: "Force TLS is that of the first node", Statement: "D-17", Tags: "@D-17",
			change: remembering(func(was, now *driver.Database) {
				if failedOver(was, now) {
					now.ForceTLS = set(false)
				}
			}),
		},
		{
			Name: "one policy behind", Breaks: "a policy is in force once the next one is applied",
			Statement: "D-05", Tags: "@D-05", change: oneBehind,
		},
	}
}

func failedOver(was, now *driver.Database) bool {
	return len(now.Endpoints) > 0 && now.Endpoints[0].DNAT != nil && *now.Endpoints[0].DNAT != *was.Endpoints[0].DNAT
}

func staleRanges(doc *driver.Document) error {
	before, err := recall()
	if err != nil {
		return err
	}
	if before != nil {
		doc.ManagedRanges = map[string][]netip.Prefix{}
		for name, r := range before.ManagedRanges {
			doc.ManagedRanges[name] = r
		}
		return nil
	}
	return remember(doc)
}

// oneBehind applies the policy of the call before.
func oneBehind(doc *driver.Document) error {
	before, err := recall()
	if err != nil {
		return err
	}
	if err := remember(doc); err != nil {
		return err
	}
	if before != nil {
		*doc = *before
	}
	return nil
}
