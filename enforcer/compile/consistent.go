package compile

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"drawbridge/enforcer/ruleset"
)

// Inconsistencies names what the elements of a table, read back from a kernel, say that no policy compiles to: each protected address and
// port has its place in several sets, and whoever takes it out of one, or puts another in, leaves them at odds. Whom the elements let in is
// not its affair. The table's sets and chains must be those of its Skeleton.
func Inconsistencies(t ruleset.Table) []ruleset.Difference {
	c := consistency{sets: map[string]ruleset.Set{}, elements: map[string]map[ruleset.Key]ruleset.Element{}}
	for _, s := range t.Sets {
		c.sets[s.Name], c.elements[s.Name] = s, s.ByKey()
	}
	for _, f := range families {
		if _, ok := c.sets[setProtected+f.suffix]; !ok {
			continue
		}
		c.addresses(f)
		c.admitted(f)
		c.gated(f)
		c.pairs(f)
	}
	return c.found
}

type consistency struct {
	sets     map[string]ruleset.Set
	elements map[string]map[ruleset.Key]ruleset.Element
	found    []ruleset.Difference
}

func (c *consistency) add(set string, e ruleset.Element, format string, args ...any) {
	c.found = append(c.found, ruleset.Difference{
		Object: "element of set " + set,
		What:   ruleset.PrintElement(c.sets[set], e) + " " + fmt.Sprintf(format, args...),
	})
}

// within says that each element of one set has its address and port, which its key ends with, in the other.
func (c *consistency) within(set, other string) {
	for _, e := range c.sets[set].Elements {
		if !c.has(other, e.Key) {
			c.add(set, e, "is not wanted: it is not in %s", other)
		}
	}
}

// has tells whether a set has the end of a key that is as long as its own keys.
func (c *consistency) has(set string, key ruleset.Key) bool {
	length := 0
	for _, k := range c.sets[set].Key {
		length += k.Len()
	}
	if len(key) < length {
		return false
	}
	_, ok := c.elements[set][key[len(key)-length:]]
	return ok
}

// needs says that an element of one set has another one in another set.
func (c *consistency) needs(set string, e ruleset.Element, other string, key ruleset.Key) {
	if _, ok := c.sets[other]; ok && !c.has(other, key) {
		c.add(other, ruleset.Element{Key: key}, "is missing: %s of set %s needs it", ruleset.PrintElement(c.sets[set], e), set)
	}
}

// addresses: whatever is protected is one of our addresses, each of which is a speaker.
func (c *consistency) addresses(f family) {
	protected, ours, speakers := setProtected+f.suffix, setOurs+f.suffix, setSpeakers+f.suffix
	for _, e := range c.sets[protected].Elements {
		c.needs(protected, e, ours, addrKey(endpointOf(e.Key).Addr()))
	}
	for _, e := range c.sets[ours].Elements {
		c.needs(ours, e, speakers, e.Key)
	}
	c.within(speakers, ours)
	never := map[netip.Addr]bool{} // nobody speaks from a gateway's endpoint
	if c.dedicated(f) {
		for _, e := range c.sets[setInbound+f.suffix].Elements {
			at := endpointOf(e.Key).Addr()
			never[at] = never[at] || e.Verdict != goTo(inbound(f).nodes())
		}
	}
	for _, e := range c.sets[speakers].Elements {
		a, _ := netip.AddrFromSlice([]byte(e.Key))
		want := jump(chainNodeSpeaks)
		if never[a] {
			want = jump(chainForged)
		}
		if e.Verdict != want {
			c.add(speakers, e, "must be: %s", ruleset.PrintRule(rule(want)))
		}
	}
}

func (c *consistency) dedicated(f family) bool {
	_, ok := c.sets[setRules+f.suffix]
	return ok
}

// Places to which a way sends packets of an endpoint.
type place int

const (
	placeNone place = iota
	placeOwn        // the chain of its database
	placePeering
	placeSometimes
	placeNodes
	placeRegion
	placeStrangers
	placeThrough
)

