//go:build !operator

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"drawbridge/cmd/drawbridge/internal/bench"
	"drawbridge/enforcer"
	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
	"drawbridge/sim/netns"
)

// Names of contenders that goals are about, and of metrics.
const (
	metricTime      = "time"
	metricProcessor = "processor time"

	byEnforcer = "drawbridge"
	byBatch    = "its netlink transaction alone"
	byNFT      = "nft"
)

// oneMore is the network that one more rule lets in.
var oneMore = netip.MustParsePrefix("198.19.0.0/24")

// rules measures the installation of a policy, and a change of one rule, for each number of databases.
func (b *comparer) rules(ctx context.Context) error {
	for _, n := range b.databases {
		r, err := b.newRuleBench(n)
		if err != nil {
			return err
		}
		if err := errors.Join(r.measure(ctx), r.close()); err != nil {
			return err
		}
	}
	return nil
}

// inMillis are the metrics of what is told in milliseconds.
var inMillis = []bench.Metric{{Name: metricTime, Unit: "ms"}, {Name: metricProcessor, Unit: "ms"}}

// ruleBench is one policy, before and after a change, and the firewalls that keep it.
type ruleBench struct {
	*comparer
	n             int
	changed       int // the database that gets one more rule
	gateway       bench.Gateway
	before, after []byte // documents
	was, is       ruleset.Table
	forth, back   ruleset.Change
	walls         []*wall
	conn          *nft.Conn // of the transaction alone
}

// wall is a way to keep the policy, and where that was done last.
type wall struct {
	name    string
	kind    bench.Kind
	absent  string
	ns      *netns.Handle
	failed  bool // it was not installed there
	install func(context.Context, *netns.Handle) (spent, error)
	// add lets one more network in, and remove takes that back.
	add, remove func(context.Context, *netns.Handle) (spent, error)
	// clear empties the namespace, so that the kernel does not do it while somebody else is measured; nil: nothing to do.
	clear func(context.Context, *netns.Handle) error
}

func (b *comparer) newRuleBench(n int) (r *ruleBench, err error) {
	with := func(last ...netip.Prefix) bench.Gateway {
		return bench.Gateway{Databases: n, Last: map[int][]netip.Prefix{n / 2: last}}
	}
	r = &ruleBench{comparer: b, n: n, changed: n / 2, gateway: with()}
	if r.before, r.was, err = compiled(r.gateway); err != nil {
		return nil, err
	}
	if r.after, r.is, err = compiled(with(oneMore)); err != nil {
		return nil, err
	}
	r.forth, r.back = ruleset.Diff(r.was, r.is), ruleset.Diff(r.is, r.was)
	document, err := r.file(fmt.Sprintf("%d.json", n), string(r.before))
	if err != nil {
		return nil, err
	}
	own := []*wall{
		{name: byEnforcer, kind: bench.Ours, install: r.program(byEnforcer, "enforce", "apply", "--policy", document)},
		{name: byBatch, kind: bench.Part, install: r.commitAll, add: r.commit(r.forth), remove: r.commit(r.back)},
	}
	for _, w := range own {
		w.clear = r.flush
	}
	nftWall, err := r.nftWall()
	if err != nil {
		return nil, err
	}
	linear, err := r.linearWalls()
	if err != nil {
		return nil, err
	}
	sets, err := r.setWall()
	r.walls = append(append(append(own, nftWall), linear...), sets)
	return r, err
}

// compiled returns a gateway's document and the table that enforces it.
func compiled(g bench.Gateway) (document []byte, t ruleset.Table, err error) {
	if document, err = g.Document(); err != nil {
		return nil, t, err
	}
	p, err := policy.Parse("gateway", document)
	if err != nil {
		return nil, t, err
	}
	t, err = compile.Compile(p)
	return document, t, err
}

func (r *ruleBench) close() error {
	var errs []error
	if r.conn != nil {
		errs = append(errs, r.conn.Close())
	}
	for _, w := range r.walls {
		errs = append(errs, w.ns.Close())
	}
	return errors.Join(errs...)
}

