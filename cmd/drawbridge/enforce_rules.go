package main

import (
	"context"
	"errors"

	"drawbridge/enforcer"

	"github.com/spf13/cobra"
)

func (p *program) enforceRulesCommand() *cobra.Command {
	var o enforceFlags
	c := &cobra.Command{
		Use:   "rules",
		Short: "Print the enforcer's tables out of the kernel, with the policy behind each element",
		Long: `Reads this enforcer's tables and prints them in the syntax of nft(8), which can read them where they are not. With --policy, a comment at each
element of a set says which endpoint, setting or firewall rule it is there for, and of an element that this policy has no reason
for, that there is nothing.`,
		Example: `  drawbridge enforce rules
  drawbridge enforce rules --policy policy.json | grep orders`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return p.enforceRules(c.Context(), o) },
	}
	c.Flags().StringVar(&o.file, "policy", "", policyWords+" (default: none, the tables as they are)")
	o.addMask(c)
	return c
}

func (p *program) enforceRules(ctx context.Context, o enforceFlags) error {
	const verb = "enforce rules"
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
	text, err := enforcer.Rules(ctx, document, options)
	if errors.Is(err, enforcer.ErrRefused) {
		return misuse(verb, err)
	}
	if err != nil {
		return unable(verb, err)
	}
	return p.print(verb, text)
}
