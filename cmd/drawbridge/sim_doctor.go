//go:build !operator

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"text/tabwriter"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/nft"
	"drawbridge/sim"
	"drawbridge/sim/ability"
	"drawbridge/sim/cell"
	"drawbridge/sim/netns"
	"drawbridge/sim/realserver"
	"drawbridge/topology"

	"github.com/spf13/cobra"
)

func (p *program) simDoctorCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this kernel, user and machine can do, and what suffers from what they cannot",
		Long: `Tries what labs, enforcers and scenarios need, in namespaces of its own, and says of each whether it is there and what is affected
where it is not. The exit code is 0 if a lab can be built, 3 if not.`,
		Example: "  drawbridge sim doctor\n  drawbridge sim doctor --json | jq '.[] | select(.has | not)'",
		Args:    exactly(),
		RunE:    func(c *cobra.Command, _ []string) error { return p.simDoctor(c.Context(), asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

const labAbility = "lab"

func (p *program) simDoctor(ctx context.Context, asJSON bool) error {
	if !cell.Inside() {
		err := p.inCell(ctx)
		if errors.Is(err, cell.ErrForbidden) {
			found := []ability.Finding{{Name: labAbility, Detail: err.Error(), Affects: "everything: no lab can be built"}}
			return errors.Join(p.tellFindings(found, asJSON), err)
		}
		return err
	}
	found := diagnose(cell.Context())
	if err := p.tellFindings(found, asJSON); err != nil {
		return unable("sim doctor", err)
	}
	if !found[0].Has {
		return &quiet{exitUnjudged}
	}
	return nil
}

func (p *program) tellFindings(found []ability.Finding, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(p.std.out)
		e.SetIndent("", "  ")
		return e.Encode(found)
	}
	return writeFindings(p.std.out, found)
}

func writeFindings(out io.Writer, found []ability.Finding) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tHERE\tAFFECTED WHERE IT IS NOT\tDETAIL")
	for _, f := range found {
		here := "yes"
		if !f.Has {
			here = "NO"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.Name, here, f.Affects, f.Detail)
	}
	return w.Flush()
}

// diagnose tries everything; whether a lab can be built comes first.
func diagnose(ctx context.Context) []ability.Finding {
	found := []ability.Finding{ability.Find(labAbility, "everything: no lab can be built", func() error { return buildOne(ctx) })}
	ns, err := netns.New()
	if err != nil {
		return found // the lab has said why
	}
	defer ns.Close()
	found = append(found, nftFeatures(ctx, ns)...)
	found = append(found, ability.Kernel(ns)...)
	found = append(found, ability.Limits(sim.Needs(topology.Default()))...)
	for _, t := range []struct{ program, affects string }{
		{"nft", "sim rules shows the reference enforcer's tables only; the project's tests of rulesets"},
		{"psql", "the project's tests with clients of others"}, {"nmap", "the same"},
		{"tcpdump", "nothing: sim capture needs it not"}, {"tshark", "nothing: it reads what sim capture writes"},
	} {
		found = append(found, ability.Find("program "+t.program, t.affects, func() error { _, err := exec.LookPath(t.program); return err }))
	}
	return append(found, ability.Find("real servers", "--servers real, bench", func() error { _, err := realserver.Find(""); return err }))
}

func buildOne(ctx context.Context) error {
	l, err := sim.Up(ctx, topology.Default(), sim.Options{})
	if err != nil {
		return err
	}
	return l.Close()
}

// featureAffects says what suffers where the kernel's nf_tables lacks a feature.
var featureAffects = map[nft.Feature]string{
	nft.InnerPayload:       "Force TLS (S-04, D-08, X-08): the reference enforcer closes databases that need it; force_tls, evasion, transitions",
	nft.ConntrackID:        "the same",
	nft.DynamicDelete:      "the same",
	nft.RejectInPrerouting: "the same",
	nft.ResetOption:        "the same",
	nft.OwnedTable:         "enforce run cannot keep others from changing its table: it mends it instead (X-09)",
}

// nftFeatures asks the kernel as the reference enforcer does.
func nftFeatures(ctx context.Context, ns *netns.Handle) []ability.Finding {
	var missing []nft.Feature
	err := ns.Do(func() error {
		conn, err := nft.Open(compile.TableName)
		if err != nil {
			return err
		}
		missing, err = conn.Missing(ctx)
		return errors.Join(err, conn.Close())
	})
	if err != nil {
		return []ability.Finding{{Name: "nftables", Affects: "the lab's address translation and the reference enforcer", Detail: err.Error()}}
	}
	lacks := map[nft.Feature]bool{}
	for _, f := range missing {
		lacks[f] = true
	}
	var found []ability.Finding
	for _, f := range []nft.Feature{nft.InnerPayload, nft.ConntrackID, nft.DynamicDelete, nft.RejectInPrerouting, nft.ResetOption, nft.OwnedTable} {
		found = append(found, ability.Finding{Name: "nftables: " + string(f), Has: !lacks[f], Affects: featureAffects[f]})
	}
	return found
}
