// Package compile turns a policy into the one nftables table that enforces it. It is pure and deterministic: equal
// policies give equal tables, and no kernel is asked.
//
// The table is a fixed skeleton of chains, which depends only on the point (its model, whether its zones are known,
// the names of its managed ranges) and on which databases exist. Everything that rules and toggles change is an
// element of a set. Every base chain accepts by default and judges protected endpoints only: other traffic of the host
// is none of its business. Accepting a packet ends one base chain, not the others, so that a packet must pass all:
//
//	admission  prerouting, -300   nobody outside speaks in a server's name; who may reach which endpoint;
//	                              stateless, before conntrack (S, D, C-04, X-04, X-10)
//	gate       prerouting, -140   everything else at dedicated addresses (G-03, X-02), then client to server:
//	                              TLS or not (S-06, D-04, C-03, X-05, X-08)
//	replies    postrouting, 150   server to client: the same admission, so that revocation ends both directions,
//	                              then what the server really took and said: the witness
//
// Every established packet walks through them, so each asks first what most packets are, in as few chains and look-ups as
// that takes: established_test.go counts them.
package compile

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

// TableName is the name of the table, of family inet.
const TableName = "drawbridge"

// Priorities of the base chains (include/uapi/linux/netfilter_ipv4.h). Reassembly of fragments is at -400, conntrack
// at -200, destination NAT at -100, source NAT at 100: admission spends no conntrack entry on what it denies, the gate
// sees connections before they are translated, and the chains behind 100 see answers after they are translated back.
const (
	priorityAdmission = -300
	priorityGate      = -140
	priorityReply     = 150
)

// Options are what the policy document does not say. The zero value is the default.
type Options struct {
	// MarkMask are the four adjacent bits of ct mark that hold a connection's class; 0: DefaultMarkMask.
	MarkMask uint32
	// SentTimeout is how long a database's memory holds a connection after its first segment went to the server,
	// whole seconds, more than 2; 0: 8 s. Tests shorten it.
	SentTimeout time.Duration
	// Memory is how many connections that begin are remembered in all; 0: 2^20. Tests shrink it.
	Memory uint32
	// Budget is how many connections may begin at one endpoint in a second; 0: 10,000. Twice as many may at once.
	Budget uint64
	// Now is the time from which rules that expire have so long to live. A policy that has such rules needs it.
	Now time.Time
	// WithoutLog leaves out what tells who was denied, for a kernel that has no nflog.
	WithoutLog bool
	// WithoutGate leaves out what tells TLS from plaintext, for a kernel that cannot. Databases with Force TLS on are then
	// closed as a whole, and so is traffic between nodes, which always needs TLS (SPEC C-03).
	WithoutGate bool
}

// Compile returns the table for a policy, with default options.
func Compile(p *policy.Policy) (ruleset.Table, error) { return Options{}.Compile(p) }

// ErrNeedsTime: a rule expires, and the options do not say what time it is.
var ErrNeedsTime = errors.New("a rule expires: the time is needed")

// Compile returns the table for a policy. The only errors are options that make no sense, and ErrNeedsTime.
func (o Options) Compile(p *policy.Policy) (ruleset.Table, error) {
	c, err := o.compiler(p)
	if err != nil {
		return ruleset.Table{}, err
	}
	c.chainsOf(p)
	return c.table(), nil
}

// Sets is Compile without the chains. Those of two policies are the same where they claim the same (policy.Policy.SameClaims), are of the
// same point and none of their databases is open for a while: what differs between them is elements.
func (o Options) Sets(p *policy.Policy) (ruleset.Table, error) {
	c, err := o.compiler(p)
	if err != nil {
		return ruleset.Table{}, err
	}
	return c.table(), nil
}

// compiler returns one that has the sets with their elements.
func (o Options) compiler(p *policy.Policy) (*compiler, error) {
	if o.MarkMask == 0 {
		o.MarkMask = DefaultMarkMask
	}
	mark, err := NewMark(o.MarkMask)
	if err != nil {
		return nil, err
	}
	if o.SentTimeout != 0 && (o.SentTimeout <= freshMargin || o.SentTimeout%time.Second != 0) {
		return nil, fmt.Errorf("sent timeout %v: want whole seconds, more than %v", o.SentTimeout, freshMargin)
	}
	if o.Now.IsZero() && p.Timed() {
		return nil, ErrNeedsTime
	}
	c := &compiler{
		now:       o.Now,
		silent:    o.WithoutLog,
		builder:   newBuilder(),
		mark:      mark,
		dedicated: p.Model() != policy.Shared,
		zones:     len(p.Interfaces()) > 0,
		ranges:    p.ManagedRanges(),
		sent:      cmp.Or(o.SentTimeout, sentTimeout),
		memory:    cmp.Or(o.Memory, memorySize),
		budget:    cmp.Or(o.Budget, budgetRate),
		blind:     o.WithoutGate,
	}
	c.families = familiesOf(p)
	for db := range p.EachDatabase() {
		c.clustered = c.clustered || len(db.Nodes()) > 1
	}
	c.glass = c.opened(p)
	c.declareSets(p)
	c.fill(p)
	return c, nil
}

// chainsOf adds the chains.
func (c *compiler) chainsOf(p *policy.Policy) {
	c.admission()
	c.databaseChains(p)
	c.behindAdmission()
}

// behindAdmission adds the chains that follow admission.
func (c *compiler) behindAdmission() {
	c.gate()
	if !c.blind {
		c.locked()
		c.tally()
	}
	c.reply()
	if !c.blind {
		c.witness()
	}
}

// compiler holds what the skeleton depends on.
type compiler struct {
	*builder
	cutting
	families  []family // that have something to protect
	clustered bool     // a database has several nodes
	mark      Mark
	dedicated bool // the point is a gateway
	zones     bool // the policy tells the interfaces' zones
	ranges    []policy.ManagedRange
	sent      time.Duration
	memory    uint32
	budget    uint64
	blind     bool // there is no gate
	now       time.Time
	glass     bool // a shared database is open for a while
	silent    bool // nobody is told who was denied
}

// familiesOf are the families of a policy's protected addresses. What is of the other one is nobody's here: it needs neither sets nor
// chains, and falls off the base chains' ends. They follow from what a policy claims (policy.Policy.SameClaims). Both, if it protects nothing.
func familiesOf(p *policy.Policy) []family {
	has := map[string]bool{}
	for db := range p.EachDatabase() {
		for _, e := range db.Endpoints() {
			has[familyOf(e.Addr.Addr()).suffix] = true
		}
		for _, n := range db.Nodes() {
			for _, a := range n.Addresses {
				has[familyOf(a).suffix] = has[familyOf(a).suffix] || n.Here
			}
		}
	}
	in := slices.DeleteFunc(slices.Clone(families[:]), func(f family) bool { return !has[f.suffix] })
	if len(in) == 0 {
		return families[:]
	}
	return in
}

// baseChain is a base chain that lets pass what its rules do not mention.
func (c *compiler) baseChain(name string, hook ruleset.Hook, priority int32, rules ...ruleset.Rule) {
	c.chain(ruleset.Chain{Name: name, Hook: hook, Priority: priority, Policy: accept, Rules: rules})
}

func (c *compiler) regular(name string, rules ...ruleset.Rule) {
	c.chain(ruleset.Chain{Name: name, Rules: rules})
}

// perFamily sends each family to its own twin of a chain.
func (c *compiler) perFamily(chain string) []ruleset.Rule {
	var out []ruleset.Rule
	for _, f := range c.families {
		out = append(out, rule(f.is(), goTo(chain+f.suffix)))
	}
	return out
}
