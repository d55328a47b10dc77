package compile

import (
	"cmp"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"drawbridge/enforcer/ruleset"
)

// family is one half of every pair of twins.
type family struct {
	suffix       string
	is4          bool
	nfproto      byte // NFPROTO_IPV4, NFPROTO_IPV6 (include/uapi/linux/netfilter.h)
	addr         ruleset.DataType
	saddr, daddr ruleset.FieldKind
}

var families = [...]family{
	{suffix: "4", is4: true, nfproto: 2, addr: ruleset.TypeIPv4Addr, saddr: ruleset.IPSaddr, daddr: ruleset.IPDaddr},
	{suffix: "6", is4: false, nfproto: 10, addr: ruleset.TypeIPv6Addr, saddr: ruleset.IP6Saddr, daddr: ruleset.IP6Daddr},
}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return families[0]
	}
	return families[1]
}

func (f family) addressSet(name string) ruleset.Set {
	return ruleset.Set{Name: name + f.suffix, Key: []ruleset.DataType{f.addr}}
}

func (f family) rangeSet(name string) ruleset.Set {
	return ruleset.Set{Name: name, Key: []ruleset.DataType{f.addr}, Interval: true}
}

// endpointSet is a set of addresses with ports.
func (f family) endpointSet(name string) ruleset.Set {
	return ruleset.Set{Name: name, Key: []ruleset.DataType{f.addr, ruleset.TypeInetService}}
}

// addressMap is a verdict map by address.
func (f family) addressMap(name string) ruleset.Set {
	s := f.addressSet(name)
	s.Verdicts = true
	return s
}

// endpointMap is a verdict map by address and port.
func (f family) endpointMap(name string) ruleset.Set {
	s := f.endpointSet(name + f.suffix)
	s.Verdicts = true
	return s
}

// pairSet is a set of sources with the addresses and ports that they reach.
func (f family) pairSet(name string) ruleset.Set {
	return ruleset.Set{Name: name + f.suffix, Key: []ruleset.DataType{f.addr, f.addr, ruleset.TypeInetService}}
}

func interfaceSet(name string) ruleset.Set {
	return ruleset.Set{Name: name, Key: []ruleset.DataType{ruleset.TypeIfname}}
}

// builder collects sets in order and their elements without repetition.
type builder struct {
	order    []ruleset.Set
	elements map[string]map[ruleset.Key]ruleset.Element
	lists    map[string][]ruleset.Element // of sets that are filled at once
	chains   []ruleset.Chain
	chained  map[string]bool
}

func newBuilder() *builder {
	return &builder{elements: map[string]map[ruleset.Key]ruleset.Element{}, lists: map[string][]ruleset.Element{}, chained: map[string]bool{}}
}

// declare adds an empty set.
func (b *builder) declare(s ruleset.Set) {
	b.order = append(b.order, s)
	b.elements[s.Name] = map[ruleset.Key]ruleset.Element{}
}

// put adds an element to a declared set; the same key twice is one element. An undeclared set is a mistake of this
// package and panics at once, in every test.
func (b *builder) put(set string, e ruleset.Element) { b.elements[set][e.Key] = e }

// list gives a declared set all of its elements, sorted by key.
func (b *builder) list(set string, elements []ruleset.Element) {
	if b.elements[set] == nil {
		panic("set " + set + " was not declared")
	}
	b.lists[set] = elements
}

// endpoint adds an address with a port to the twin set of its family.
func (b *builder) endpoint(set string, a netip.AddrPort) {
	b.put(set+familyOf(a.Addr()).suffix, ruleset.Element{Key: endpointKey(a)})
}

// chain adds a chain; a second one of its name is a mistake of this package.
func (b *builder) chain(c ruleset.Chain) {
	if b.chained[c.Name] {
		panic("chain " + c.Name + " is there already")
	}
	b.chained[c.Name] = true
	b.chains = append(b.chains, c)
}

// table returns everything, elements sorted by key.
func (b *builder) table() ruleset.Table {
	t := ruleset.Table{Family: ruleset.FamilyINET, Name: TableName, Chains: b.chains}
	for _, s := range b.order {
		if s.Elements = b.lists[s.Name]; s.Elements == nil {
			s.Elements = sorted(b.elements[s.Name])
		}
		t.Sets = append(t.Sets, s)
	}
	return t
}

// sorted returns elements by their keys; nil if there are none.
func sorted(elements map[ruleset.Key]ruleset.Element) []ruleset.Element {
	if len(elements) == 0 {
		return nil
	}
	out := slices.AppendSeq(make([]ruleset.Element, 0, len(elements)), maps.Values(elements))
	slices.SortFunc(out, func(x, y ruleset.Element) int { return cmp.Compare(x.Key, y.Key) })
	return out
}

// maxKey is the longest key of addresses: two of IPv6 with a port.
const maxKey = 16 + 16 + 2

func appendAddr(b []byte, a netip.Addr) []byte {
	b, _ = a.AppendBinary(b) // which cannot fail
	return b
}

func addrKey(a netip.Addr) ruleset.Key { return ruleset.Key(appendAddr(make([]byte, 0, maxKey), a)) }

func endpointKey(a netip.AddrPort) ruleset.Key {
	return ruleset.Key(binary.BigEndian.AppendUint16(appendAddr(make([]byte, 0, maxKey), a.Addr()), a.Port()))
}

func pairKey(source netip.Addr, to netip.AddrPort) ruleset.Key {
	both := appendAddr(appendAddr(make([]byte, 0, maxKey), source), to.Addr())
	return ruleset.Key(binary.BigEndian.AppendUint16(both, to.Port()))
}

// ifnameSize is IFNAMSIZ (include/uapi/linux/if.h).
const ifnameSize = 16

func ifnameKey(name string) ruleset.Key {
	b := make([]byte, ifnameSize)
	copy(b, name)
	return ruleset.Key(b)
}
