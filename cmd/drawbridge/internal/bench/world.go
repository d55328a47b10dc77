// Package bench owns what a comparison of ways to a database consists of, apart from running it: the world and the loads, what the
// load generators say, the statistics, the verdict and how all of it is told.
package bench

import (
	_ "embed"
	"fmt"

	"drawbridge/topology"
)

//go:embed world.yaml
var world []byte

// Vantages of the world that loads come from.
const (
	internet = "office"
	app      = "osc-fr1/web"
)

// Vantages that loads come from.
var Vantages = []string{internet, app}

// World returns the world of the benchmark.
func World() *topology.World {
	w, err := topology.Parse("world.yaml", world)
	if err != nil {
		panic(fmt.Sprintf("the benchmark's embedded world is invalid: %v", err)) // a test parses it
	}
	return w
}
