//go:build !operator

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"drawbridge/features/driver"
	"drawbridge/features/platform"
	"drawbridge/topology"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// enforceOrder asks for policies to be brought into force.
type enforceOrder struct {
	Points []string `json:"points,omitempty"` // none: all
	Driver string   `json:"driver,omitempty"` // absolute path; empty: the reference enforcer
	Reset  bool     `json:"reset,omitempty"`
	// Policy is a document for the one point, in the place of one that is made from the settings; null: there is none. One of no bytes is a
	// document, too, so that it must not be left out of the message.
	Policy []byte `json:"policy"`
	// Settings, each as NAME=VALUE, by database.
	Rules    []string `json:"rules,omitempty"`
	ForceTLS []string `json:"force_tls,omitempty"`
	Internet []string `json:"internet,omitempty"`
}

// enforced is what became of one point.
type enforced struct {
	Point      string   `json:"point"`
	Outcome    string   `json:"outcome"`
	Generation string   `json:"generation,omitempty"`
	Millis     float64  `json:"ms"`
	Warnings   []string `json:"warnings,omitempty"`
	Error      string   `json:"error,omitempty"`
}

// Outcomes.
const (
	inForce   = "in force"
	wasReset  = "reset"
	wasRefuse = "refused"
	broken    = "broken"
)

func (p *program) simEnforceCommand(name *string) *cobra.Command {
	var o enforceOrder
	var all, asJSON bool
	var policyFile string
	c := &cobra.Command{
		Use:   "enforce {POINT... | --all}",
		Short: "Bring policies into force in a running lab, by any driver",
		Long: `Makes the policy of each enforcement point and hands it to a driver (docs/DRIVERS.md) in the point's network: the reference enforcer,
or what --driver names. A policy says what the flags say of its databases, and nothing of settings that no flag names, which are
then the enforcer's own defaults; what an earlier call said is forgotten. Canaries are open to everybody, so that sim probe and
sim matrix can conclude something.

The exit code is 2 if every policy was refused, so that nothing was changed, and 3 if some were and others are in force.`,
		Example: `  drawbridge sim enforce --all
  drawbridge sim enforce --all --rule pg-dedicated=198.51.100.0/25 --rule mongo-dedicated=osc-fr1 --force-tls pg-shared
  drawbridge sim enforce gw-fr1 --driver ./mine
  drawbridge sim enforce gw-fr1 --policy policy.json
  drawbridge sim enforce --all --reset`,
		Args: func(c *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return wrongUse(c, errors.New("POINT and --all exclude each other"))
			case !all && len(args) == 0:
				return wrongUse(c, errors.New("POINT is missing; --all means every point"))
			case policyFile != "" && len(args) != 1:
				return wrongUse(c, errors.New("--policy is for one POINT"))
			}
			var errs []error
			for _, whole := range []string{"policy", "reset"} {
				for _, setting := range []string{"rule", "force-tls", "internet"} {
					errs = append(errs, apart(c, whole, setting))
				}
			}
			return errors.Join(append(errs, apart(c, "policy", "reset"))...)
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.Points = args
			return p.simEnforce(c.Context(), *name, o, policyFile, asJSON)
		},
	}
	f := c.Flags()
	f.BoolVar(&all, "all", false, "every enforcement point of the world")
	f.StringVar(&o.Driver, "driver", "", "the `program` that enforces (default: the reference enforcer)")
	f.StringVar(&policyFile, "policy", "", "a policy of your own for the one POINT: `path` of a file or of a directory of parts; - is standard input")
	f.StringArrayVar(&o.Rules, "rule", nil, "add a firewall rule: `DATABASE=CIDR` or DATABASE=REGION")
	f.StringArrayVar(&o.ForceTLS, "force-tls", nil, "turn Force TLS on: `DATABASE`, or DATABASE=off")
	f.StringArrayVar(&o.Internet, "internet", nil, "turn Internet accessibility on: `DATABASE`, or DATABASE=off")
	f.BoolVar(&o.Reset, "reset", false, "take out of force instead what the driver, or if none is named the last one, brought into force")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (p *program) simEnforce(ctx context.Context, lab string, o enforceOrder, policyFile string, asJSON bool) error {
	const verb = "sim enforce"
	var err error
	if policyFile != "" {
		if o.Policy, err = p.policyOf(policyFile); err != nil {
			return misuse(verb+": --policy", err)
		}
	}
	if o.Driver != "" {
		if o.Driver, err = exec.LookPath(o.Driver); err == nil {
			o.Driver, err = filepath.Abs(o.Driver)
		}
		if err != nil {
			return misuse(verb+": --driver", err)
		}
	}
	line := p.waiting("the enforcers are at work")
	a, err := ask(ctx, verb, lab, order{Enforce: &o})
	line.close()
	if err != nil {
		return err
	}
	write := writeEnforced
	if asJSON {
		write = func(out io.Writer, all []enforced) error { return writeIndented(out, all) }
	}
	if err := write(p.std.out, a.Enforced); err != nil {
		return unable(verb, err)
	}
	is := func(outcome string) bool {
		return slices.ContainsFunc(a.Enforced, func(e enforced) bool { return e.Outcome == outcome })
	}
	switch {
	case is(broken):
		return unable(verb, errors.New("a driver did not do what it was asked to"))
	case is(wasRefuse) && is(inForce):
		return unable(verb, fmt.Errorf("%w at %s; what was in force there still is, and elsewhere the new policies are", errSomeRefused, strings.Join(refusedAt(a.Enforced), ", ")))
	case is(wasRefuse):
		return misusef(verb, "a policy was refused; what was in force there still is")
	}
	return nil
}

