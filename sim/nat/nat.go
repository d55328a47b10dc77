// Package nat puts a fabric.Filter into the kernel, as the table inet drawbridge_fabric of one node: the translations
// of gateways and edges, and the filter against forged sources.
//
// The table belongs to a lasting netlink socket (NFT_TABLE_F_OWNER, kernel 5.12 and later): `nft flush ruleset` of anyone
// else skips it, and any other change by anyone else is refused. It goes when the socket is closed.
package nat

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"drawbridge/sim/fabric"
	"drawbridge/sim/netns"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// TableName is the table's name, of family inet. docs/DRIVERS.md promises it to drivers.
const TableName = "drawbridge_fabric"

// Names of what is in the table.
const (
	chainGuard       = "guard"
	chainDestination = "destination"
	chainSource      = "source"
	setGuarded       = "guarded"
	setHairpin       = "hairpin" // with the family's digit behind, as the next two
	mapDestination   = "destination"
	mapSource        = "source"
)

// ErrUnknown is returned for a change of something that the table does not hold.
var ErrUnknown = errors.New("not in the table")

// Table is the fabric's table in one namespace. It is safe for use by several goroutines.
type Table struct {
	node *netns.Handle

	mu          sync.Mutex
	socket      *transport // owns the table
	conn        *nftables.Conn
	guarded     *nftables.Set
	guardable   []string
	destination [2]*nftables.Set // by family
	source      [2]*nftables.Set
	filter      fabric.Filter // as in force
}

// Install creates the table in the namespace, in one transaction.
func Install(h *netns.Handle, f fabric.Filter) (*Table, error) {
	t := &Table{node: h, filter: clone(f), guardable: slices.Clone(f.Guarded)}
	if f.Lenient {
		t.filter.Guarded = nil
	}
	err := h.Do(func() (err error) { t.socket, err = openTransport(); return err })
	if err == nil {
		t.conn, err = nftables.New(nftables.WithTestDial(t.socket.exchange), nftables.AsLasting())
	}
	if err != nil {
		return nil, fmt.Errorf("table inet %s: netlink socket: %w", TableName, err)
	}
	t.build()
	if err := t.conn.Flush(); err != nil {
		return nil, errors.Join(fmt.Errorf("table inet %s: create: %w%s", TableName, err, advice(err)), t.socket.Close())
	}
	return t, nil
}

func advice(err error) string {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) {
		return " (needs Linux 5.12, for tables with an owner, and its modules nf_tables, nft_chain_nat and nft_fib_inet)"
	}
	return ""
}

// Close takes the table out of force.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.conn.CloseLasting(), t.socket.Close())
}

// Guard turns the filter against forged sources on or off for one of the interfaces that were guarded at first.
func (t *Table) Guard(iface string, on bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Contains(t.guardable, iface) {
		return fmt.Errorf("table inet %s: guard %s: %w", TableName, iface, ErrUnknown)
	}
	if slices.Contains(t.filter.Guarded, iface) == on {
		return nil
	}
	change := t.conn.SetDeleteElements
	if on {
		change = t.conn.SetAddElements
	}
	if err := t.commit("guard "+iface, change(t.guarded, interfaceElements(iface))); err != nil {
		return err
	}
	if on {
		t.filter.Guarded = append(t.filter.Guarded, iface)
	} else {
		t.filter.Guarded = slices.DeleteFunc(t.filter.Guarded, func(g string) bool { return g == iface })
	}
	return nil
}

// Redirect changes where connections to the given endpoints go, in one transaction, and forgets the connections that
// were translated the old way. Every From must be translated already, and stay in its family.
func (t *Table) Redirect(changes []fabric.DestinationNAT) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var old []fabric.DestinationNAT
	for _, c := range changes {
		i := slices.IndexFunc(t.filter.Destination, func(d fabric.DestinationNAT) bool { return d.From == c.From })
		if i < 0 || c.From.Addr().Is4() != c.To.Addr().Is4() {
			return fmt.Errorf("table inet %s: redirect %s to %s: %w", TableName, c.From, c.To, ErrUnknown)
		}
		old = append(old, t.filter.Destination[i])
	}
	err := t.replace(t.destination, destinationElements(old), destinationElements(changes))
	if err := t.commit("redirect", err); err != nil {
		return err
	}
	for _, c := range changes {
		i := slices.IndexFunc(t.filter.Destination, func(d fabric.DestinationNAT) bool { return d.From == c.From })
		t.filter.Destination[i] = c
	}
	return forgetDestinations(t.node, old)
}

// MoveSource gives everything that leaves as from the source address to instead, in one transaction, and forgets the
// connections that left as from.
func (t *Table) MoveSource(from, to netip.Addr) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var old, fresh []fabric.SourceNAT
	for _, s := range t.filter.Source {
		if s.Outside == from {
			old = append(old, s)
			fresh = append(fresh, fabric.SourceNAT{Inside: s.Inside, Outside: to})
		}
	}
	if len(old) == 0 || from.Is4() != to.Is4() {
		return fmt.Errorf("table inet %s: move source %s to %s: %w", TableName, from, to, ErrUnknown)
	}
	err := t.replace(t.source, sourceElements(old), sourceElements(fresh))
	if err := t.commit("move source", err); err != nil {
		return err
	}
	for i, s := range t.filter.Source {
		if s.Outside == from {
			t.filter.Source[i].Outside = to
		}
	}
	return forgetSource(t.node, from)
}

// Filter returns what is in force.
func (t *Table) Filter() fabric.Filter {
	t.mu.Lock()
	defer t.mu.Unlock()
	return clone(t.filter)
}

// replace queues the exchange of a map's elements, family by family.
func (t *Table) replace(maps [2]*nftables.Set, old, fresh [2][]nftables.SetElement) error {
	for f, m := range maps {
		if len(old[f]) == 0 {
			continue
		}
		if err := errors.Join(t.conn.SetDeleteElements(m, old[f]), t.conn.SetAddElements(m, fresh[f])); err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) commit(what string, queued error) error {
	flushed := t.conn.Flush() // empties the queue, whatever became of it
	if err := errors.Join(queued, flushed); err != nil {
		return fmt.Errorf("table inet %s: %s: %w", TableName, what, err)
	}
	return nil
}

func clone(f fabric.Filter) fabric.Filter {
	f.Guarded, f.Destination = slices.Clone(f.Guarded), slices.Clone(f.Destination)
	f.Source, f.Hairpin, f.HairpinVia = slices.Clone(f.Source), slices.Clone(f.Hairpin), slices.Clone(f.HairpinVia)
	return f
}
