package proof

import (
	"net/netip"

	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/reach"
	"drawbridge/enforcer/ruleset"
)

// Admission tells whom a table lets connect. Use it from one goroutine at a time.
type Admission struct{ machine *reach.Machine }

// AdmissionOf reads a table. It is an error if it is none that a kernel could hold.
func AdmissionOf(t ruleset.Table) (Admission, error) {
	m, err := reach.New(t)
	return Admission{m}, err
}

// Admits are the sources whose SYN to a port passes for certain, and to whom the port's answer gets out, by an interface.
func (a Admission) Admits(to netip.AddrPort, iface string) addrset.Set {
	all := addrset.All(to.Addr().Is4())
	in := a.machine.Run(syn(to, iface), all, nil).Certain()
	return a.machine.Arithmetic().Intersect(in, a.machine.Run(synAck(to, iface), all, nil).Certain())
}

// Minus is what is in s and not in t. It is the quicker the more they share with sets that Admits returned.
func (a Admission) Minus(s, t addrset.Set) addrset.Set { return a.machine.Arithmetic().Minus(s, t) }
