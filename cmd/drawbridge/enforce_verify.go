package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"drawbridge/enforcer"
	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/proof"

	"github.com/spf13/cobra"
)

func (p *program) enforceVerifyCommand() *cobra.Command {
	var o enforceFlags
	var socket string
	c := &cobra.Command{
		Use:   "verify",
		Short: "Prove that what the kernel enforces is a policy",
		Long: `Reads the kernel's tables back and compares them with a policy, over the whole address space of both families: for every
protected port, every other port of its addresses, every interface's zone, TCP and other protocols, and both directions, the
exact set of sources that the rules let pass is computed and held against the policy, read from first principles. What the
first bytes of connections decide is compared object by object. Nothing is changed, and no packet is sent.

What the kernel remembers of connections, its tallies and budgets, is state and no part of the policy: it is not compared,
but a lock that the rules would not have made is named. Tables of others are not looked at. An expression that this enforcer
never writes is never taken for equal.

What drawbridge enforce run has open by break-glass is warned of, and counts as part of the policy: the proof is that nothing else is open.

Exit code 0 if it is proven, 1 if something differs or cannot be proven, 3 if the kernel could not be read.`,
		Example: `  drawbridge enforce verify --policy /etc/drawbridge/policy.json
  drawbridge enforce verify --json < policy.json | jq '.access[] | select(.rules == "pass")'`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return p.enforceVerify(c.Context(), o, socket) },
	}
	o.add(c, true)
	addSocket(c, &socket)
	return c
}

// errDiffers ends a verb that has already said what differs.
var errDiffers = &quiet{exitNotConformant}

func (p *program) enforceVerify(ctx context.Context, o enforceFlags, socket string) error {
	const verb = "enforce verify"
	document, options, err := p.policy(verb, o)
	if err != nil {
		return err
	}
	if options.Openings, err = p.breakGlass(ctx, socket); err != nil {
		return unable(verb, err)
	}
	v, err := enforcer.Verify(ctx, document, options)
	if errors.Is(err, enforcer.ErrRefused) {
		return misuse(verb, err)
	}
	if err != nil {
		return unable(verb, err)
	}
	if o.json {
		err = writeIndented(p.std.out, v)
	} else {
		err = writeVerification(p.std.out, options.Name, v)
	}
	if err != nil {
		return unable(verb, err)
	}
	if !v.Proven {
		return errDiffers
	}
	return nil
}

// maxShown bounds how many differences of a kind people are shown; --json has them all.
const maxShown = 40

func writeVerification(out io.Writer, name string, v enforcer.Verification) error {
	for _, u := range v.Unprovable {
		fmt.Fprintf(out, "cannot prove: %s\n", oneLine(u))
	}
	for _, d := range v.Objects[:min(len(v.Objects), maxShown)] {
		fmt.Fprintf(out, "%s: %s\n", oneLine(d.Object), oneLine(d.What))
	}
	more(out, len(v.Objects))
	for _, d := range v.Access[:min(len(v.Access), maxShown)] {
		fmt.Fprintln(out, oneLine(accessWords(d)))
	}
	more(out, len(v.Access))
	if v.Blind {
		fmt.Fprintln(out, "this kernel cannot tell TLS from plaintext: databases that need TLS are held to be closed")
	}
	l := v.LookedAt
	fmt.Fprintf(out, "kernel generation %d: %d sets of sources compared, at %d ports of %d protected addresses by %d interfaces\n",
		v.Generation, l.Sets, l.Ports, l.Addresses, l.Interfaces)
	fmt.Fprintf(out, "not compared, because it is the kernel's memory and no policy: the contents of %s\n", strings.Join(v.State, ", "))
	verdict := "PROVEN: what is in force is "
	if !v.Proven {
		verdict = "NOT PROVEN: what is in force is not "
	}
	_, err := fmt.Fprintln(out, verdict+name)
	return err
}

func more(out io.Writer, n int) {
	if n > maxShown {
		fmt.Fprintf(out, "and %d more, see --json\n", n-maxShown)
	}
}

func accessWords(d proof.Difference) string {
	where := d.At
	if d.Database != "" {
		where += " (" + d.Database + ")"
	}
	via := d.Interface
	if d.Zone != "" {
		via += ", zone " + string(d.Zone)
	}
	return fmt.Sprintf("%s, %s, by interface %s: for %s the rules say %s, the policy %s",
		where, d.Packets, via, addrset.Of(d.Sources...), d.Rules, d.Policy)
}
