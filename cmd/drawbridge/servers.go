//go:build !operator

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"drawbridge/features/suite"
	"drawbridge/sim"
	"drawbridge/sim/realserver"

	"github.com/spf13/cobra"
)

// serverKind says which programs play the databases of a lab.
type serverKind string

// The kinds of servers.
const (
	embeddedServers serverKind = "embedded"
	realServers     serverKind = "real"
)

var serverKinds = []string{string(embeddedServers), string(realServers)}

// Set, String and Type make it a flag.
func (k *serverKind) Set(s string) error {
	if !slices.Contains(serverKinds, s) {
		return fmt.Errorf("must be %s", strings.Join(serverKinds, " or "))
	}
	*k = serverKind(s)
	return nil
}
func (k *serverKind) String() string { return string(*k) }
func (k *serverKind) Type() string   { return "servers" }

// serversFlag adds --servers to a command.
func serversFlag(c *cobra.Command, kind *serverKind) {
	*kind = embeddedServers
	c.Flags().Var(kind, "servers", "what plays the databases: `embedded`, or real: the distribution's PostgreSQL, MariaDB and Redis")
	complete(c, "servers", serverKinds)
}

// checkServers fails where real servers are asked for and not installed. It can be called outside of a cell.
func checkServers(verb string, kind serverKind) error {
	if kind != realServers {
		return nil
	}
	if _, err := realserver.Find(""); err != nil {
		return unable(verb+": --servers real", err)
	}
	return nil
}

// dataDirectory is where real servers keep their data, below the cell's scratch directory. Drivers' directories there have
// names of points, which hold no dot.
const dataDirectory = ".db"

// startServers starts the servers of a lab inside a cell.
func startServers(ctx context.Context, l *sim.Lab, kind serverKind, scratch string) error {
	if kind != realServers {
		return l.StartServers(ctx)
	}
	dir := filepath.Join(scratch, dataDirectory)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	installed, err := realserver.Find(dir)
	if err != nil {
		return err
	}
	return l.StartRealServers(ctx, installed)
}

// programs says what played each database.
func programs(l *sim.Lab) []suite.ServerReport {
	var all []suite.ServerReport
	for _, d := range l.World().Databases() {
		s := suite.ServerReport{Database: d.Name, Engine: string(d.Engine), Program: "embedded"}
		if server := l.RealServer(d.Nodes[0].Name); server != nil { // all nodes of a database have the same
			s.Program, s.Real = server.Program(), true
		}
		all = append(all, s)
	}
	return all
}
