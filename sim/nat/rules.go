package nat

import (
	"net/netip"

	"drawbridge/sim/fabric"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// family is what differs between the two address families; values index arrays.
type family int

const (
	v4 family = iota
	v6
)

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return v4
	}
	return v6
}

func (f family) suffix() string { return [...]string{"4", "6"}[f] }

func (f family) nfproto() byte { return [...]byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6}[f] }

func (f family) addressType() nftables.SetDatatype {
	return [...]nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeIP6Addr}[f]
}

// Where the addresses are in the IP header (RFC 791 section 3.1, RFC 8200 section 3).
func (f family) size() uint32      { return [...]uint32{4, 16}[f] }
func (f family) saddrAt() uint32   { return [...]uint32{12, 8}[f] }
func (f family) daddrAt() uint32   { return [...]uint32{16, 24}[f] }
func (f family) registers() uint32 { return f.size() / 4 } // 32-bit registers that an address takes

// first is the first 32-bit register; concatenations fill those behind it.
const first = unix.NFT_REG32_00

// tcpDestinationPort is the offset in the TCP header (RFC 9293 section 3.1).
const tcpDestinationPort = 2

// priorityGuard comes before conntrack sees anything (NF_IP_PRI_RAW, linux/netfilter_ipv4.h).
var priorityGuard = nftables.ChainPriorityRaw

// build queues the whole table.
func (t *Table) build() {
	table := t.conn.AddTable(&nftables.Table{Name: TableName, Family: nftables.TableFamilyINet, Flags: nftables.TableFlagOwner})
	if len(t.guardable) > 0 {
		t.buildGuard(table)
	}
	if len(t.filter.Destination) > 0 {
		t.buildDestination(table)
	}
	if len(t.filter.Source)+len(t.filter.Hairpin) > 0 {
		t.buildSource(table)
	}
}

func (t *Table) chain(
	table *nftables.Table, name string, typ nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority,
) *nftables.Chain {
	return t.conn.AddChain(&nftables.Chain{Name: name, Table: table, Type: typ, Hooknum: hook, Priority: prio})
}

func (t *Table) rule(c *nftables.Chain, exprs ...[]expr.Any) {
	var all []expr.Any
	for _, e := range exprs {
		all = append(all, e...)
	}
	t.conn.AddRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: all})
}

// set queues a set or map. What is wrong with it, Flush reports.
func (t *Table) set(s *nftables.Set, elements []nftables.SetElement) *nftables.Set {
	_ = t.conn.AddSet(s, elements) // kept by the connection until Flush
	return s
}

// buildGuard: iifname @guarded fib saddr . iif oif missing drop.
func (t *Table) buildGuard(table *nftables.Table) {
	t.guarded = t.set(&nftables.Set{Table: table, Name: setGuarded, KeyType: nftables.TypeIFName},
		interfaceElements(t.filter.Guarded...))
	c := t.chain(table, chainGuard, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, priorityGuard)
	t.rule(c, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: t.guarded.Name, SetID: t.guarded.ID},
		&expr.Fib{Register: unix.NFT_REG_1, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	})
}

// buildDestination: meta nfproto ipv4 meta l4proto tcp dnat ip to ip daddr . tcp dport map @destination4; and for IPv6.
func (t *Table) buildDestination(table *nftables.Table) {
	c := t.chain(table, chainDestination, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	elements := destinationElements(t.filter.Destination)
	for _, f := range []family{v4, v6} {
		endpoint := nftables.MustConcatSetType(f.addressType(), nftables.TypeInetService)
		m := t.set(&nftables.Set{Table: table, Name: mapDestination + f.suffix(), IsMap: true, Concatenation: true,
			KeyType: endpoint, DataType: endpoint}, elements[f])
		t.destination[f] = m
		t.rule(c, isFamily(f), isTCP(), []expr.Any{
			&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: f.daddrAt(), Len: f.size(), DestRegister: first},
			&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: tcpDestinationPort, Len: 2, DestRegister: first + f.registers()},
			&expr.Lookup{SourceRegister: first, DestRegister: first, IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.nfproto()), RegAddrMin: first, RegProtoMin: first + f.registers()},
		})
	}
}

