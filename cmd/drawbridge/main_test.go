package main

import (
	"context"
	"os"
	"testing"

	"drawbridge/sim/cell"
	"drawbridge/sim/netns/netnstest"
)

// asProgram makes a child that is this test binary behave as the program. It is set for the time of a test only.
const asProgram = "DRAWBRIDGE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	cell.Init()
	if cell.Inside() || os.Getenv(asProgram) != "" {
		crashBySignal()
		os.Exit(run(context.Background(), os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}, os.LookupEnv))
	}
	netnstest.Main(m)
}
