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
	switch {
	case err == nil:
	case os.Getenv(requireTools) != "":
		t.Fatalf("%s is not on the PATH; make test prepares it", name)
	default:
		t.Skipf("%s is not on the PATH; make test prepares it", name)
	}
	return path
}
