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
	err   *Error
	spare []string // room for what the next object remembers
}

func (d *decoder) fail(offset int, path, reason, hint string) {
	if d.err == nil {
		d.err = d.document.fail(offset, path, reason, hint)
	}
}

// refuse records that a rule of network exposure forbids the document.
func (d *decoder) refuse(rule error, offset int, path, reason, hint string) {
	if d.err == nil {
		d.err = d.document.fail(offset, path, fmt.Sprintf("%s: %v", reason, rule), hint)
		d.err.Rule = rule
	}
}

// item is a value with its path.
type item struct {
	value
	path string
}

// is checks the value's type.
func (d *decoder) is(it item, k kind) bool {
	if d.err == nil && it.kind != k {
		d.fail(it.offset, it.path, fmt.Sprintf("%v where %v belongs", it.kind, k), "")
	}
	return d.err == nil
}

// object gives access to an object's members by name and remembers which were asked for.
type object struct {
	d     *decoder
	item  item
	known []string
}

func (d *decoder) object(it item) *object {
	if !d.is(it, kindObject) {
		it.members = nil
	}
	o := &object{d: d, item: it, known: d.spare}
	d.spare = nil
	return o
}

// get returns a member; false if it is absent.
func (o *object) get(name string) (item, bool) {
	if !slices.Contains(o.known, name) {
		o.known = append(o.known, name)
	}
	if o.d.err != nil {
		return item{}, false
	}
	for _, m := range o.item.members {
		if m.name == name {
			return item{value: m.value, path: join(o.item.path, name)}, true
		}
	}
	return item{}, false
}

// need returns a member that must be there.
func (o *object) need(name string, k kind) (item, bool) {
	it, ok := o.get(name)
	if !ok {
		o.d.fail(o.item.offset, o.item.path, fmt.Sprintf("the member %q is missing", name), "")
		return item{}, false
	}
	return it, o.d.is(it, k)
}

// close refuses members that nobody asked for. It is the end of the object.
func (o *object) close() {
	for _, m := range o.item.members {
		if !slices.Contains(o.known, m.name) {
			o.d.fail(m.offset, join(o.item.path, m.name), "unknown member", "known here: "+strings.Join(o.known, ", "))
		}
	}
	o.d.spare = o.known[:0]
}

// list returns the items of an array; nil if it is absent and may be.
func (o *object) list(name string, required bool) []item {
	it, ok := o.get(name)
	if !ok {
		if required {
			o.need(name, kindArray)
		}
		return nil
	}
	return o.d.items(it)
}

func (d *decoder) items(it item) []item {
	if !d.is(it, kindArray) {
		return nil
	}
	out := make([]item, len(it.items))
	for i, v := range it.items {
		out[i] = item{value: v, path: index(it.path, i)}
	}
	return out
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

func (d *decoder) checkName(it item) {
	valid := it.text != "" && len(it.text) <= maxName && isAlphanumeric(it.text[0])
	for i := range len(it.text) {
		valid = valid && (isAlphanumeric(it.text[i]) || strings.IndexByte("-_.", it.text[i]) >= 0)
	}
	if !valid {
		d.fail(it.offset, it.path, fmt.Sprintf("%q is not a name", it.text),
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
		o.d.fail(it.offset, it.path, fmt.Sprintf("unknown word %q", it.text), fmt.Sprintf("one of %q", words))
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
		o.d.fail(it.offset, it.path, it.text+" is not a port", "a whole number from 1 to 65535")
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

func (d *decoder) address(it item) netip.Addr {
	if !d.is(it, kindString) {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(it.text)
	switch {
	case err != nil:
		d.fail(it.offset, it.path, fmt.Sprintf("%q is not an IP address", it.text), "")
	case a.Zone() != "":
		d.fail(it.offset, it.path, "an IPv6 zone has no meaning here", "write the address alone")
	case a.Is4In6():
		d.fail(it.offset, it.path, "an IPv4-mapped IPv6 address never occurs in a packet", "write "+a.Unmap().String())
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback():
		d.fail(it.offset, it.path, it.text+" is not the address of one host on a network", "")
	}
	return a
}

// networks returns an array of networks, none of them twice.
func (d *decoder) networks(it item) []netip.Prefix {
	var out []netip.Prefix
	seen := map[netip.Prefix]string{}
	for _, n := range d.items(it) {
		p := d.network(n)
		if first, ok := seen[p]; ok {
			d.fail(n.offset, n.path, fmt.Sprintf("%v is there twice, first at %s", p, first), "leave one of them out")
		}
		seen[p] = n.path
		out = append(out, p)
	}
	return out
}

// network returns a network in CIDR notation; its host bits must be clear (SPEC X-11).
func (d *decoder) network(it item) netip.Prefix {
	if !d.is(it, kindString) {
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(it.text)
	switch {
	case err != nil:
		d.fail(it.offset, it.path, fmt.Sprintf("%q is not a network in CIDR notation", it.text), "address/length, for example 198.51.100.0/24")
	case p.Addr().Is4In6():
		d.fail(it.offset, it.path, "an IPv4-mapped IPv6 network never occurs in a packet", "write it as IPv4")
	case p != p.Masked():
		d.fail(it.offset, it.path, fmt.Sprintf("%v has host bits set", p), fmt.Sprintf("write %v, or %v/%d for the one address", p.Masked(), p.Addr(), p.Addr().BitLen()))
	}
	return p
}
