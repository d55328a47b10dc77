package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"drawbridge/enforcer"
	"drawbridge/enforcer/intent"
	"drawbridge/enforcer/proof"

	"github.com/spf13/cobra"
)

// explainFlags are the flags of enforce explain.
type explainFlags struct {
	enforceFlags
	from, to   string
	socket     string
	tls, plain bool
}

func (p *program) enforceExplainCommand() *cobra.Command {
	var o explainFlags
	c := &cobra.Command{
		Use:   "explain --from ADDRESS[%INTERFACE] --to DATABASE[:PORT]",
		Short: "Say why a client is let in or not: which rule, default or element decides",
		Long: `Reads the kernel's rules back, sends the packets of one connection of the client through them on paper, and shows each rule and
element that matched, up to the one that decided. With --policy it also says which rule of the document decides, or which
default, and which rule comes closest; without, only the kernel is asked. No packet is sent.

The client arrives by the interface behind the % of its address; without one, each interface that policy or table tell apart is
tried; what a host says to itself, over lo, is not judged. An interface that is not here is warned of. --plain and --tls go on behind the handshake, with what a client says first: Force TLS decides there. The destination is a database,
one port of it, DATABASE=ADDRESS:PORT or ADDRESS:PORT.

Exit code 0 if the client's fate is known, whatever it is; 1 if rules and policy do not agree, or if nothing is in force.`,
		Example: `  drawbridge enforce explain --from 198.51.100.9 --to orders --policy policy.json
  drawbridge enforce explain --from 198.51.100.9%inet0 --to orders:5432 --plain
  drawbridge enforce explain --from 2001:db8::9 --to '[2001:db8:2::1]:5432' --json`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return p.enforceExplain(c.Context(), o) },
	}
	c.Flags().StringVar(&o.from, "from", "", "the client's `address`, with %INTERFACE behind it the way it comes by (required)")
	c.Flags().StringVar(&o.to, "to", "", "`database` or address and port (required)")
	c.Flags().BoolVar(&o.tls, "tls", false, "the client speaks TLS")
	c.Flags().BoolVar(&o.plain, "plain", false, "the client speaks plaintext")
	c.Flags().StringVar(&o.file, "policy", "", policyWords+" (default: only the kernel is asked)")
	o.addMask(c)
	addSocket(c, &o.socket)
	c.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return c
}

// query is what the flags ask.
func (o explainFlags) query() (q enforcer.Query, err error) {
	address, iface, _ := strings.Cut(o.from, "%")
	if q.From, err = netip.ParseAddr(address); err != nil {
		return q, fmt.Errorf("--from: %w", err)
	}
	q.From, q.Interface = q.From.Unmap(), iface
	switch {
	case o.tls && o.plain:
		return q, errors.New("--tls and --plain: choose one")
	case o.tls && o.file == "":
		return q, errors.New("--tls: the engine decides how, and only the policy tells it: add --policy")
	case o.tls:
		q.Says = intent.SaysTLS
	case o.plain:
		q.Says = intent.SaysPlain
	}
	if database, at, ok := strings.Cut(o.to, "="); ok {
		q.Database = database
		q.At, err = netip.ParseAddrPort(at)
	} else if q.At, err = netip.ParseAddrPort(o.to); err != nil {
		err = nil
		var port string
		if q.Database, port, ok = strings.Cut(o.to, ":"); ok {
			var n uint64
			n, err = strconv.ParseUint(port, 10, 16)
			q.Port = uint16(n)
		}
	}
	switch {
	case err != nil:
		return q, fmt.Errorf("--to: %w", err)
	case o.to == "":
		return q, errors.New("--to: name a database")
	case q.At.IsValid() && q.At.Addr().Is4() != q.From.Is4():
		return q, fmt.Errorf("--from %v and --to %v are of different families", q.From, q.At)
	}
	return q, nil
}

