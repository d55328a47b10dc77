package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// decoder turns values into typed ones. The first thing that is wrong stays in err; from then on everything reads as
// zero, so that callers look at err once, at the end.
type decoder struct {
	document
	root  value
	err   *Error
	spare []string // room for what the next object remembers
}

func (d *decoder) fail(offset int, reason, hint string) {
	if d.err == nil {
		d.err = d.document.fail(offset, d.path(offset), reason, hint)
	}
}

// path leads to the value that begins at an offset, or whose name does; empty after the first error. To look for it where there is
// one is cheaper than to write down those of all values.
func (d *decoder) path(offset int) string {
	if d.err != nil {
		return ""
	}
	return d.root.path("", offset)
}

// path is the way from a value on, whose own path is given, down to what is at an offset in it.
func (v value) path(own string, offset int) string {
	if v.offset == offset {
		return own
	}
	for _, m := range v.members {
		if m.offset <= offset && offset < m.value.end {
			if own = join(own, m.name); m.offset == offset {
				return own
			}
			return m.value.path(own, offset)
		}
	}
	for i, child := range v.items {
		if child.offset <= offset && offset < child.end {
			return child.path(index(own, i), offset)
		}
	}
	return own
}

// refuse records that a rule of network exposure forbids the document.
func (d *decoder) refuse(rule error, offset int, reason, hint string) {
	if d.err == nil {
		d.fail(offset, fmt.Sprintf("%s: %v", reason, rule), hint)
		d.err.Rule = rule
	}
}

// is checks the value's type.
func (d *decoder) is(it value, k kind) bool {
	if d.err == nil && it.kind != k {
		d.fail(it.offset, fmt.Sprintf("%v where %v belongs", it.kind, k), "")
	}
	return d.err == nil
}

// object gives access to an object's members by name and remembers which were asked for.
type object struct {
	d     *decoder
	item  value
	known []string
}

func (d *decoder) object(it value) object {
	if !d.is(it, kindObject) {
		it.members = nil
	}
	o := object{d: d, item: it, known: d.spare}
	d.spare = nil
	return o
}

// get returns a member; false if it is absent.
func (o *object) get(name string) (value, bool) {
	if !slices.Contains(o.known, name) {
		o.known = append(o.known, name)
	}
	if o.d.err != nil {
		return value{}, false
	}
	for _, m := range o.item.members {
		if m.name == name {
			return m.value, true
		}
	}
	return value{}, false
}

// need returns a member that must be there.
func (o *object) need(name string, k kind) (value, bool) {
	it, ok := o.get(name)
	if !ok {
		o.d.fail(o.item.offset, fmt.Sprintf("the member %q is missing", name), "")
		return value{}, false
	}
	return it, o.d.is(it, k)
}

// close refuses members that nobody asked for. It is the end of the object.
func (o *object) close() {
	for _, m := range o.item.members {
		if !slices.Contains(o.known, m.name) {
			o.d.fail(m.offset, "unknown member", "known here: "+strings.Join(o.known, ", "))
		}
	}
	o.d.spare = o.known[:0]
}

// list returns the items of an array; nil if it is absent and may be.
func (o *object) list(name string, required bool) []value {
	it, ok := o.get(name)
	if !ok {
		if required {
			o.need(name, kindArray)
		}
		return nil
	}
	return o.d.items(it)
}

func (d *decoder) items(it value) []value {
	if !d.is(it, kindArray) {
		return nil
	}
	return it.items
}

// boolean returns a toggle; absent is nil.
func (o *object) boolean(name string) *bool {
	it, ok := o.get(name)
	if !ok || !o.d.is(it, kindBool) {
		return nil
	}
	return &it.truth
}

func (o *object) text(name string) string {
	it, _ := o.need(name, kindString)
	return it.text
}

// maxName is the greatest length of a name: prefixes and family are added to make names of sets and chains.
const maxName = 64

// name returns a member that names something: names become parts of nftables identifiers.
func (o *object) name(member string) string {
	it, ok := o.need(member, kindString)
	if ok {
		o.d.checkName(it)
	}
	return it.text
}

func (d *decoder) checkName(it value) {
	valid := it.text != "" && len(it.text) <= maxName && isAlphanumeric(it.text[0])
	for i := range len(it.text) {
		valid = valid && (isAlphanumeric(it.text[i]) || strings.IndexByte("-_.", it.text[i]) >= 0)
	}
	if !valid {
		d.fail(it.offset, fmt.Sprintf("%q is not a name", it.text),
			fmt.Sprintf("1 to %d letters, digits, '-', '_' and '.', beginning with a letter or digit", maxName))
	}
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// choice returns a member that is one of a few words.
func choice[T ~string](o *object, name string, words ...T) T {
	it, ok := o.need(name, kindString)
	if ok && !slices.Contains(words, T(it.text)) {
		o.d.fail(it.offset, fmt.Sprintf("unknown word %q", it.text), fmt.Sprintf("one of %q", words))
		return ""
	}
	return T(it.text)
}

// port returns a TCP port, 1 to 65535.
func (o *object) port(name string) uint16 {
	it, ok := o.need(name, kindNumber)
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(it.text, 10, 16)
	if err != nil || n == 0 {
		o.d.fail(it.offset, it.text+" is not a port", "a whole number from 1 to 65535")
	}
	return uint16(n)
}

// address returns a member that is the address of one host.
func (o *object) address(name string) netip.Addr {
	it, ok := o.need(name, kindString)
	if !ok {
		return netip.Addr{}
	}
	return o.d.address(it)
}

func (d *decoder) address(it value) netip.Addr {
	if !d.is(it, kindString) {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(it.text)
	switch {
	case err != nil:
		d.fail(it.offset, fmt.Sprintf("%q is not an IP address", it.text), "")
	case a.Zone() != "":
		d.fail(it.offset, "an IPv6 zone has no meaning here", "write the address alone")
	case a.Is4In6():
		d.fail(it.offset, "an IPv4-mapped IPv6 address never occurs in a packet", "write "+a.Unmap().String())
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback():
		d.fail(it.offset, it.text+" is not the address of one host on a network", "")
	}
	return a
}

// networks returns an array of networks, none of them twice.
func (d *decoder) networks(it value) []netip.Prefix {
	var out []netip.Prefix
	seen := map[netip.Prefix]int{}
	for _, n := range d.items(it) {
		p := d.network(n)
		if first, ok := seen[p]; ok {
			d.fail(n.offset, fmt.Sprintf("%v is there twice, first at %s", p, d.path(first)), "leave one of them out")
		}
		seen[p] = n.offset
		out = append(out, p)
	}
	return out
}

// network returns a network in CIDR notation; its host bits must be clear (SPEC X-11).
func (d *decoder) network(it value) netip.Prefix {
	if !d.is(it, kindString) {
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(it.text)
	switch {
	case err != nil:
		d.fail(it.offset, fmt.Sprintf("%q is not a network in CIDR notation", it.text), "address/length, for example 198.51.100.0/24")
	case p.Addr().Is4In6():
		d.fail(it.offset, "an IPv4-mapped IPv6 network never occurs in a packet", "write it as IPv4")
	case p != p.Masked():
		d.fail(it.offset, fmt.Sprintf("%v has host bits set", p), fmt.Sprintf("write %v, or %v/%d for the one address", p.Masked(), p.Addr(), p.Addr().BitLen()))
	}
	return p
}