// placeOf is where a way of a point sends the packets of a database's endpoint.
func (c *consistency) placeOf(w way, e ruleset.Element) place {
	database := c.elements[setProtected+w.suffix][e.Key].Comment
	places := map[ruleset.Verdict]place{w.through: placeThrough, goTo(w.region()): placeRegion, goTo(w.strangers()): placeStrangers}
	if c.dedicated(w.family) {
		places = map[ruleset.Verdict]place{goTo(w.sometimes()): placeSometimes, goTo(w.nodes()): placeNodes, goTo(w.database(database)): placeOwn}
		if _, zones := c.sets[setZonePeering]; zones {
			places[goTo(w.peering())] = placePeering
		}
	}
	return places[e.Verdict]
}

// ways are those of a family, as the table has them.
func (c *consistency) ways(f family) (in, out way) {
	_, gate := c.sets[setWatched+f.suffix]
	return inbound(f), (&compiler{blind: !gate}).outbound(f)
}

// admitted: packets and answers of each protected address and port are judged, and by the same.
func (c *consistency) admitted(f family) {
	in, out := c.ways(f)
	if c.dedicated(f) {
		for _, e := range c.sets[setProtected+f.suffix].Elements {
			c.needs(setProtected+f.suffix, e, in.judged, e.Key)
			c.needs(setProtected+f.suffix, e, out.judged, e.Key)
		}
		c.twins(in, out, in.rules, out.rules, placeOwn)
		for _, set := range []string{in.rules, out.rules} {
			for _, e := range c.sets[set].Elements {
				if at := c.placeOf(in, c.elements[in.judged][e.Key]); at != placePeering && at != placeSometimes {
					c.add(set, e, "is not wanted: its packets do not come there")
				}
			}
		}
	}
	c.within(in.judged, setProtected+f.suffix)
	c.within(out.judged, setProtected+f.suffix)
	c.twins(in, out, in.judged, out.judged, placeNone)
}

// twins: two maps send packets and answers to the same places, which are all that there may be; only, unless it is none, is the one.
func (c *consistency) twins(in, out way, first, second string, only place) {
	both := !c.dedicated(in.family) || only != placeNone // else admitted has said that whatever is protected needs them
	for _, e := range c.sets[first].Elements {
		at := c.placeOf(in, e)
		if at == placeNone || only != placeNone && at != only {
			c.add(first, e, "is not wanted: no policy sends its packets there")
			continue
		}
		if other, ok := c.elements[second][e.Key]; ok && c.placeOf(out, other) != at {
			c.add(second, other, "is not wanted: its packets go elsewhere than %s of set %s", ruleset.PrintElement(c.sets[first], e), first)
		} else if !ok && both {
			c.needs(first, e, second, e.Key)
		}
	}
	for _, e := range c.sets[second].Elements {
		if both {
			c.needs(second, e, first, e.Key)
		}
	}
}

// gated: each endpoint that the gate looks at negotiates in one way.
func (c *consistency) gated(f family) {
	watched := setWatched + f.suffix
	if _, ok := c.sets[watched]; !ok {
		return // nobody can tell TLS from plaintext
	}
	c.within(watched, setProtected+f.suffix)
	c.within(setForce+f.suffix, watched)
	c.within(setKeep+f.suffix, watched)
	for _, e := range c.sets[watched].Elements {
		var ways []string
		for _, name := range negotiations {
			if c.has(name+f.suffix, e.Key) {
				ways = append(ways, name+f.suffix)
			}
		}
		if len(ways) != 1 {
			c.add(watched, e, "must be in one of tlsfirst, either, pg and mysql, and is in %d: %v", len(ways), ways)
		}
	}
	for _, name := range negotiations {
		c.within(name+f.suffix, watched)
	}
}

// pairs: who reaches a node of its cluster does so with TLS, and elements of sources are about what is protected.
func (c *consistency) pairs(f family) {
	protected, force := setProtected+f.suffix, setForcePair+f.suffix
	c.within(setCluster+f.suffix, protected)
	c.within(force, protected)
	if _, ok := c.sets[force]; ok {
		c.within(setCluster+f.suffix, force)
	}
	c.within(setOpened+f.suffix, protected)
	for name := range c.sets {
		if strings.HasPrefix(name, setUsers(f, "")) {
			c.within(name, protected)
		}
	}
	slices.SortStableFunc(c.found, func(a, b ruleset.Difference) int { return cmp.Compare(a.Object, b.Object) })
}
