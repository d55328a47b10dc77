package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"drawbridge/enforcer"
	"drawbridge/enforcer/compile"

	"github.com/spf13/cobra"
)

func (p *program) enforceCommand() *cobra.Command {
	// These verbs show what others have written in the kernel and in policies.
	p = &program{args: p.args, std: streams{in: p.std.in, out: printable{p.std.out}, err: printable{p.std.err}}, env: p.env}
	return group(&cobra.Command{
		Use:   "enforce",
		Short: "The reference enforcer, behind the driver protocol",
		Long: `Brings a policy into force in the network namespace it is called in, as one nftables table, inet drawbridge, and two small ones
of families ip and ip6 that end connections which it refused. describe, apply and reset are the driver protocol of
docs/DRIVERS.md. What reads or writes the kernel's rules needs CAP_NET_ADMIN.`,
		Example: `  drawbridge enforce plan < policy.json
  drawbridge enforce apply < policy.json
  drawbridge enforce status
  drawbridge enforce reset`,
	}, p.enforceApplyCommand(), p.enforcePlanCommand(), p.enforceVerifyCommand(), p.enforceExplainCommand(), p.enforceExportCommand(), p.enforceHitsCommand(), p.enforceDeniedCommand(), p.enforceStatusCommand(), p.enforceRulesCommand(), p.enforceRunCommand(), p.enforceBootCommand(), p.enforceBreakGlassCommand(), p.enforceResetCommand(), p.enforceDescribeCommand(), p.enforceResidentCommand(), p.enforceSchemaCommand(), p.enforceDoctorCommand())
}

func (p *program) enforceApplyCommand() *cobra.Command {
	var o enforceFlags
	c := &cobra.Command{
		Use:   "apply",
		Short: "Bring a policy into force, in the place of the one before",
		Long: `Reads a policy (drawbridge enforce schema) and brings it into force. Once it is, a receipt is printed as one JSON object and
the exit code is 0. A refused policy has exit code 2, and what was in force still is. Warnings to the user go to standard
error, each on a line that begins with "warning: ".`,
		Example: `  drawbridge enforce apply < policy.json
  drawbridge enforce apply --policy policy.json
  drawbridge enforce apply --policy /etc/drawbridge/policy.d`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return p.enforceApply(c.Context(), o) },
	}
	o.addPolicy(c)
	o.addMask(c)
	return c
}

// enforceFlags are the flags that several verbs of enforce share.
type enforceFlags struct {
	file, mask string
	ofRules    bool // the mask, unless it is given, is that of the rules in force
	json       bool
}

// add adds the flags of a verb that prints for people or for programs.
func (o *enforceFlags) add(c *cobra.Command, withPolicy bool) {
	if withPolicy {
		o.addPolicy(c)
		o.addMask(c)
	} else {
		o.ofRules = true
		c.Flags().StringVar(&o.mask, "mark-mask", "", "the four adjacent `bits` of the conntrack mark that hold a connection's class (default those of the rules in force)")
	}
	c.Flags().BoolVar(&o.json, "json", false, "print JSON")
}

func (o *enforceFlags) addMask(c *cobra.Command) {
	c.Flags().StringVar(&o.mask, "mark-mask", defaultMask,
		"the four adjacent `bits` of the conntrack mark that hold a connection's class")
}

// defaultMask is the default of --mark-mask.
var defaultMask = fmt.Sprintf("%#x", compile.DefaultMarkMask)

// options are the flags as the enforcer takes them.
func (o *enforceFlags) options(verb string) (enforcer.Options, error) {
	if o.ofRules && o.mask == "" {
		return enforcer.Options{}, nil
	}
	bits, err := strconv.ParseUint(o.mask, 0, 32)
	if err == nil {
		_, err = compile.NewMark(uint32(bits))
	}
	if err != nil {
		return enforcer.Options{}, misuse(verb+": --mark-mask", err)
	}
	return enforcer.Options{Compile: compile.Options{MarkMask: uint32(bits)}}, nil
}

func (p *program) enforceApply(ctx context.Context, o enforceFlags) error {
	const verb = "enforce apply"
	collectLate()
	document, options, err := p.policy(verb, o)
	if err != nil {
		return err
	}
	receipt, err := enforcer.Apply(ctx, document, options)
	if errors.Is(err, enforcer.ErrRefused) {
		return misuse(verb, err)
	}
	// With ErrNotCut and ErrBlind the table is in force all the same: the receipt is printed, but the call has not done all it
	// must.
	if err != nil && !errors.Is(err, enforcer.ErrNotCut) && !errors.Is(err, enforcer.ErrBlind) {
		return unable(verb, err)
	}
	p.warn(receipt.Warnings)
	if err := errors.Join(err, json.NewEncoder(p.std.out).Encode(receipt)); err != nil {
		return unable(verb, err)
	}
	return nil
}

// policy reads the policy that the flags name, with the options that the enforcer takes with it.
func (p *program) policy(verb string, o enforceFlags) (document []byte, options enforcer.Options, err error) {
	if options, err = o.options(verb); err != nil {
		return nil, enforcer.Options{}, err
	}
	if options.Name, document, err = p.readPolicy(o.file); err != nil {
		return nil, enforcer.Options{}, misuse(verb, err)
	}
	return document, options, nil
}

// warn tells the enforcer's warnings.
func (p *program) warn(warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(p.std.err, "warning: %s\n", oneLine(w))
	}
}

func (p *program) enforceResetCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "reset",
		Short:   "Take everything out of force that was ever applied here",
		Example: "  drawbridge enforce reset",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := enforcer.Reset(c.Context()); err != nil {
				return unable("enforce reset", err)
			}
			return nil
		},
	}
}

func (p *program) enforceDescribeCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "describe",
		Short:   "Say what this enforcer is and can do",
		Example: "  drawbridge enforce describe",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			return json.NewEncoder(p.std.out).Encode(enforcer.Describe(currentVersion()))
		},
	}
}
