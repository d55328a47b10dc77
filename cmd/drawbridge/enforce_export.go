package main

import (
	"errors"
	"io"

	"drawbridge/enforcer"

	"github.com/spf13/cobra"
)

func (p *program) enforceExportCommand() *cobra.Command {
	var o enforceFlags
	c := &cobra.Command{
		Use:   "export",
		Short: "Write a policy as a file for nft(8)",
		Long: `Writes what apply would bring into force as a file for nft(8), with all three tables. No kernel is asked, and no privilege is
needed. Loading the file replaces the tables in one transaction, forgetting what they remember of connections; verify and apply then
find the policy in force, since nft's own tests for the protocol of a field make no difference.`,
		Example: `  drawbridge enforce export --policy policy.json > drawbridge.nft
  nft -c -f drawbridge.nft && nft -f drawbridge.nft
  drawbridge enforce verify --policy policy.json`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error { return p.enforceExport(o) },
	}
	o.add(c, true)
	return c
}

func (p *program) enforceExport(o enforceFlags) error {
	const verb = "enforce export"
	document, options, err := p.policy(verb, o)
	if err != nil {
		return err
	}
	text, err := enforcer.Export(document, options)
	if errors.Is(err, enforcer.ErrRefused) {
		return misuse(verb, err)
	}
	if err == nil && o.json {
		err = writeIndented(p.std.out, struct {
			NFT string `json:"nft"`
		}{text})
	} else if err == nil {
		_, err = io.WriteString(p.std.out, text)
	}
	if err != nil {
		return unable(verb, err)
	}
	return nil
}