func (r *ruleBench) measure(ctx context.Context) error {
	size := fmt.Sprintf("%s databases of %d rules", bench.Thousands(r.n), bench.RulesEach)
	install := bench.Task{Group: "Rules", Name: "install " + size, Metrics: inMillis,
		Aims: []bench.Aim{{Metric: metricTime, Against: byNFT, Limit: 1}}}
	for _, w := range r.walls {
		install.Contenders = append(install.Contenders, bench.Contender{Name: w.name, Kind: w.kind, Absent: w.absent, Run: w.reinstall})
	}
	if err := r.comparer.measure(ctx, r.plan, install); err != nil {
		return err
	}
	session, err := r.session(ctx)
	if err != nil {
		return err
	}
	change := bench.Task{Group: "Rules", Name: "one more rule among " + size, Metrics: inMillis}
	// The goals: within 1 ms in the kernel for 1,000 databases, and 5 ms for 10,000.
	if limit, ok := map[int]float64{1000: 1, 10_000: 5}[r.n]; ok {
		change.Aims = []bench.Aim{{Metric: metricTime, Of: byBatch, Limit: limit}}
	}
	for _, w := range r.walls {
		c := bench.Contender{Name: w.name, Kind: w.kind, Absent: w.absent, Run: w.change}
		if w.kind == bench.Ours {
			c.Run = r.bySession(session)
		}
		change.Contenders = append(change.Contenders, c)
	}
	return errors.Join(r.comparer.measure(ctx, r.plan, change), session.Close())
}

// reinstall installs the policy in a fresh namespace, where it stays until the next time.
func (w *wall) reinstall(ctx context.Context) (bench.Values, error) {
	fresh, err := netns.New()
	if err != nil {
		return nil, err
	}
	if w.ns != nil && w.clear != nil {
		err = w.clear(ctx, w.ns)
	}
	err = errors.Join(err, w.ns.Close())
	w.ns = fresh
	if err != nil {
		return nil, err
	}
	took, err := w.install(ctx, fresh)
	w.failed = err != nil
	return took.values(), err
}

// change lets one more network in, and takes that back.
func (w *wall) change(ctx context.Context) (bench.Values, error) {
	if w.ns == nil || w.failed {
		return nil, errors.New("the policy could not be installed")
	}
	took, err := w.add(ctx, w.ns)
	if err != nil {
		return nil, err
	}
	_, err = w.remove(ctx, w.ns)
	return took.values(), err
}

// session is what the daemon has: a lasting session that owns its tables, with the policy in force.
func (r *ruleBench) session(ctx context.Context) (s *enforcer.Session, err error) {
	err = r.walls[0].ns.Do(func() error {
		if err := enforcer.Reset(ctx); err != nil {
			return err
		}
		s, err = enforcer.Open(enforcer.Options{})
		if err != nil {
			return err
		}
		if err := s.Own(ctx); err != nil && !errors.Is(err, enforcer.ErrUnsupported) {
			return errors.Join(err, s.Close())
		}
		if _, err = s.Apply(ctx, r.before); err != nil {
			return errors.Join(err, s.Close())
		}
		return nil
	})
	return s, err
}

func (r *ruleBench) bySession(s *enforcer.Session) func(context.Context) (bench.Values, error) {
	return func(ctx context.Context) (v bench.Values, err error) {
		err = r.walls[0].ns.Do(func() error {
			var receipt enforcer.Receipt
			took, err := spending(func() (err error) { receipt, err = s.Apply(ctx, r.after); return err })
			v = took.values()
			if err == nil && receipt.Changed.ElementsAdded == 0 {
				err = errors.New("nothing was changed")
			}
			if err == nil {
				_, err = s.Apply(ctx, r.before)
			}
			return err
		})
		return v, err
	}
}

// commitAll is the transaction that installs the table: written to messages, sent, and answered.
func (r *ruleBench) commitAll(ctx context.Context, ns *netns.Handle) (spent, error) {
	if r.conn != nil {
		if err := r.conn.Close(); err != nil {
			return spent{}, err
		}
		r.conn = nil
	}
	err := ns.Do(func() (err error) { r.conn, err = nft.Open(r.was.Name); return err })
	if err != nil {
		return spent{}, err
	}
	return r.commit(ruleset.Diff(ruleset.Table{}, r.was))(ctx, ns)
}

