package topology

import "strings"

// TopDomain is the domain of every name in a world: reserved for examples (RFC 2606, section 2), so that nothing of a world is ever
// mistaken for something on the Internet.
const TopDomain = "example"

// privatePrefix begins the name of a database's private endpoint.
const privatePrefix = "private"

// Domain returns the name by which clients know the database's public endpoint, as in orders.postgresql.osc-fr1.example.
func (d Database) Domain() string {
	return strings.Join([]string{d.Name, string(d.Engine), d.Region, TopDomain}, ".")
}

// PrivateDomain returns the name of the database's endpoint in the peered network; empty if it has none.
func (d Database) PrivateDomain() string {
	if d.Peering == nil {
		return ""
	}
	return privatePrefix + "." + d.Domain()
}