// errEmptyPolicy: whoever hands over nothing has lost what was meant, and gets no policy of somebody else's in its place.
var errEmptyPolicy = errors.New("the document is empty; drawbridge sim policy POINT prints one to begin with")

// policyOf reads the document of --policy.
func (p *program) policyOf(file string) ([]byte, error) {
	name, document, err := p.readPolicy(file)
	if err == nil && len(document) == 0 {
		err = fmt.Errorf("%s: %w", name, errEmptyPolicy)
	}
	return document, err
}

// errSomeRefused: policies were brought into force at some points, and refused at others.
var errSomeRefused = errors.New("a policy was refused")

func refusedAt(all []enforced) (points []string) {
	for _, e := range all {
		if e.Outcome == wasRefuse {
			points = append(points, e.Point)
		}
	}
	return points
}

func writeEnforced(out io.Writer, all []enforced) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, e := range all {
		fmt.Fprintf(w, "%s\t%s\t%.1f ms\t%s\n", e.Point, e.Outcome, e.Millis, e.Error)
		for _, text := range e.Warnings {
			fmt.Fprintf(w, "\twarning\t\t%s\n", text)
		}
	}
	return w.Flush()
}

// enforcements are what sim enforce brought into force, by point.
type enforcements struct {
	turn sync.Mutex // one order at a time
	mu   sync.Mutex
	by   map[string]enforcement
}

// enforcement is what is in force at a point, as far as a lab knows.
type enforcement struct {
	document []byte // nil: nothing
	driver   string // who brought it into force, as in enforceOrder
}

// at returns what is in force at a point.
func (e *enforcements) at(point string) enforcement {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.by[point]
}

func (e *enforcements) set(point string, now enforcement) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.by == nil {
		e.by = map[string]enforcement{}
	}
	e.by[point] = now
}

// Directories below the cell's scratch directory.
const (
	driversDirectory = ".drivers"
	policyDirectory  = ".policies"
)

// enforceAtOnce is how many drivers run at a time: much of a call is waiting for the kernel.
const enforceAtOnce = 6

func (h *holder) enforce(ctx context.Context, o enforceOrder) (answer, error) {
	h.enforced.turn.Lock()
	defer h.enforced.turn.Unlock()
	w := h.lab.World()
	points := o.Points
	if len(points) == 0 {
		for _, p := range w.Points() {
			points = append(points, p.Name)
		}
	}
	for _, name := range points {
		if _, ok := w.Point(name); !ok {
			return answer{}, misuse("", unknownPoint(w, name))
		}
	}
	state, err := h.state(o)
	if err == nil && o.Policy != nil {
		err = meantFor(points, o.Policy)
	}
	if err != nil {
		return answer{}, misuse("", err)
	}
	drivers := map[string]*driver.Exec{}
	all := make([]enforced, len(points))
	var g errgroup.Group
	g.SetLimit(enforceAtOnce)
	for i, point := range points {
		at := o
		if o.Reset && o.Driver == "" { // who brought it into force knows how to take it out
			at.Driver = h.enforced.at(point).driver
		}
		if drivers[at.Driver] == nil {
			if drivers[at.Driver], err = enforcerOf(h.lab.Lab, conformOptions{driver: at.Driver}, filepath.Join(h.scratch, driversDirectory)); err != nil {
				return answer{}, errors.Join(misuse("", err), g.Wait())
			}
		}
		d := drivers[at.Driver]
		g.Go(func() error { all[i] = h.enforceAt(ctx, d, state, at, point); return nil })
	}
	_ = g.Wait() // errors are outcomes
	return answer{Enforced: all}, ctx.Err()
}

// errOtherPoint: a policy names the interfaces and databases of its own point, and means nothing at another one.
var errOtherPoint = errors.New("is another point's policy")

// meantFor returns an error if a document says that it is for another point than the one. One that does not say so, in whatever way, is the
// driver's to refuse.
func meantFor(points []string, document []byte) error {
	var says struct {
		Point struct {
			Name string `json:"name"`
		} `json:"point"`
	}
	if err := json.Unmarshal(document, &says); err != nil || says.Point.Name == "" || slices.Equal(points, []string{says.Point.Name}) {
		return nil
	}
	return fmt.Errorf("--policy: the document %w: its point.name is %q, and not %s", errOtherPoint, says.Point.Name, strings.Join(points, ", "))
}

