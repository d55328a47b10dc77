package enforcer

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/cut"
	"drawbridge/enforcer/intent"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

// Plan is what applying a policy would do. Nothing of it has happened.
type Plan struct {
	// Changed counts the parts of the change.
	Changed Changed `json:"changed"`
	// Commands are the change in nft(8) syntax.
	Commands []string `json:"commands"`
	// Repair says what is wrong with the table that stands, which would be replaced as a whole; empty otherwise.
	Repair string `json:"repair,omitempty"`
	// Settings says in words what would change about databases besides who reaches them.
	Settings []string `json:"settings"`
	// Access says who would gain access and who would lose it, over the whole address space: of the rules that stand and of
	// the policy. Of a table that was tampered with it is not known.
	Access []AccessChange `json:"access"`
	// Cut are the connections that stand now and would be ended, by database and client.
	Cut []Doomed `json:"cut"`
	// Kept counts the protected connections that would go on.
	Kept int `json:"kept"`
	// Warnings are for the user.
	Warnings []string `json:"warnings"`
}

// Connections counts those that would be ended.
func (p Plan) Connections() (n int) {
	for _, d := range p.Cut {
		n += d.Connections
	}
	return n
}

// Doomed are connections of one client to one database that would be ended, for one reason.
type Doomed struct {
	Database    string     `json:"database"`
	Client      netip.Addr `json:"client"`
	Connections int        `json:"connections"`
	// Why: "not admitted", "plaintext", "unknown beginning" or "before its first byte is judged".
	Why string `json:"why"`
}

// MakePlan tells what Apply would do with a policy in the network namespace of the calling thread, and which of the
// connections that stand now it would end (SPEC X-05). A refused policy is ErrRefused, as with Apply.
func MakePlan(ctx context.Context, document []byte, options Options) (plan Plan, err error) {
	options = options.withDefaults()
	p, err := options.parse(document)
	if err != nil {
		return Plan{}, err
	}
	mark, err := compile.NewMark(options.Compile.MarkMask)
	if err != nil {
		return Plan{}, err
	}
	kernel, err := nft.Open(compile.TableName)
	if err != nil {
		return Plan{}, err
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	if options, err = options.within(ctx, kernel); err != nil {
		return Plan{}, err
	}
	want, err := options.table(p)
	if err != nil {
		return Plan{}, err
	}
	state, err := kernel.Read(ctx)
	if err != nil {
		return Plan{}, err
	}
	change := ruleset.Diff(state.Table, want)
	plan = Plan{Changed: count(change), Commands: ruleset.PrintChange(change)}
	if state.Foreign != nil {
		plan.Repair = state.Foreign.Error()
	}
	plan.Warnings = warnings(p, options.Clock())
	before := compile.InventoryOf(state.Table)
	plan.Settings = settings(before, compile.InventoryOf(want))
	if state.Foreign == nil {
		if plan.Access, err = accessChanges(state.Table, before, intent.Of(p, intent.Options{Blind: options.Compile.WithoutGate, Now: options.Clock()})); err != nil {
			return Plan{}, err
		}
	}
	j := newJudge(p, mark, change.CreateTable || state.Foreign != nil, options.Clock())
	live, err := cut.List(ctx, j.Protects, p.Model() == policy.Dedicated)
	plan.Cut, plan.Kept = j.doomed(live)
	return plan, err
}

// doomed groups the connections that the policy would end, largest group first, and counts the others.
func (j *judge) doomed(live []cut.Connection) (groups []Doomed, kept int) {
	counts := map[Doomed]int{}
	for _, c := range live {
		if j.Allows(c) {
			kept++
			continue
		}
		counts[Doomed{Database: j.database(c.Endpoint), Client: c.Client.Addr(), Why: j.why(c)}]++
	}
	for d, n := range counts {
		d.Connections = n
		groups = append(groups, d)
	}
	slices.SortFunc(groups, func(a, b Doomed) int {
		return cmp.Or(cmp.Compare(b.Connections, a.Connections), cmp.Compare(a.Database, b.Database), a.Client.Compare(b.Client), cmp.Compare(a.Why, b.Why))
	})
	return groups, kept
}

// database names the database at an address and port; at an address where nothing else lives, the address itself.
func (j *judge) database(at netip.AddrPort) string {
	if e, ok := j.endpoints[at]; ok {
		return e.database.Name()
	}
	if db, ok := j.ports[at]; ok {
		return db.Name()
	}
	return at.String()
}

// why says what a connection is ended for.
func (j *judge) why(c cut.Connection) string {
	e, isEndpoint := j.endpoints[c.Endpoint]
	if !j.pairs[pair{c.Client.Addr(), c.Endpoint}] && (!isEndpoint || !j.admits(e.database, c.Client.Addr())) {
		return "not admitted"
	}
	if !c.Tracked {
		return "unknown beginning"
	}
	switch j.mark.Class(c.Mark).Speech() {
	case compile.SpeaksPlaintext:
		return "plaintext"
	case compile.SpeaksUnknown:
		return "unknown beginning"
	}
	return "before its first byte is judged"
}
