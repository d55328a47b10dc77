// Command drawbridge makes the network exposure of managed databases executable: it judges enforcers by real
// connections in an emulated Internet (conform), keeps that Internet up to try things by hand (sim), and contains the
// reference enforcer behind the driver protocol of docs/DRIVERS.md (enforce).
package main

import (
	"context"
	"os"

	"drawbridge/sim/cell"
)

func main() {
	cell.Init()
	os.Exit(run(context.Background(), os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}, os.LookupEnv))
}