// buildSource: oifname UPLINK snat ip to ip saddr map @source4, and ip saddr . ip daddr @hairpin4 snat ip to VIA; and for IPv6.
func (t *Table) buildSource(table *nftables.Table) {
	c := t.chain(table, chainSource, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	elements := sourceElements(t.filter.Source)
	for _, f := range []family{v4, v6} {
		if len(t.filter.Source) > 0 {
			t.buildEgress(table, c, f, elements[f])
		}
		for _, via := range t.filter.HairpinVia {
			if familyOf(via) == f {
				t.buildHairpin(table, c, f, via)
			}
		}
	}
}

func (t *Table) buildEgress(table *nftables.Table, c *nftables.Chain, f family, elements []nftables.SetElement) {
	m := t.set(&nftables.Set{Table: table, Name: mapSource + f.suffix(), IsMap: true,
		KeyType: f.addressType(), DataType: f.addressType()}, elements)
	t.source[f] = m
	t.rule(c, isFamily(f), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: interfaceKey(t.filter.Uplink)},
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: f.saddrAt(), Len: f.size(), DestRegister: first},
		&expr.Lookup{SourceRegister: first, DestRegister: first, IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.nfproto()), RegAddrMin: first},
	})
}

func (t *Table) buildHairpin(table *nftables.Table, c *nftables.Chain, f family, via netip.Addr) {
	var elements []nftables.SetElement
	for _, node := range t.filter.Hairpin {
		if familyOf(node) == f {
			elements = append(elements, nftables.SetElement{Key: append(node.AsSlice(), node.AsSlice()...)})
		}
	}
	s := t.set(&nftables.Set{Table: table, Name: setHairpin + f.suffix(), Concatenation: true,
		KeyType: nftables.MustConcatSetType(f.addressType(), f.addressType())}, elements)
	t.rule(c, isFamily(f), []expr.Any{
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: f.saddrAt(), Len: f.size(), DestRegister: first},
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: f.daddrAt(), Len: f.size(), DestRegister: first + f.registers()},
		&expr.Lookup{SourceRegister: first, SetName: s.Name, SetID: s.ID},
		&expr.Immediate{Register: first, Data: via.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.nfproto()), RegAddrMin: first},
	})
}

func isFamily(f family) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{f.nfproto()}},
	}
}

func isTCP() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{unix.IPPROTO_TCP}},
	}
}

// endpointKey is addr . port, each padded to whole 32-bit registers.
func endpointKey(a netip.AddrPort) []byte {
	return append(a.Addr().AsSlice(), append(binaryutil.BigEndian.PutUint16(a.Port()), 0, 0)...)
}

func destinationElements(list []fabric.DestinationNAT) (out [2][]nftables.SetElement) {
	for _, d := range list {
		f := familyOf(d.From.Addr())
		out[f] = append(out[f], nftables.SetElement{Key: endpointKey(d.From), Val: endpointKey(d.To)})
	}
	return out
}

func sourceElements(list []fabric.SourceNAT) (out [2][]nftables.SetElement) {
	for _, s := range list {
		f := familyOf(s.Inside)
		out[f] = append(out[f], nftables.SetElement{Key: s.Inside.AsSlice(), Val: s.Outside.AsSlice()})
	}
	return out
}

func interfaceElements(names ...string) []nftables.SetElement {
	var out []nftables.SetElement
	for _, n := range names {
		out = append(out, nftables.SetElement{Key: interfaceKey(n)})
	}
	return out
}

// interfaceKey is a name as the kernel compares it: padded with zeros to IFNAMSIZ.
func interfaceKey(name string) []byte {
	key := make([]byte, unix.IFNAMSIZ)
	copy(key[:unix.IFNAMSIZ-1], name)
	return key
}