func (r *ruleBench) commit(change ruleset.Change) func(context.Context, *netns.Handle) (spent, error) {
	return func(ctx context.Context, _ *netns.Handle) (spent, error) {
		generation, err := r.conn.Generation(ctx)
		if err != nil {
			return spent{}, err
		}
		return spending(func() error { return r.conn.Commit(ctx, change, generation) })
	}
}

// program is a wall's step that is one run of a program.
func (r *ruleBench) program(name string, args ...string) func(context.Context, *netns.Handle) (spent, error) {
	return func(ctx context.Context, ns *netns.Handle) (spent, error) {
		return r.exec(ctx, ns, "", name, args...)
	}
}

// flush takes all of nftables out of a namespace, if nft is there to do it; otherwise the kernel does, some time later.
func (r *ruleBench) flush(ctx context.Context, ns *netns.Handle) error {
	if r.absent("nft") != "" {
		return nil
	}
	_, err := r.exec(ctx, ns, "", "nft", "flush", "ruleset")
	return err
}

// nftWall is nft(8) with what the enforcer would install.
func (r *ruleBench) nftWall() (*wall, error) {
	mark, err := compile.NewMark(compile.DefaultMarkMask)
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	for _, t := range append([]ruleset.Table{r.was}, mark.Endings()...) {
		text.WriteString(ruleset.Print(t) + "\n")
	}
	path, err := r.file(fmt.Sprintf("%d.nft", r.n), text.String())
	if err != nil {
		return nil, err
	}
	element := func(change ruleset.Change) string { return strings.Join(ruleset.PrintChange(change), "; ") }
	return &wall{
		name: byNFT, kind: bench.Peer, absent: r.absent("nft"), install: r.program("nft", "-f", path),
		add: r.program("nft", element(r.forth)), remove: r.program("nft", element(r.back)), clear: r.flush,
	}, nil
}

// linearWalls are iptables(8) with one rule after the other, on both of its kernel interfaces.
func (r *ruleBench) linearWalls() (all []*wall, err error) {
	path, err := r.file(fmt.Sprintf("%d.iptables", r.n), r.gateway.Linear())
	if err != nil {
		return nil, err
	}
	place := strconv.Itoa(r.gateway.LinearPlace(r.changed))
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		restore := program + "-restore"
		w := &wall{
			name: program + ", linear", kind: bench.Peer, absent: r.absent(program, restore), install: r.program(restore, path),
			add:    r.program(program, append([]string{"-t", bench.IPTable, "-I", bench.IPChain, place}, r.gateway.LinearRule(r.changed, oneMore)...)...),
			remove: r.program(program, "-t", bench.IPTable, "-D", bench.IPChain, place),
			clear:  r.flush,
		}
		if program == "iptables-legacy" {
			w.clear = func(ctx context.Context, ns *netns.Handle) error {
				_, err := r.exec(ctx, ns, "", program, "-t", bench.IPTable, "-F")
				return err
			}
		}
		all = append(all, w)
	}
	return all, nil
}

// setWall is ipset(8) with one set for each database, which one rule each asks.
func (r *ruleBench) setWall() (*wall, error) {
	sets, err := r.file(fmt.Sprintf("%d.ipset", r.n), r.gateway.Sets())
	if err != nil {
		return nil, err
	}
	rules, err := r.file(fmt.Sprintf("%d.ipset-rules", r.n), r.gateway.SetRules())
	name := r.gateway.SetName(r.changed)
	return &wall{
		name: "ipset and iptables-nft", kind: bench.Peer, absent: r.absent("ipset", "iptables-nft-restore"),
		install: func(ctx context.Context, ns *netns.Handle) (spent, error) {
			first, err := r.exec(ctx, ns, "", "ipset", "restore", "-file", sets)
			if err != nil {
				return spent{}, err
			}
			second, err := r.exec(ctx, ns, "", "iptables-nft-restore", rules)
			return spent{first.elapsed + second.elapsed, first.processor + second.processor}, err
		},
		add: r.program("ipset", "add", name, oneMore.String()), remove: r.program("ipset", "del", name, oneMore.String()),
		clear: func(ctx context.Context, ns *netns.Handle) error {
			if err := r.flush(ctx, ns); err != nil {
				return err
			}
			_, err := r.exec(ctx, ns, "", "ipset", "destroy")
			return err
		},
	}, err
}
