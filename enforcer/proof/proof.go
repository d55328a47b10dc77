// Package proof holds what the rules of a table do against what a policy means, over the whole address space: not samples
// but sets of sources, exactly. It is pure. The rules are read by enforcer/reach, which knows no policy; the policy is read
// by enforcer/intent, which knows no rules.
package proof

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"runtime"
	"slices"
	"sync"

	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/intent"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/reach"
	"drawbridge/enforcer/ruleset"
)

// Difference is a set of sources that rules and policy treat differently.
type Difference struct {
	// Database, "" where nothing of the policy is.
	Database string `json:"database,omitempty"`
	// At is the address and port, or where no port is asked for the address.
	At        string      `json:"at"`
	Family    string      `json:"family"`
	Interface string      `json:"interface"`
	Zone      policy.Zone `json:"zone,omitempty"`
	// Packets says which packets, and which way they go.
	Packets string `json:"packets"`
	// Sources are the clients: where packets come from, or where answers go to.
	Sources []addrset.Interval `json:"sources"`
	// Rules and Policy say what each does with them: "pass" or "drop".
	Rules  string `json:"rules"`
	Policy string `json:"policy"`
}

// What becomes of packets.
const (
	passes  = "pass"
	dropped = "drop"
)

// Report is the outcome. The zero value proves nothing.
type Report struct {
	Differences []Difference
	// Ports, Addresses and Interfaces that were looked at, and Questions: how many sets were computed and compared.
	Ports, Addresses, Interfaces, Questions int
}

// Check compares a table with a policy. It is an error if the table is none that a kernel could hold.
//
// It takes O(N log N) for N databases, since what a question shares with those before it is not computed again; nothing is
// left out. The tests hold it against an evaluation that computes with no sets at all: address by address.
func Check(t ruleset.Table, p *intent.Point) (Report, error) {
	return check(t, p, func() (checker, error) {
		m, err := reach.New(t)
		if err != nil {
			return checker{}, err
		}
		run := func(p reach.Packet, clients addrset.Set) reach.Outcome { return m.Run(p, clients, nil) }
		return checker{evaluate: run, sets: m.Arithmetic(), point: p}, nil
	})
}

// check has several checkers ask about every place.
func check(t ruleset.Table, p *intent.Point, newChecker func() (checker, error)) (Report, error) {
	places := placesOf(t, p)
	interfaces := append(p.Interfaces(), loopback)
	workers := min(runtime.GOMAXPROCS(0), max(len(places), 1))
	found := make([]checker, workers)
	var wait sync.WaitGroup
	for w := range found {
		var err error
		if found[w], err = newChecker(); err != nil {
			wait.Wait()
			return Report{}, err
		}
		wait.Go(func() {
			for i := w; i < len(places); i += workers {
				for _, iface := range interfaces {
					found[w].place(places[i], iface)
				}
			}
		})
	}
	wait.Wait()
	r := Report{Ports: len(places), Addresses: len(p.Addresses()), Interfaces: len(interfaces)}
	for _, c := range found {
		r.Differences, r.Questions = append(r.Differences, c.found...), r.Questions+c.questions
	}
	slices.SortStableFunc(r.Differences, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(a.At, b.At), cmp.Compare(a.Interface, b.Interface), cmp.Compare(a.Packets, b.Packets))
	})
	return r, nil
}

// loopback is never judged (SPEC G-02).
const loopback = "lo"

// place is an address and port to be looked at. The first place of an address also stands for what has no port.
type place struct {
	at    netip.AddrPort
	first bool
}

