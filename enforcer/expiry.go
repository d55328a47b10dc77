package enforcer

import (
	"fmt"
	"time"

	"drawbridge/enforcer/intent"
	"drawbridge/enforcer/policy"
)

// nextExpiry is when the next rule of a policy ends by itself; the zero value: none does.
func nextExpiry(p *policy.Policy, now time.Time) (next time.Time) {
	sooner := func(end time.Time) {
		if end.After(now) && (next.IsZero() || end.Before(next)) {
			next = end
		}
	}
	for db := range p.EachDatabase() {
		if !db.Timed() {
			continue // as in expired
		}
		sooner(db.OpenUntil())
		for _, r := range db.EachRule() {
			sooner(r.Expires)
		}
	}
	return next
}

// expired names the rules that are not in force because they have expired.
func expired(p *policy.Policy, now time.Time) (words []string) {
	for db := range p.EachDatabase() {
		if !db.Timed() {
			continue // which is nearly every one, and this is done after each change
		}
		for i, r := range db.EachRule() {
			if !r.InForce(now) {
				words = append(words, fmt.Sprintf("not in force, because it has expired: %s, of database %s", intent.RuleName(i, r), db.Name()))
			}
		}
	}
	return words
}

// NextExpiry is when the next rule of the policy that was applied last ends by itself; the zero value: none does. The kernel
// needs nobody for that. But connections that the rule let in are silent then, not ended: Repair ends them. And a lifetime
// is counted from the clock as it was when the rule was applied: after the clock was set, Repair mends it.
func (s *Session) NextExpiry() time.Time { return s.expires }
