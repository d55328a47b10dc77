package suite

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sort"

	"drawbridge/features/oracle"
	"drawbridge/features/platform"
	"drawbridge/topology"
)

// population is every connection that counts in a world of many databases, numbered from 0: to each of them, and to each way round, from
// every app, and from some addresses of every Internet host, in every way that the port speaks. What stands at a database's node or in
// a peered network is left out, and so are the canaries. None is kept in memory: a number says which it is.
type population struct {
	databases []topology.Database
	origins   []origin
	first     []int // number of each database's first connection; and of the one behind the last
}

func newPopulation(w *topology.World) *population {
	p := &population{first: []int{0}}
	for _, v := range w.Vantages() {
		if v.Kind != topology.VantageApp && v.Kind != topology.VantageInternet {
			continue
		}
		p.origins = append(p.origins, origin{vantage: v})
		for _, n := range v.Networks {
			p.origins = append(p.origins, within(v, n)...)
		}
	}
	for _, d := range w.Databases() {
		if !d.Canary {
			p.databases = append(p.databases, d)
		}
	}
	for i := range p.databases {
		p.first = append(p.first, p.first[i]+len(p.of(i)))
	}
	return p
}

// inside is where in a network some of the addresses are that connections come from, besides its last: one with which ranges of several
// lengths begin, and one with which none does.
var inside = []byte{4, 19}

// within are origins out of a network of an Internet host.
func within(v topology.Vantage, n netip.Prefix) []origin {
	var all []origin
	for _, offset := range inside {
		b := n.Addr().AsSlice()
		b[len(b)-1] |= offset
		a, _ := netip.AddrFromSlice(b) // of the length of an address
		if n.Contains(a) && !slices.Contains(v.Addresses, a) {
			all = append(all, origin{v, a})
		}
	}
	return append(all, origin{v, last(n)})
}

func (p *population) size() int { return p.first[len(p.databases)] }

// of lists the connections to one database.
func (p *population) of(database int) []oracle.Connection {
	d := p.databases[database]
	var all []oracle.Connection
	for _, to := range append(d.Endpoints(), d.Bypasses()...) {
		is4 := to.Addr.Addr().Is4()
		for _, o := range p.origins {
			if o.source.IsValid() && o.source.Is4() != is4 || len(topology.OfFamily(o.vantage.Addresses, topology.FamilyOf(to.Addr.Addr()))) == 0 {
				continue
			}
			for _, tls := range []bool{true, false} {
				if speaks(to.TLS, tls) {
					all = append(all, oracle.Connection{From: o.vantage, Source: o.source, To: to, TLS: tls})
				}
			}
		}
	}
	return all
}

// database is the one that a number's connection leads to.
func (p *population) database(number int) int {
	return sort.Search(len(p.databases), func(i int) bool { return p.first[i+1] > number })
}

// connections are those of some numbers, in their order.
func (p *population) connections(numbers []int) []oracle.Connection {
	out := make([]oracle.Connection, len(numbers))
	order := make([]int, len(numbers))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(numbers[a], numbers[b]) })
	here, of := -1, []oracle.Connection(nil)
	for _, i := range order {
		if at := p.database(numbers[i]); at != here {
			here, of = at, p.of(at)
		}
		out[i] = of[numbers[i]-p.first[here]]
	}
	return out
}

// stratum is what is drawn from by itself: connections of one sort, so that what is rare is not lost among what is frequent.
type stratum struct {
	model topology.Model
	duty  duty
}

// duty is why a connection must end as it must. Each is another part of an enforcer's work.
type duty int

const (
	mustServe   duty = iota // served
	mustDeny                // denied for where it comes from
	mustSilence             // denied for want of TLS
	mustGuard               // denied, for it leads round an endpoint
)

func dutyOf(c oracle.Connection, v oracle.Verdict) duty {
	switch {
	case v.Class == oracle.Served:
		return mustServe
	case c.To.Kind == topology.WayRound:
		return mustGuard
	case v.Talk:
		return mustSilence
	}
	return mustDeny
}

// strata sorts all numbers by what must become of the connections on a platform; unspecified are those of which no statement speaks.
func (p *population) strata(ctx context.Context, state *platform.State) (sorted map[stratum][]int, unspecified int, err error) {
	sorted = map[stratum][]int{}
	for i, d := range p.databases {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		for j, c := range p.of(i) {
			v, err := oracle.Expect(state, c)
			switch {
			case err != nil:
				return nil, 0, wrongFeature("sample: %v", err)
			case v.Class == oracle.Unspecified:
				unspecified++
			default:
				at := stratum{d.Model, dutyOf(c, v)}
				sorted[at] = append(sorted[at], p.first[i]+j)
			}
		}
	}
	return sorted, unspecified, nil
}