// placesOf lists the ports that the policy protects, and of each address that policy or table name those that the table
// treats in some way of their own, and one that stands for all others.
func placesOf(t ruleset.Table, p *intent.Point) []place {
	ports := map[netip.Addr]map[uint16]bool{}
	add := func(a netip.Addr, numbers ...uint16) {
		if ports[a] == nil {
			ports[a] = map[uint16]bool{}
		}
		for _, n := range numbers {
			ports[a][n] = true
		}
	}
	for _, a := range p.Addresses() {
		add(a)
	}
	for _, target := range p.Targets() {
		add(target.At.Addr(), target.At.Port())
	}
	everywhere := map[uint16]bool{}
	for _, s := range t.Sets {
		for _, e := range s.Elements {
			addresses, numbers := named(s, e)
			for _, a := range addresses {
				add(a, numbers...)
			}
			for _, n := range numbers {
				if len(addresses) == 0 {
					everywhere[n] = true
				}
			}
		}
	}
	for _, n := range compared(t) {
		everywhere[n] = true
	}
	var out []place
	for a, own := range ports {
		for n := range everywhere {
			own[n] = true
		}
		own[free(own)] = true
		for n := range own {
			out = append(out, place{at: netip.AddrPortFrom(a, n)})
		}
	}
	slices.SortFunc(out, func(x, y place) int { return x.at.Compare(y.at) })
	for i := range out {
		out[i].first = i == 0 || out[i-1].at.Addr() != out[i].at.Addr()
	}
	return out
}

// free is a port that is not among these: it stands for all of those.
func free(taken map[uint16]bool) uint16 {
	n := uint16(1)
	for taken[n] && n < 65535 {
		n++
	}
	return n
}

// named are the addresses and ports in an element's key. An interval of ports gives those at its ends, and the next.
func named(s ruleset.Set, e ruleset.Element) (addresses []netip.Addr, ports []uint16) {
	if s.Interval && s.Key[0] != ruleset.TypeInetService {
		return nil, nil // networks of clients
	}
	rest := string(e.Key)
	for _, t := range s.Key {
		n := t.Len()
		if n == 0 || n > len(rest) {
			break
		}
		switch t {
		case ruleset.TypeIPv4Addr, ruleset.TypeIPv6Addr:
			a, _ := netip.AddrFromSlice([]byte(rest[:n])) // as long as one is
			addresses = append(addresses, a)
		case ruleset.TypeInetService:
			ports = append(ports, binary.BigEndian.Uint16([]byte(rest[:n])))
		}
		rest = rest[n:]
	}
	if s.Interval && len(e.End) == 2 {
		end := binary.BigEndian.Uint16([]byte(e.End))
		ports = append(ports, end, end+1)
	}
	return addresses, ports
}

// compared are the ports with which rules compare, and their neighbours.
func compared(t ruleset.Table) (ports []uint16) {
	value := func(f ruleset.Field, b []byte) {
		if (f.Kind == ruleset.THDport || f.Kind == ruleset.THSport) && len(b) == 2 {
			n := binary.BigEndian.Uint16(b)
			ports = append(ports, n-1, n, n+1)
		}
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for _, s := range r.Statements {
				switch s := s.(type) {
				case ruleset.Match:
					value(s.Field, s.Value)
				case ruleset.InAnonymous:
					for _, v := range s.Values {
						value(s.Field, v)
					}
				}
			}
		}
	}
	return ports
}

// checker asks both sides.
type checker struct {
	evaluate  func(reach.Packet, addrset.Set) reach.Outcome
	sets      *addrset.Arithmetic
	point     *intent.Point
	found     []Difference
	questions int
}

