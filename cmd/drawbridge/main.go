// Command drawbridge makes the network exposure of managed databases executable: it judges enforcers by real
// connections in an emulated Internet (conform), keeps that Internet up to try things by hand (sim), and contains the
// reference enforcer behind the driver protocol of docs/DRIVERS.md (enforce).
package main

import (
	"context"
	"os"
	"runtime/debug"
)

func main() {
	crashBySignal()
	enterCell()
	os.Exit(run(context.Background(), os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}, os.LookupEnv))
}

// crashBySignal makes a crash end the process by SIGABRT. The runtime's exit status of a panic is 2, and that says "refused,
// and nothing was changed" (docs/DRIVERS.md).
func crashBySignal() { debug.SetTraceback("crash") }
