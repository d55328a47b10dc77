package topology

import (
	"fmt"
	"net/netip"
	"slices"
)

// reserved are the networks no node of the fabric can have an address in: the kernel treats them apart from ordinary
// unicast (IANA special-purpose registries; RFC 6890, RFC 4291 section 2.4).
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),      // "this network"
	netip.MustParsePrefix("127.0.0.0/8"),    // loopback
	netip.MustParsePrefix("169.254.0.0/16"), // link-local
	netip.MustParsePrefix("224.0.0.0/4"),    // multicast
	netip.MustParsePrefix("240.0.0.0/4"),    // class E and limited broadcast
	netip.MustParsePrefix("::/8"),           // unspecified, loopback, IPv4-mapped, IPv4-compatible, NAT64
	netip.MustParsePrefix("fe80::/10"),      // link-local
	netip.MustParsePrefix("ff00::/8"),       // multicast
}

// parseAddr reads one plain unicast address. reason is empty on success.
func parseAddr(s string) (addr netip.Addr, hint, reason string) {
	addr, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return addr, "write an IPv4 or IPv6 address", "is not an address"
	case addr.Zone() != "":
		return addr, "leave the zone out", "has a zone"
	case addr.Is4In6():
		return addr, "write " + addr.Unmap().String(), "is an IPv4-mapped IPv6 address"
	}
	if i := slices.IndexFunc(reserved, func(p netip.Prefix) bool { return p.Contains(addr) }); i >= 0 {
		return addr, "use an ordinary unicast address", fmt.Sprintf("is inside the special range %s", reserved[i])
	}
	return addr, "", ""
}

// parsePrefix reads one masked unicast network. reason is empty on success.
func parsePrefix(s string) (prefix netip.Prefix, hint, reason string) {
	prefix, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return prefix, "write an address, a slash and a prefix length", "is not a network in CIDR notation"
	case prefix.Addr().Is4In6():
		return prefix, "write it as an IPv4 network", "is an IPv4-mapped IPv6 network"
	case prefix != prefix.Masked():
		return prefix, "write " + prefix.Masked().String(), "has host bits set"
	}
	if i := slices.IndexFunc(reserved, prefix.Overlaps); i >= 0 {
		return prefix, "use an ordinary unicast network", fmt.Sprintf("overlaps the special range %s", reserved[i])
	}
	return prefix, "", ""
}

// Family names an address family the way policies do.
type Family string

// The two address families.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
)

// FamilyOf returns the family of an address; empty for the zero Addr. An IPv4-mapped address is IPv6.
func FamilyOf(addr netip.Addr) Family {
	switch {
	case addr.Is4():
		return IPv4
	case addr.Is6():
		return IPv6
	}
	return ""
}

// OfFamily returns the addresses of one family, in their order.
func OfFamily(addrs []netip.Addr, f Family) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return FamilyOf(a) != f })
}

// firstHost returns the lowest address of a network that a host may have: not the network's own (all host bits zero:
// the subnet-router anycast address in IPv6, RFC 4291 section 2.6.1), unless the network is too small to spare it
// (RFC 3021, RFC 6164).
func firstHost(p netip.Prefix) netip.Addr {
	if p.Addr().BitLen()-p.Bits() <= 1 {
		return p.Addr()
	}
	return p.Addr().Next()
}

// usable reports whether a host of a routed network may have the address: it is inside, it is neither the network's own
// nor the first one, which is kept for the network's router, nor an IPv4 network's broadcast address.
func usable(p netip.Prefix, a netip.Addr) bool {
	if !p.Contains(a) || a == p.Addr() || a == firstHost(p) {
		return false
	}
	return a.Is6() || p.Contains(a.Next())
}
