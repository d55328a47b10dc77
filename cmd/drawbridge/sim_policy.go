//go:build !operator

package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"drawbridge/features/driver"
	"drawbridge/features/platform"
	"drawbridge/topology"

	"github.com/spf13/cobra"
)

func (p *program) simPolicyCommand() *cobra.Command {
	var worldFile string
	c := &cobra.Command{
		Use:   "policy POINT",
		Short: "Print an enforcement point's policy, before any user has touched a setting",
		Long: `Prints the policy that an enforcer gets for one of the enforcement points of a world whose users have touched no setting. It is a
beginning for policies of your own: what can be added is in drawbridge conform --schema and docs/DRIVERS.md. No lab is needed.`,
		Example: `  drawbridge sim policy gw-fr1 > policy.json
  drawbridge sim exec gw-fr1 -- drawbridge enforce apply --policy policy.json`,
		Args: exactly("POINT"),
		RunE: func(_ *cobra.Command, args []string) error { return p.simPolicy(args[0], worldFile) },
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
	document, err := driver.Build(platform.Start(world), point)
	if err != nil {
		return unable(verb, err)
	}
	e := json.NewEncoder(p.std.out)
	e.SetIndent("", "  ")
	if err := e.Encode(document); err != nil {
		return unable(verb, err)
	}
	return nil
}

func unknownPoint(w *topology.World, name string) error {
	var names []string
	for _, p := range w.Points() {
		names = append(names, p.Name)
	}
	return fmt.Errorf("POINT: %q is no enforcement point of world %s; there are %s", name, w.Name(), strings.Join(names, ", "))
}
