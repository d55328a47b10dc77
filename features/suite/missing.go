package suite

import (
	"io/fs"
	"slices"
	"strings"

	"github.com/cucumber/godog"

	"drawbridge/topology"
)

// Missing says in words what selected scenarios name of a world in which they can be played and another world has not; "" if it has all of it.
// That other world may still be unfit for them: the rehearsal shows it.
func Missing(features fs.FS, tags string, fit, world *topology.World) (string, error) {
	names := map[string][]string{}
	err := eachScenario(features, tags, func(_ string, p *godog.Scenario) error {
		for _, line := range words(p) {
			for _, m := range namedRE.FindAllStringSubmatch(line, -1) {
				if kind := kindOf(fit, m[1]); kind != "" && kindOf(world, m[1]) != kind {
					names[kind] = append(names[kind], m[1])
				}
			}
		}
		return nil
	})
	var out []string
	for _, kind := range []string{sharedDatabases, dedicatedDatabases, internetHosts, regions, otherClients} {
		if all := names[kind]; len(all) > 0 {
			slices.Sort(all)
			out = append(out, kind+" "+strings.Join(slices.Compact(all), ", "))
		}
	}
	return strings.Join(out, "; "), err
}

// What scenarios name of a world.
const (
	sharedDatabases    = "shared databases"
	dedicatedDatabases = "dedicated databases"
	internetHosts      = "Internet hosts"
	regions            = "regions"
	otherClients       = "clients" // but for nodes, which are named for their databases
)

// kindOf is what a world has by that name; "" for nothing that scenarios name.
func kindOf(w *topology.World, name string) string {
	if d, ok := w.Database(name); ok && d.Model == topology.Shared {
		return sharedDatabases
	} else if ok {
		return dedicatedDatabases
	}
	if _, ok := w.InternetHost(name); ok {
		return internetHosts
	}
	if _, ok := w.Region(name); ok {
		return regions
	}
	if v, ok := w.Vantage(name); ok && v.Kind != topology.VantageNode {
		return otherClients
	}
	return ""
}
