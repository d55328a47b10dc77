package netnstest

import (
	"os"
	"os/exec"
	"testing"
)

// requireTools turns a missing program into a failure: whoever prepared the programs (make test) must learn that tests
// did not run.
const requireTools = "DRAWBRIDGE_REQUIRE_TOOLS"

// Tool returns the path of a program that a test needs to check the project's work by somebody else's: nft, psql, nmap or jq.
// Without it the test is skipped, or fails where DRAWBRIDGE_REQUIRE_TOOLS is set.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, name+" is not on the PATH")
	}
	return path
}

// Missing ends a test that lacks a program as Tool does.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv(requireTools) != "" {
		t.Fatalf("%s; make test prepares it", what)
	}
	t.Skipf("%s; make test prepares it", what)
}
