//go:build !operator

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"drawbridge/sim/cell"
	"drawbridge/sim/endpoint"
	"drawbridge/sim/names"
	"drawbridge/sim/netns"
	"drawbridge/sim/soleuser"
	"drawbridge/topology"

	"golang.org/x/sys/unix"
)

// labNames are the files by which programs in a lab find its names and trust its servers.
type labNames struct {
	covers []netns.Cover
	ca     string // PEM
	// alone says that nobody in the lab can become another user.
	alone bool
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
	machine, err := os.ReadFile("/etc/nsswitch.conf")
	if err != nil {
		machine = nil // there is nothing to keep of it
	}
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
	n.alone, err = soleuser.Only()
	return n, err
}

// view is how a program at a node finds the machine.
func (n labNames) view(node string) netns.View {
	v := netns.View{Covers: n.covers, Hostname: names.Hostname(node)}
	if n.alone {
		v.Prepare = pretend
	}
	return v
}

// pretend serves programs that want to become another user. Where it cannot, they end as they would without.
func pretend() error {
	if err := soleuser.Pretend(); !errors.Is(err, soleuser.ErrUnsupported) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

// environment adds the variables by which programs find the lab's certificate authority. Others that were set meant servers that
// cannot be reached from here. The account of the lab's servers is there for clients that were told of none.
func (n labNames) environment(of []string) []string {
	env := slices.Clone(of)
	for _, name := range []string{"DRAWBRIDGE_CA_FILE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "PGSSLROOTCERT"} {
		env = slices.DeleteFunc(env, named(name))
		env = append(env, name+"="+n.ca)
	}
	for _, v := range []struct{ name, value string }{
		{"PGUSER", endpoint.User}, {"PGPASSWORD", endpoint.Password}, {"MYSQL_PWD", endpoint.Password}, {"REDISCLI_AUTH", endpoint.Password},
	} {
		if !slices.ContainsFunc(env, named(v.name)) {
			env = append(env, v.name+"="+v.value)
		}
	}
	return env
}

// named tells the variables of that name from others.
func named(name string) func(string) bool {
	return func(v string) bool { return strings.HasPrefix(v, name+"=") }
}

// lookPath is exec.LookPath that finds root's programs too.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if !errors.Is(err, exec.ErrNotFound) || strings.ContainsRune(name, filepath.Separator) {
		return path, err
	}
	for _, dir := range filepath.SplitList(cell.Path("")) {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", err
}
