package enforcer

import (
	"fmt"
	"time"

	"drawbridge/enforcer/cut"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/reconcile"
	"drawbridge/enforcer/ruleset"
)

// Receipt tells what came into force, and when. Its JSON form is what the driver's apply answers (docs/DRIVERS.md).
type Receipt struct {
	// Generation names this state of this point; no two receipts of a point have the same. It is the kernel's
	// generation and the time of the reading: where nothing had to be written, the former is that of the receipt before.
	Generation string `json:"generation"`
	// KernelGeneration is the generation of the ruleset at which the table was read back.
	KernelGeneration uint32 `json:"kernel_generation"`
	// InForceAt is from when on every packet met the policy. Where nothing had to be written, the time of the reading.
	InForceAt time.Time `json:"in_force_at"`
	// DeniedAt is since when everything that the policy protects was denied, until InForceAt: where somebody had deleted the
	// table. Zero otherwise.
	DeniedAt time.Time `json:"denied_at,omitzero"`
	// ReadAt is when the table had been read back from the kernel.
	ReadAt time.Time `json:"read_at"`
	// Changed counts what was written.
	Changed Changed `json:"changed"`
	// Objects name what was written to, and the first few elements; empty if nothing was.
	Objects []string `json:"objects,omitempty"`
	// Repaired says what was wrong with a table that somebody had tampered with; empty otherwise.
	Repaired string `json:"repaired,omitempty"`
	// Endings say what somebody else had changed of the tables that end refused connections, and a Repair has undone.
	Endings []string `json:"endings,omitempty"`
	// EndingsSince is the generation of the ruleset in which nothing of that was wrong yet, and EndingsGeneration that in which it was undone.
	EndingsSince, EndingsGeneration uint32 `json:"-"`
	// EndingsGone: all of that is that such tables were missing.
	EndingsGone bool `json:"-"`
	// Restored: the session's Sentry had put the table back before, and this tells what it did.
	Restored bool `json:"restored,omitempty"`
	// Attempts is how often the change was written: more than once if others changed the ruleset at the same time.
	Attempts int `json:"attempts"`
	// Cut says what became of established connections. All zero if the change could end none.
	Cut cut.Report `json:"cut"`
	// ConnectionsEndedAt is when the last of them had ended; zero if none were looked for.
	ConnectionsEndedAt time.Time `json:"connections_ended_at,omitzero"`
	// Warnings are for the user.
	Warnings []string `json:"warnings,omitempty"`
}

// After is the receipt of a Repair that followed what a Sentry put back, as that of both.
func (r Receipt) After(put Restored) Receipt {
	r.DeniedAt = put.DeniedAt
	if put.Whole {
		r.InForceAt, r.Changed, r.Objects, r.Attempts = put.At, put.Changed, madeTable, 1
	}
	return r
}

// with is the receipt of a Repair that looked once more, as that of both looks.
func (r Receipt) with(earlier Receipt) Receipt {
	if r.Changed == (Changed{}) && earlier.Changed != (Changed{}) {
		r.Changed, r.Objects, r.InForceAt, r.Attempts = earlier.Changed, earlier.Objects, earlier.InForceAt, earlier.Attempts
	}
	if r.Repaired == "" {
		r.Repaired = earlier.Repaired
	}
	if r.Cut == (cut.Report{}) {
		r.Cut, r.ConnectionsEndedAt = earlier.Cut, earlier.ConnectionsEndedAt
	}
	return r
}

// Changed counts the parts of a change.
type Changed struct {
	ElementsAdded   int `json:"elements_added"`
	ElementsDeleted int `json:"elements_deleted"`
	Sets            int `json:"sets"`
	Chains          int `json:"chains"`
}

// changesOf is what a write changed, whether or not it was read back.
func changesOf(r reconcile.Receipt) Receipt {
	out := Receipt{InForceAt: r.InForceAt, Changed: count(r.Change), Objects: objects(r.Change), Attempts: r.Attempts}
	if r.Repaired != nil {
		out.Repaired = r.Repaired.Error()
	}
	return out
}

func newReceipt(r reconcile.Receipt, p *policy.Policy, now time.Time) Receipt {
	out := changesOf(r)
	out.Generation, out.KernelGeneration, out.ReadAt = fmt.Sprintf("%d-%x", r.Generation, now.UnixNano()), r.Generation, r.ReadAt
	if out.InForceAt.IsZero() {
		out.InForceAt = r.ReadAt
	}
	out.Warnings = warnings(p, now)
	return out
}

// warnings are what the user should know of a policy that is allowed.
func warnings(p *policy.Policy, now time.Time) (all []string) {
	for _, w := range p.Warnings() {
		all = append(all, w.Text)
	}
	return append(all, expired(p, now)...)
}

// unopened adds what break-glass cannot open.
func (r *Receipt) unopened(refused []error) {
	for _, err := range refused {
		r.Warnings = append(r.Warnings, fmt.Sprintf("break-glass has no effect: %v", err))
	}
}

func count(c ruleset.Change) Changed {
	changed := Changed{Sets: len(c.AddSets) + len(c.DeleteSets), Chains: len(c.AddRules) + len(c.DeleteChains)}
	for _, e := range c.AddElements {
		changed.ElementsAdded += len(e.Elements)
	}
	for _, e := range c.DeleteElements {
		changed.ElementsDeleted += len(e.Elements)
	}
	return changed
}