// errElsewhere: a setting of a database that no policy of these points speaks of would be without effect.
var errElsewhere = errors.New("is at none of the points that were named")

// at returns an error unless one of the points, of which none means all, is a database's.
func at(w *topology.World, points []string, database string) error {
	var its []string
	for _, p := range w.Points() {
		if slices.Contains(p.Databases, database) {
			its = append(its, p.Name)
		}
	}
	if len(points) == 0 || slices.ContainsFunc(its, func(p string) bool { return slices.Contains(points, p) }) {
		return nil
	}
	return fmt.Errorf("%s %w; it is at %s", database, errElsewhere, strings.Join(its, ", "))
}

// enforceAt makes one call of a driver.
func (h *holder) enforceAt(ctx context.Context, d *driver.Exec, state *platform.State, o enforceOrder, point string) enforced {
	e := enforced{Point: point, Outcome: inForce}
	began := time.Now()
	document, receipt, err := callDriver(ctx, d, state, o, point)
	if o.Driver != "" { // it may enforce by other means than nftables, of whose changes nobody hears by themselves
		h.watched.tell("a driver was called", point)
	}
	e.Millis = math.Round(float64(time.Since(began))/float64(100*time.Microsecond)) / 10
	e.Generation, e.Warnings = receipt.Generation, receipt.Warnings
	switch {
	case errors.Is(err, driver.ErrRefused):
		e.Outcome, e.Error = wasRefuse, err.Error()
	case err != nil:
		e.Outcome, e.Error = broken, err.Error()
	case o.Reset:
		e.Outcome = wasReset
		h.enforced.set(point, enforcement{})
	default:
		h.enforced.set(point, enforcement{document, o.Driver})
	}
	return e
}

func callDriver(ctx context.Context, d *driver.Exec, state *platform.State, o enforceOrder, point string) ([]byte, driver.Receipt, error) {
	if o.Reset {
		return nil, driver.Receipt{}, d.Reset(ctx, point)
	}
	document := o.Policy
	if document == nil {
		built, err := driver.Build(state, point)
		if err != nil {
			return nil, driver.Receipt{}, err
		}
		if document, err = json.Marshal(built); err != nil {
			return nil, driver.Receipt{}, err
		}
	}
	receipt, err := d.Submit(ctx, point, document)
	return document, receipt, err
}

// state is the platform as the flags have it, with the primaries that the lab has now.
func (h *holder) state(o enforceOrder) (*platform.State, error) {
	w := h.lab.World()
	state := platform.Start(w)
	for _, d := range w.Databases() {
		if err := state.SetPrimary(d.Name, h.lab.Primary(d.Name)); err != nil {
			return nil, err
		}
	}
	for _, s := range []struct {
		flag   string
		values []string
		set    func(*platform.Settings, string) error
	}{
		{"--rule", o.Rules, func(to *platform.Settings, v string) error { return addRule(w, to, v) }},
		{"--force-tls", o.ForceTLS, func(to *platform.Settings, v string) error { return setToggle(&to.ForceTLS, v) }},
		{"--internet", o.Internet, func(to *platform.Settings, v string) error { return setToggle(&to.InternetAccessibility, v) }},
	} {
		for _, text := range s.values {
			name, value, _ := strings.Cut(text, "=")
			d, ok := w.Database(name)
			if !ok || d.Canary {
				return nil, fmt.Errorf("%s %s: %q is no database of world %s", s.flag, text, name, w.Name())
			}
			if err := at(w, o.Points, name); err != nil {
				return nil, fmt.Errorf("%s %s: %w", s.flag, text, err)
			}
			settings := state.Of(name)
			if err := s.set(&settings, value); err != nil {
				return nil, fmt.Errorf("%s %s: %w", s.flag, text, err)
			}
			state.Set(name, settings)
		}
	}
	return state, nil
}

func addRule(w *topology.World, to *platform.Settings, value string) error {
	rule := platform.Managed(value)
	if _, ok := w.Region(value); !ok {
		if !strings.Contains(value, "/") {
			var names []string
			for _, r := range w.Regions() {
				names = append(names, r.Name)
			}
			return fmt.Errorf("%q is neither a network, as 198.51.100.0/25 is, nor a region of world %s; known: %s", value, w.Name(), strings.Join(names, ", "))
		}
		var err error
		if rule, err = platform.Custom(value); err != nil {
			return fmt.Errorf("%q is neither a region nor a network: %w", value, err)
		}
	}
	to.Rules = append(to.Rules, rule)
	return nil
}

func setToggle(to *platform.Toggle, value string) (err error) {
	if value == "" {
		value = platform.On.String()
	}
	*to, err = platform.ParseToggle(value)
	return err
}
