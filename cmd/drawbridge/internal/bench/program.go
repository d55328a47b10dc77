package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"drawbridge/sim/realserver"
)

// Names of the programs that a comparison runs besides the servers.
const (
	PgBench        = "pgbench"
	MariaDBSlap    = "mariadb-slap"
	RedisBenchmark = "redis-benchmark"
	HAProxy        = "haproxy"
)

// packages of Debian and Ubuntu that have the programs.
var packages = []struct{ program, in string }{
	{PgBench, "postgresql"}, {MariaDBSlap, "mariadb-client"}, {RedisBenchmark, "redis-tools"}, {HAProxy, "haproxy"},
}

// Programs are paths by name.
type Programs map[string]string

// Find finds the programs. The error is a *realserver.MissingError for all that is missing, servers included.
func Find() (Programs, error) {
	found, missing := Programs{}, realserver.MissingError{}
	for _, p := range packages {
		if path, ok := find(p.program); ok {
			found[p.program] = path
			continue
		}
		missing.Programs = append(missing.Programs, p.program)
		missing.Packages = append(missing.Packages, p.in)
	}
	_, err := realserver.Find("")
	if servers, ok := errors.AsType[*realserver.MissingError](err); ok {
		missing.Programs = append(missing.Programs, servers.Programs...)
		missing.Packages = append(missing.Packages, servers.Packages...)
	} else if err != nil {
		return nil, err
	}
	if len(missing.Programs) > 0 {
		slices.Sort(missing.Packages)
		missing.Packages = slices.Compact(missing.Packages)
		return nil, &missing
	}
	return found, nil
}

// Locate finds a program that may lie where only root's PATH leads.
func Locate(name string) (path string, ok bool) { return find(name) }

// find looks on the PATH last for pgbench, where Debian has a Perl script of that name which looks for clusters in /etc. haproxy lies
// where only root's PATH leads.
func find(name string) (string, bool) {
	versions, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well-formed
	slices.Reverse(versions)
	candidates := []string{name}
	for _, dir := range append(versions, "/usr/local/sbin", "/usr/sbin", "/sbin") {
		candidates = append(candidates, filepath.Join(dir, name))
	}
	if name == PgBench {
		candidates = append(candidates[1:], name)
	}
	for _, c := range candidates {
		if path, err := exec.LookPath(c); err == nil {
			path, err = filepath.Abs(path)
			return path, err == nil
		}
	}
	return "", false
}

// Interpreter is the program that a script names in its first line (execve(2)): it has the modules that the script needs.
func Interpreter(script string) (string, error) {
	text, err := os.ReadFile(script)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	words, ok := strings.CutPrefix(line, "#!")
	fields := strings.Fields(words)
	if ok && len(fields) > 1 && filepath.Base(fields[0]) == "env" {
		return exec.LookPath(fields[1])
	}
	if !ok || len(fields) == 0 {
		return "", fmt.Errorf("%s: names no interpreter", script)
	}
	return fields[0], nil
}
