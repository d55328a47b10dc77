//go:build !operator

package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"drawbridge/topology"
)

// origin is where connections come from.
type origin struct {
	vantage topology.Vantage
	source  netip.Addr // zero: the vantage's own, of the family that it takes
}

// originsNamed resolves what people call a vantage: its name, or an address that is its own. Nodes on one host have the same address.
func originsNamed(w *topology.World, name string) (found []origin, err error) {
	if v, ok := w.Vantage(name); ok {
		return []origin{{vantage: v}}, nil
	}
	var names []string
	addr, notAddress := netip.ParseAddr(name)
	for _, v := range w.Vantages() {
		names = append(names, v.Name)
		if notAddress == nil && v.Owns(addr) {
			found = append(found, origin{v, addr})
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case notAddress == nil:
		return nil, fmt.Errorf("%s is no address of a vantage of this world", addr)
	}
	return nil, fmt.Errorf("%q is no vantage of this world, nor the address of one%s", name, instead(name, names))
}

// endpointsNamed resolves what people call a target: a database, which means its endpoints, or the address and port of one, or of a way round it.
func endpointsNamed(w *topology.World, name string) ([]topology.Endpoint, error) {
	if d, ok := w.Database(name); ok {
		return d.Endpoints(), nil
	}
	addr, err := netip.ParseAddrPort(name)
	if err != nil {
		var names []string
		for _, d := range w.Databases() {
			names = append(names, d.Name)
		}
		return nil, fmt.Errorf("%q is neither a database of this world nor address:port%s", name, instead(name, names))
	}
	for _, e := range slices.Concat(w.Endpoints(), w.Bypasses()) {
		if e.Addr == addr {
			return []topology.Endpoint{e}, nil
		}
	}
	return nil, fmt.Errorf("no database of this world listens at %s", addr)
}

// Of names, people are shown all, if these are no more than listed, and otherwise the nearest few.
const (
	listed  = 24
	nearest = 5
)

// instead says what somebody may have meant who wrote a name that there is not.
func instead(name string, names []string) string {
	if len(names) <= listed {
		return "; there are " + strings.Join(names, ", ")
	}
	distance := map[string]int{}
	var near []string
	for _, n := range names {
		if distance[n] = edits(name, n); distance[n] <= max(2, len(name)/3) || strings.Contains(n, name) {
			near = append(near, n)
		}
	}
	slices.SortStableFunc(near, func(a, b string) int { return cmp.Compare(distance[a], distance[b]) })
	all := fmt.Sprintf("drawbridge sim graph shows all %d", len(names))
	if len(near) == 0 {
		return "; " + all
	}
	return "; did you mean " + strings.Join(near[:min(len(near), nearest)], ", ") + "? " + all
}

// edits is the Levenshtein distance: how many bytes to insert, delete or replace make the one text the other.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