func (p *program) enforceExplain(ctx context.Context, o explainFlags) error {
	const verb = "enforce explain"
	q, err := o.query()
	if err != nil {
		return misuse(verb, err)
	}
	options, err := o.options(verb)
	if err != nil {
		return err
	}
	var document []byte
	if o.file != "" {
		if options.Name, document, err = p.readPolicy(o.file); err != nil {
			return misuse(verb, err)
		}
	}
	if options.Openings, err = p.breakGlass(ctx, o.socket); err != nil {
		return unable(verb, err)
	}
	p.warn(missingInterface(q.Interface))
	all, err := enforcer.Explain(ctx, q, document, options)
	if err != nil {
		return notTold(verb, err)
	}
	if o.json {
		err = writeIndented(p.std.out, all)
	} else {
		err = writeExplanations(p.std.out, all)
	}
	if err != nil {
		return unable(verb, err)
	}
	for _, x := range all {
		if x.Differ {
			return errDiffers
		}
	}
	return nil
}

// missingInterface warns of an interface that is not here. Rules and policy may name it all the same, and are asked.
func missingInterface(name string) []string {
	if name == "" {
		return nil
	}
	if _, err := net.InterfaceByName(name); err != nil {
		return []string{fmt.Sprintf("this network namespace has no interface %q now: what follows is of one that would have that name", name)}
	}
	return nil
}

func writeExplanations(out io.Writer, all []enforcer.Explanation) error {
	for n, x := range all {
		if n > 0 {
			fmt.Fprintln(out)
		}
		via := x.Interface
		if x.Zone != "" {
			via += ", zone " + string(x.Zone)
		}
		to := x.At.String()
		if x.Database != "" {
			to = x.Database + " at " + to
		}
		fmt.Fprintf(out, "%v by interface %s to %s\n", x.From, oneLine(via), oneLine(to))
		writeTrace(out, x.Packets)
		if x.Policy != nil {
			writePolicyVerdict(out, x)
		}
	}
	return nil
}

// writeTrace shows every packet's fate, and how the last one met it.
func writeTrace(out io.Writer, packets []proof.Packet) {
	for n, packet := range packets {
		fmt.Fprintf(out, "  kernel: %s: %s\n", packet.What, strings.ToUpper(packet.Outcome))
		if n < len(packets)-1 && packet.Outcome == "pass" && n > 0 {
			continue
		}
		for _, s := range packet.Steps {
			at := fmt.Sprintf("rule %d", s.Rule)
			if s.Rule == 0 {
				at = "the end"
			}
			maybe := ""
			if s.Maybe {
				maybe = "  (if it matches)"
			}
			fmt.Fprintf(out, "    chain %s, %s: %s%s\n", oneLine(s.Chain), at, oneLine(s.Text), maybe)
			for _, e := range s.Elements {
				fmt.Fprintf(out, "      by element %s\n", oneLine(e))
			}
		}
	}
}

func writePolicyVerdict(out io.Writer, x enforcer.Explanation) {
	word := "DENIED"
	if x.Policy.Allowed {
		word = "ALLOWED"
	}
	fmt.Fprintf(out, "  policy: %s: %s\n", word, x.Policy.Why)
	if x.Policy.Nearest != "" {
		fmt.Fprintf(out, "    nearest is %s\n", x.Policy.Nearest)
	}
	if x.Differ {
		fmt.Fprintln(out, "  RULES AND POLICY DO NOT AGREE: see drawbridge enforce verify")
	}
}

// notTold is why a question about what stands in the kernel has no answer.
func notTold(verb string, err error) error {
	switch {
	case errors.Is(err, enforcer.ErrRefused), errors.Is(err, enforcer.ErrUnknownTarget):
		return misuse(verb, err)
	case errors.Is(err, enforcer.ErrNothingInForce), errors.Is(err, enforcer.ErrTampered):
		return &failure{exitNotConformant, verb, err}
	}
	return unable(verb, err)
}