// place asks about everything that can happen at one place by one interface.
func (c *checker) place(p place, iface string) {
	a := p.at.Addr()
	j := c.point.TCP(iface, p.at)
	sources, answers, others := j.Sources(), j.Answers(), c.point.Other(a)
	if iface == loopback {
		sources, answers, others = addrset.All(a.Is4()), addrset.All(a.Is4()), addrset.All(a.Is4())
	}
	q := question{database: j.Database, at: p.at.String(), iface: iface}
	_, isPort := c.point.Port(p.at)
	if isPort || iface == loopback || !j.Judged {
		c.never(q, "TCP to the port, of any sort", anything(p.at, iface), sources)
	} else {
		// Replies to what was opened from there do pass.
		c.never(q, "TCP that opens something", opening(anything(p.at, iface)), sources)
	}
	if isPort {
		answer := data(p.at, iface)
		if c.point.Blind() { // without a look at the payload, a reset passes with whatever it carries
			answer.Known.Set(ruleset.TCPFlags, []byte{flagPSH | flagACK})
		}
		c.never(q, "TCP data from the port", answer, answers)
		c.never(q, "first fragments of TCP to the port", firstFragment(p.at, iface), c.fragments(a, iface))
	}
	c.always(q, "a SYN to the port", syn(p.at, iface), sources)
	c.always(q, "a SYN-ACK from the port", synAck(p.at, iface), answersOf(isPort, answers, a))
	c.both(q, "UDP that opens something", udp(p.at, iface), others)
	if p.first {
		q.at = a.String()
		c.both(q, "ICMP echo requests", icmp(a, iface), others)
		c.both(q, "other protocols that open something", other(a, iface), others)
		c.never(q, "fragments of TCP", fragment(a, iface), c.fragments(a, iface))
	}
}

// answersOf are those to whom a port answers: from a port that is none of a policy's, everything leaves.
func answersOf(isPort bool, answers addrset.Set, a netip.Addr) addrset.Set {
	if isPort {
		return answers
	}
	return addrset.All(a.Is4())
}

// fragments are the sources whose fragments of TCP pass: none where a server is.
func (c *checker) fragments(a netip.Addr, iface string) addrset.Set {
	if iface != loopback && c.point.Protects(a) {
		return addrset.Set{}
	}
	return addrset.All(a.Is4())
}

// question is where something is asked.
type question struct{ database, at, iface string }

func (c *checker) run(p reach.Packet, iface string) reach.Outcome {
	c.questions++
	if iface == loopback {
		p.NotLoopback = false
		p.Known.Set(ruleset.MetaIIF, loopbackIndex)
		p.Known.Set(ruleset.MetaOIF, loopbackIndex)
	}
	return c.evaluate(p, addrset.All(p.Client == ruleset.IPSaddr || p.Client == ruleset.IPDaddr))
}

// never: nobody but these can pass, whatever the packets are like.
func (c *checker) never(q question, packets string, p reach.Packet, want addrset.Set) {
	c.leak(q, packets, p, c.run(p, q.iface), want)
}

// always: these pass for certain.
func (c *checker) always(q question, packets string, p reach.Packet, want addrset.Set) {
	c.lack(q, packets, p, c.run(p, q.iface), want)
}

func (c *checker) both(q question, packets string, p reach.Packet, want addrset.Set) {
	out := c.run(p, q.iface)
	c.leak(q, packets, p, out, want)
	c.lack(q, packets, p, out, want)
}

func (c *checker) leak(q question, packets string, p reach.Packet, out reach.Outcome, want addrset.Set) {
	c.differ(q, packets, p, c.sets.Minus(out.Accept, want), passes, dropped)
}

func (c *checker) lack(q question, packets string, p reach.Packet, out reach.Outcome, want addrset.Set) {
	c.differ(q, packets, p, c.sets.Minus(want, out.Certain()), dropped, passes)
}

func (c *checker) differ(q question, packets string, p reach.Packet, sources addrset.Set, rules, meant string) {
	if sources.IsEmpty() {
		return
	}
	family := "ipv6"
	if p.Client == ruleset.IPSaddr || p.Client == ruleset.IPDaddr {
		family = "ipv4"
	}
	c.found = append(c.found, Difference{
		Database: q.database, At: q.at, Family: family, Interface: q.iface, Zone: c.point.Zone(q.iface), Packets: packets,
		Sources: sources.Intervals(), Rules: rules, Policy: meant,
	})
}
