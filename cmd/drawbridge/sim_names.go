//go:build !operator

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"drawbridge/sim/names"
	"drawbridge/sim/netns"
	"drawbridge/topology"
)

// labNames are the files by which programs in a lab find its names and trust its servers.
type labNames struct {
	covers []netns.Cover
	ca     string // PEM
}

// namesDirectory is where they are, below the cell's scratch directory.
const namesDirectory = ".names"

// writeNames writes the files of a lab. Where the machine lacks one of those that they cover, that one is left out: a program
// then finds what the C library does without it.
func writeNames(w *topology.World, ca []byte, scratch string) (labNames, error) {
	dir := filepath.Join(scratch, namesDirectory)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return labNames{}, err
	}
	machine, _ := os.ReadFile("/etc/nsswitch.conf") // without it there is nothing to keep of it
	n := labNames{ca: filepath.Join(dir, "ca.pem")}
	for _, f := range []struct {
		over string
		text []byte
	}{{"/etc/hosts", names.Hosts(w)}, {"/etc/resolv.conf", names.Resolver()}, {"/etc/nsswitch.conf", names.Sources(machine)}} {
		c := netns.Cover{File: filepath.Join(dir, filepath.Base(f.over)), Over: f.over}
		if err := os.WriteFile(c.File, f.text, 0o644); err != nil {
			return labNames{}, err
		}
		if _, err := os.Stat(c.Over); err == nil {
			n.covers = append(n.covers, c)
		}
	}
	if err := os.WriteFile(n.ca, ca, 0o644); err != nil {
		return labNames{}, fmt.Errorf("certificate authority: %w", err)
	}
	return n, nil
}

// environment adds the variables by which programs find the lab's certificate authority. Others that were set meant servers that
// cannot be reached from here.
func (n labNames) environment(of []string) []string {
	env := slices.Clone(of)
	for _, name := range []string{"DRAWBRIDGE_CA_FILE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "PGSSLROOTCERT"} {
		env = slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
		env = append(env, name+"="+n.ca)
	}
	return env
}
