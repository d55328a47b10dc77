//go:build !operator

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"drawbridge/features/driver"
	"drawbridge/features/platform"
	"drawbridge/topology"

	"github.com/spf13/cobra"
)

func (p *program) simPolicyCommand(name *string) *cobra.Command {
	var worldFile string
	c := &cobra.Command{
		Use:   "policy POINT",
		Short: "Print an enforcement point's policy, before any user has touched a setting",
		Long: `Prints the policy that an enforcer gets for one of the enforcement points of a world whose users have touched no setting. It is a
beginning for policies of your own: what can be added is in drawbridge conform --schema and docs/DRIVERS.md. No lab is needed. With --lab it
is the world of that lab, and the policy that sim enforce makes there without any flag: of the primaries that there are now.`,
		Example: `  drawbridge sim policy gw-fr1 > policy.json
  drawbridge sim policy --lab second gw-1
  drawbridge sim exec gw-fr1 -- drawbridge enforce apply --policy policy.json`,
		Args: func(c *cobra.Command, args []string) error {
			return errors.Join(exactly("POINT")(c, args), apart(c, "lab", "world"))
		},
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("lab") {
				return p.simPolicyOf(c.Context(), *name, args[0])
			}
			return p.simPolicy(args[0], worldFile)
		},
	}
	c.Flags().StringVar(&worldFile, "world", "", "topology `file` (default: the embedded world)")
	return c
}

func (p *program) simPolicy(point, worldFile string) error {
	const verb = "sim policy"
	world, err := loadWorld(worldFile)
	if err != nil {
		return err
	}
	if _, ok := world.Point(point); !ok {
		return misuse(verb, unknownPoint(world, point))
	}
	text, err := policyText(platform.Start(world), point)
	if err != nil {
		return unable(verb, err)
	}
	return p.print(verb, text)
}

// simPolicyOf prints a policy for a point of a lab.
func (p *program) simPolicyOf(ctx context.Context, lab, point string) error {
	const verb = "sim policy"
	a, err := ask(ctx, verb, lab, order{Policy: point})
	if err != nil {
		return err
	}
	return p.print(verb, a.Text)
}

// policy is the document that enforce makes of no settings.
func (h *holder) policy(point string) (answer, error) {
	if _, ok := h.lab.World().Point(point); !ok {
		return answer{}, misuse("", unknownPoint(h.lab.World(), point))
	}
	state, err := h.state(enforceOrder{})
	if err != nil {
		return answer{}, err
	}
	text, err := policyText(state, point)
	return answer{Text: text}, err
}

func policyText(state *platform.State, point string) (string, error) {
	document, err := driver.Build(state, point)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	err = e.Encode(document)
	return b.String(), err
}

func unknownPoint(w *topology.World, name string) error {
	var names []string
	for _, p := range w.Points() {
		names = append(names, p.Name)
	}
	return fmt.Errorf("POINT: %q is no enforcement point of world %s; there are %s", name, w.Name(), strings.Join(names, ", "))
}
