package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"drawbridge/sim/netns"
)

// Inventory is what every node of a lab needs for its part: who listens where, and which routes there are. An enforcer may add to it,
// and has nothing to take away.
type Inventory map[string][]string // by node

// tables are the kernel's lists (proc_net(5)), with how many fields of a line say what it is; the others are counters and the like.
var tables = []struct {
	path   string
	line   func(fields []string) bool
	fields []int
}{
	{"tcp", listens, []int{1}}, {"tcp6", listens, []int{1}},
	{"route", isRoute, []int{0, 1, 2, 7}}, {"ipv6_route", isRoute, []int{0, 1, 4, 9}},
}

// listens reports whether a line of /proc/net/tcp is a listener's (state TCP_LISTEN, include/net/tcp_states.h).
func listens(fields []string) bool { return len(fields) > 3 && fields[3] == "0A" }
func isRoute(fields []string) bool { return len(fields) > 9 }

// Inventory looks at every node.
func (l *Lab) Inventory() (Inventory, error) {
	all := Inventory{}
	for name, h := range l.nodes {
		found, err := inventory(h)
		if err != nil {
			return nil, fmt.Errorf("look at node %s: %w", name, err)
		}
		all[name] = found
	}
	return all, nil
}

func inventory(h *netns.Handle) (all []string, err error) {
	err = h.Do(func() error {
		for _, t := range tables {
			text, err := os.ReadFile("/proc/thread-self/net/" + t.path)
			if errors.Is(err, fs.ErrNotExist) {
				continue // a kernel without the family
			}
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(text)) {
				fields := strings.Fields(line)
				if !t.line(fields) {
					continue
				}
				entry := []string{t.path}
				for _, i := range t.fields {
					entry = append(entry, fields[i])
				}
				all = append(all, strings.Join(entry, " "))
			}
		}
		return nil
	})
	return all, err
}

// Missing names what there was and is no more, as in "redis-a: no longer there: tcp 0200000A:18EB".
func (was Inventory) Missing(now Inventory) []string {
	var out []string
	for node, all := range was {
		for _, entry := range all {
			if !slices.Contains(now[node], entry) {
				out = append(out, fmt.Sprintf("%s: no longer there: %s", node, entry))
			}
		}
	}
	slices.Sort(out)
	return out
}
