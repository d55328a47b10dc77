package enforcer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/intent"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/proof"
	"drawbridge/enforcer/ruleset"
)

var (
	// ErrUnknownTarget: there is no such database, or no such port of it. The error lists those that are known.
	ErrUnknownTarget = errors.New("no such database here")
	// ErrNothingInForce: there is no table to be asked.
	ErrNothingInForce = errors.New("nothing is in force here")
	// ErrTampered: the table holds what this enforcer does not write, so that nobody can tell what it does.
	ErrTampered = errors.New("the table was tampered with")
)

// Query is one client, and where it wants to go.
type Query struct {
	From netip.Addr
	// Interface by which it comes; empty: each that policy or table name, and one that they do not.
	Interface string
	// Database and Port, or At. With neither a port nor At, all endpoints of the client's family.
	Database string
	Port     uint16
	At       netip.AddrPort
	// Says what the client begins with; nothing: only whether it is let in.
	Says intent.Speech
}

// Explanation says what becomes of one client at one port, by one interface.
type Explanation struct {
	Database  string         `json:"database"`
	At        netip.AddrPort `json:"at"`
	From      netip.Addr     `json:"from"`
	Interface string         `json:"interface"`
	Zone      policy.Zone    `json:"zone,omitempty"`
	// Kernel tells what the rules in force do: "pass", "drop", "reject" or "undecided", with the last of Packets.
	Kernel string `json:"kernel"`
	// Packets are those of the connection, as far as they got.
	Packets []proof.Packet `json:"packets"`
	// Policy is what the policy says; nil without one.
	Policy *intent.Verdict `json:"policy,omitempty"`
	// Differ: rules and policy do not agree.
	Differ bool `json:"differ"`
}

// standing reads the table that stands: it is ErrNothingInForce if there is none, and ErrTampered if it is not as this enforcer writes.
func standing(ctx context.Context, kernel *nft.Conn) (ruleset.Table, error) {
	state, err := kernel.Read(ctx)
	switch {
	case err != nil:
		return ruleset.Table{}, err
	case !state.Exists:
		return ruleset.Table{}, ErrNothingInForce
	case state.Foreign != nil:
		return ruleset.Table{}, fmt.Errorf("%w: %w", ErrTampered, state.Foreign)
	}
	return state.Table, nil
}

// Explain says which rule, default or element decides about a client: by the rules that stand in the kernel of the calling
// thread's network namespace, and if there is a document by that policy too.
func Explain(ctx context.Context, q Query, document []byte, options Options) (all []Explanation, err error) {
	options = options.withDefaults()
	kernel, err := nft.Open(compile.TableName)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	table, err := standing(ctx, kernel)
	if err != nil {
		return nil, err
	}
	e := explainer{query: q}
	if e.stage, err = proof.StageOf(table); err != nil {
		return nil, err
	}
	e.inventory = compile.InventoryOf(table)
	_, e.fromServer = e.inventory.Addresses()[q.From]
	if document != nil {
		if options, err = options.within(ctx, kernel); err != nil {
			return nil, err
		}
		p, err := options.parse(document)
		if err != nil {
			return nil, err
		}
		e.point = intent.Of(p, intent.Options{Blind: options.Compile.WithoutGate, Now: options.Clock()})
	}
	e.known = e.ports()
	targets, err := e.targets()
	if err != nil {
		return nil, err
	}
	for _, at := range targets {
		for _, iface := range e.interfaces() {
			all = append(all, e.explain(at, iface))
		}
	}
	return all, nil
}

type explainer struct {
	stage      proof.Stage
	inventory  compile.Inventory
	point      *intent.Point // nil: there is no policy
	query      Query
	known      map[netip.AddrPort]string // all ports with their databases
	fromServer bool                      // the client's address is that of a server here
}

// ports are all ports with their databases, by table and policy.
func (e *explainer) ports() map[netip.AddrPort]string {
	all := e.inventory.Ports()
	if e.point != nil {
		for _, t := range e.point.Targets() {
			all[t.At] = t.Database
		}
	}
	return all
}

// targets are the ports that the query means.
func (e *explainer) targets() (out []netip.AddrPort, err error) {
	known, q := e.known, e.query
	for at, database := range known {
		matches := at == q.At
		if !q.At.IsValid() {
			matches = database == q.Database && at.Addr().Is4() == q.From.Is4() && (q.Port == at.Port() || q.Port == 0 && e.isEndpoint(at))
		}
		if matches && (q.Database == "" || q.Database == database) {
			out = append(out, at)
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	if len(out) > 0 {
		return out, nil
	}
	if q.At.IsValid() && q.Database == "" {
		return []netip.AddrPort{q.At}, nil // nothing of the policy: that can be explained too
	}
	names := slices.Sorted(maps.Values(known))
	var ports []string
	for at, database := range known {
		if database == q.Database {
			ports = append(ports, at.String())
		}
	}
	if slices.Sort(ports); len(ports) > 0 {
		return nil, fmt.Errorf("%w: %s has no such port for %v; it has %s", ErrUnknownTarget, q.Database, q.From, strings.Join(ports, ", "))
	}
	return nil, fmt.Errorf("%w: %q; known are %s", ErrUnknownTarget, q.Database, strings.Join(slices.Compact(names), ", "))
}

// isEndpoint tells whether clients connect there, as far as is known.
func (e *explainer) isEndpoint(at netip.AddrPort) bool {
	if e.point == nil {
		return true
	}
	t, ok := e.point.Target(at)
	return !ok || t.Endpoint
}

// interfaces are those by which the client may come.
func (e *explainer) interfaces() []string {
	switch {
	case e.query.Interface != "":
		return []string{e.query.Interface}
	case e.point != nil:
		return e.point.Interfaces()
	}
	return append(e.inventory.Interfaces(), "another")
}

func (e *explainer) explain(at netip.AddrPort, iface string) Explanation {
	q := e.query
	x := Explanation{Database: e.known[at], At: at, From: q.From, Interface: iface}
	var lines []proof.Line
	negotiates := "first"
	if e.point != nil {
		x.Zone = e.point.Zone(iface)
		verdict := e.point.Explain(q.From, iface, at, q.Says)
		x.Policy = &verdict
		if t, ok := e.point.Target(at); ok {
			negotiates = t.Negotiates()
		}
	}
	switch q.Says {
	case intent.SaysPlain:
		lines = proof.Plaintext(negotiates)
	case intent.SaysTLS:
		lines = proof.TLS(negotiates)
	}
	packets, passed := e.stage.Play(proof.Client{From: q.From, Interface: iface, To: at, Server: e.fromServer}, lines)
	x.Packets, x.Kernel = packets, packets[len(packets)-1].Outcome
	x.Differ = x.Policy != nil && x.Kernel != "undecided" && x.Policy.Allowed != passed
	return x
}
