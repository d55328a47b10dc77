//go:build !operator

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"text/tabwriter"
	"time"

	"drawbridge/cmd/drawbridge/internal/control"
	"drawbridge/sim/probe"
	"drawbridge/topology"

	"github.com/spf13/cobra"
)

// probeOrder asks for connections from one vantage.
type probeOrder struct {
	From   string     `json:"from"`
	To     string     `json:"to"` // a database, or address:port
	Source netip.Addr `json:"source"`
	TLS    *bool      `json:"tls"` // nil: every way that the port speaks
	// Engine is whose client connects; empty: that of the database.
	Engine topology.Engine `json:"engine,omitempty"`
}

// seen is one observation, for people and programs.
type seen struct {
	From     string                `json:"from"`
	Source   string                `json:"source,omitempty"`
	Database string                `json:"database"`
	Node     string                `json:"node"`
	Kind     topology.EndpointKind `json:"kind"`
	To       netip.AddrPort        `json:"to"`
	Point    string                `json:"point"`
	Mode     string                `json:"mode"`
	Verdict  string                `json:"verdict"`
	By       probe.By              `json:"by,omitempty"`
	Reason   string                `json:"reason"`
	Millis   float64               `json:"ms"`
}

// notTried is in the place of a verdict where a connection was not made, because nobody wanted it any more.
const notTried = "not-tried"

func seenOf(o probe.Observation, late []probe.Late) seen {
	s := seen{
		From: o.Spec.From, Database: o.Spec.To.Database, Node: o.Spec.To.Node, Kind: o.Spec.To.Kind, To: o.Spec.To.Addr,
		Point: o.Spec.To.Point, Mode: o.Spec.Mode.String(), Verdict: o.Verdict.String(), By: o.By, Reason: o.Reason,
		Millis: math.Round(float64(o.Took)/float64(10*time.Microsecond)) / 100,
	}
	if o.Spec.Source.IsValid() {
		s.Source = o.Spec.Source.String()
	}
	if !o.Tried() {
		s.Verdict = notTried
	}
	if slices.ContainsFunc(late, func(l probe.Late) bool { return l.Observation.Local == o.Local }) {
		s.Verdict, s.Reason = probe.Leaked.String(), "it was denied at first, but got through later"
	}
	return s
}

func (p *program) simProbeCommand(name *string) *cobra.Command {
	var o probeOrder
	var tls, plain, asJSON bool
	var source string
	c := &cobra.Command{
		Use:   "probe FROM TO",
		Short: "Connect from a vantage to a database and say what both ends saw",
		Long: `Connects with the real database client and asks one query. TO is a database, then all its endpoints are tried, or an address and
port, which may be a way round an endpoint. FROM is an Internet host, an app (region/app), a host of a peered network
(network/host), a database's node, or an address of one of them.

An observation is no judgement: the exit code is 0 whatever was seen, 3 if nothing can be concluded. "Denied" is concluded
with the help of the enforcement point's canary database; where that is not served, by five seconds' waiting (way "patience"). Of a database
whose server is down nothing can be concluded.`,
		Example: `  drawbridge sim probe office pg-dedicated
  drawbridge sim probe office pg-dedicated --tls --source 198.51.100.15
  drawbridge sim probe osc-fr1/web 203.0.113.129:5432 --json`,
		Args: exactly("FROM", "TO"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := apart(c, "tls", "plain"); err != nil {
				return err
			}
			o.From, o.To = args[0], args[1]
			if o.Engine != "" && !slices.Contains(topology.Engines(), o.Engine) {
				return misusef("sim probe: --engine", "%q: must be one of %s", o.Engine, topology.Engines())
			}
			if tls || plain {
				o.TLS = &tls
			}
			if source != "" {
				var err error
				if o.Source, err = netip.ParseAddr(source); err != nil {
					return misusef("sim probe: --source", "%q is not an address", source)
				}
			}
			return p.observe(c.Context(), "sim probe", *name, order{Probe: &o}, asJSON, writeSeen)
		},
	}
	f := c.Flags()
	f.BoolVar(&tls, "tls", false, "only over TLS")
	f.BoolVar(&plain, "plain", false, "only without TLS")
	f.StringVar(&source, "source", "", "source `address`, one of FROM's (default: FROM's first of the family)")
	f.StringVar((*string)(&o.Engine), "engine", "", "connect with the client of another `engine`, and see what becomes of it")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// observe asks a lab for observations and prints them.
func (p *program) observe(ctx context.Context, verb, lab string, o order, asJSON bool, write func(io.Writer, []seen) error) error {
	line := p.counting("connecting")
	a, err := askTelling(ctx, verb, lab, o, line.count)
	line.close()
	if err != nil {
		return err
	}
	return p.show(verb, a.Seen, asJSON, write)
}

// show prints observations.
func (p *program) show(verb string, all []seen, asJSON bool, write func(io.Writer, []seen) error) (err error) {
	if asJSON {
		e := json.NewEncoder(p.std.out)
		e.SetIndent("", "  ")
		err = e.Encode(append([]seen{}, all...)) // a list, if nothing was there to try as well
	} else {
		err = write(p.std.out, all)
	}
	if err != nil {
		return unable(verb, err)
	}
	inconclusive := func(s seen) bool { return s.Verdict == probe.Inconclusive.String() }
	if slices.ContainsFunc(all, inconclusive) {
		return unable(verb, errors.New("not every observation was conclusive"))
	}
	return nil
}

func writeSeen(out io.Writer, all []seen) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.1f ms\t%s\n", s.From, s.Database, s.To, s.Mode, s.Verdict, s.Millis, s.Reason)
	}
	return w.Flush()
}

// probe tries what an order names.
func (h *holder) probe(ctx context.Context, c *control.Conn, o probeOrder) (answer, error) {
	from, err := originsNamed(h.lab.World(), o.From)
	if err != nil {
		return answer{}, misuse("FROM", err)
	}
	v, source := from[0].vantage, from[0].source // several are on one host, which the network cannot tell apart
	if o.Source.IsValid() {
		source = o.Source
	}
	targets, err := endpointsNamed(h.lab.World(), o.To)
	if err != nil {
		return answer{}, misuse("TO", err)
	}
	if _, addressed := netip.ParseAddrPort(o.To); addressed != nil { // of a database, those of a family that FROM lacks are left out
		targets = slices.DeleteFunc(targets, func(e topology.Endpoint) bool { return !speaksFamily(v, source, e) })
	}
	var specs []probe.Spec
	for _, to := range targets {
		if o.Engine != "" {
			to.Engine = o.Engine
		}
		for _, mode := range probe.Modes(to) {
			if o.TLS == nil || *o.TLS == (mode == probe.TLS) {
				specs = append(specs, probe.Spec{From: v.Name, Source: source, To: to, Mode: mode})
			}
		}
	}
	if len(specs) == 0 {
		return answer{}, misusef("", "TO: nothing of %s can be tried that way", o.To)
	}
	ctx, stop := wanted(ctx, c)
	defer stop(nil)
	all, err := h.observe(ctx, "sim probe", specs, telling(c, len(specs)))
	if errors.Is(err, probe.ErrSpec) {
		return answer{}, misuse("", err)
	}
	return answer{Seen: all}, err
}

func speaksFamily(v topology.Vantage, source netip.Addr, e topology.Endpoint) bool {
	is4 := e.Addr.Addr().Is4()
	if source.IsValid() {
		return source.Is4() == is4
	}
	return slices.ContainsFunc(v.Addresses, func(a netip.Addr) bool { return a.Is4() == is4 })
}
