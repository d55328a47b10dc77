package nft

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/nlsocket"
	"drawbridge/enforcer/ruleset"
)

// maxReadAttempts bounds how often a dump is repeated because somebody wrote meanwhile.
const maxReadAttempts = 64

// State is what the kernel holds.
type State struct {
	// Generation of the whole ruleset, before and after the dump.
	Generation uint32
	// Exists tells whether the table is there. Without it, Table is the zero value.
	Exists bool
	Table  ruleset.Table
	// Foreign says why the table could not be decoded: it holds something that this enforcer did not write. It wraps
	// ErrForeign; Table is then the zero value, although the table exists.
	Foreign error
}

// Read dumps the table. The dump is consistent: it is repeated until no generation came in between.
func (c *Conn) Read(ctx context.Context) (State, error) {
	for range maxReadAttempts {
		before, err := c.Generation(ctx)
		if err != nil {
			return State{}, err
		}
		state, err := c.all(ctx)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINTR) {
			return State{}, err
		}
		after, genErr := c.Generation(ctx)
		if genErr != nil {
			return State{}, genErr
		}
		if before == after && err == nil {
			state.Generation = after
			return state, nil
		}
	}
	return State{}, fmt.Errorf("read the table: %w, %d times", ErrGeneration, maxReadAttempts)
}

// ReadAfter reads the table back after a successful commit of this change on this state. If nobody else committed since, or if
// nobody else can change the table, what the change did not touch is what it was, and only the sets whose elements changed
// are read; otherwise all is.
func (c *Conn) ReadAfter(ctx context.Context, before State, change ruleset.Change) (State, error) {
	generation, err := c.Generation(ctx)
	if err != nil {
		return State{}, err
	}
	if !change.OnlyElements() || !before.Exists || before.Foreign != nil || !c.owns && generation != before.Generation+1 {
		return c.Read(ctx)
	}
	d := tableDump{table: ruleset.Table{Sets: make([]ruleset.Set, 0, len(before.Table.Sets))}}
	var raw rawSet
	for _, s := range before.Table.Sets {
		if !change.Touches(s.Name) {
			d.table.Sets = append(d.table.Sets, s)
			continue
		}
		read := readSet{set: s}
		if err := c.readElements(ctx, c.socket, &read, &raw); err != nil {
			return c.Read(ctx) // somebody was faster, or something is there that a full dump describes better
		}
		d.table.Sets = append(d.table.Sets, read.set)
	}
	after, err := c.Generation(ctx)
	if err != nil || !c.owns && after != generation {
		return c.Read(ctx)
	}
	state := before
	state.Generation, state.Table.Sets = after, d.table.Sets
	return state, nil
}

// all reads everything once.
func (c *Conn) all(ctx context.Context) (State, error) {
	exists, foreign, err := c.readTable(ctx)
	if err != nil || !exists || foreign != nil {
		return State{Exists: exists, Foreign: foreign}, err
	}
	d := tableDump{table: ruleset.Table{Family: c.family, Name: c.table}, anonymous: map[string][][]byte{}}
	for _, step := range []func(context.Context, *tableDump) error{c.readSets, c.readChains, c.readRules, c.readObjects, c.readFlowtables} {
		if err := step(ctx, &d); errors.Is(err, ErrForeign) {
			return State{Exists: true, Foreign: err}, nil
		} else if err != nil {
			return State{}, err
		}
	}
	return State{Exists: true, Table: d.table}, nil
}

// tableDump collects a table.
type tableDump struct {
	table     ruleset.Table
	anonymous map[string][][]byte
}

// readTable looks whether the table is there and awake, and belongs to whom it must.
func (c *Conn) readTable(ctx context.Context) (exists bool, foreignErr, err error) {
	head, err := c.head(ctx)
	switch {
	case err != nil || !head.exists:
		return false, nil, err
	case head.flags&^uint32(tableFlagOwner|tableFlagPersist) != 0:
		return true, foreign("table %q has flags %#x (1: dormant)", c.table, head.flags), nil
	case c.owns && head.flags&tableFlagOwner == 0:
		return true, foreign("table %q belongs to nobody", c.table), nil
	}
	return true, nil, nil
}

// dump asks for all objects of a kind, narrowed by attributes, and has their attributes decoded one by one. what they are is for
// errors of the kernel; those of decode say it themselves.
func (c *Conn) dump(ctx context.Context, socket *nlsocket.Socket, what string, msg int, narrow func(*encoder), decode func([]byte) error) error {
	err := c.ask(ctx, socket, msg, netlink.Dump, narrow, decode)
	if err != nil && !errors.Is(err, ErrForeign) {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return err
}

// ask is dump for a request with any flags.
func (c *Conn) ask(ctx context.Context, socket *nlsocket.Socket, msg int, flags netlink.HeaderFlags, narrow func(*encoder), decode func([]byte) error) error {
	var e encoder
	if narrow(&e); e.err != nil {
		return e.err
	}
	return socket.Each(ctx, c.request(msg, flags, e.data), func(m netlink.Message) error { return decode(payload(m)) })
}

func (c *Conn) readSets(ctx context.Context, d *tableDump) error {
	var sets []readSet
	err := c.dump(ctx, c.socket, "sets", unix.NFT_MSG_GETSET, func(e *encoder) { e.string(unix.NFTA_SET_TABLE, c.table) }, func(b []byte) error {
		s, err := unmarshalSet(b)
		sets = append(sets, s)
		return err
	})
	if err != nil {
		return err
	}
	if err := c.readAllElements(ctx, sets); err != nil {
		return err
	}
	for _, s := range sets {
		if s.anonymous {
			d.anonymous[s.set.Name] = s.values
		} else {
			d.table.Sets = append(d.table.Sets, s.set)
		}
	}
	return nil
}

// manySets is from how many sets on a second socket pays.
const manySets = 64

// readAllElements reads the elements of sets, with two sockets where there are many: each set is a dump of its own, and most of its
// time is the kernel's.
func (c *Conn) readAllElements(ctx context.Context, sets []readSet) error {
	read := func(socket *nlsocket.Socket, from, step int) (err error) {
		var raw rawSet
		for i := from; i < len(sets) && err == nil; i += step {
			err = c.readElements(ctx, socket, &sets[i], &raw)
		}
		return err
	}
	if len(sets) < manySets {
		return read(c.socket, 0, 1)
	}
	other := make(chan error, 1)
	go func() { other <- read(c.second, 1, 2) }()
	err := read(c.socket, 0, 2)
	return errors.Join(err, <-other)
}

// readElements reads a set's elements, but not those that rules put there.
func (c *Conn) readElements(ctx context.Context, socket *nlsocket.Socket, s *readSet, raw *rawSet) (err error) {
	if s.set.Dynamic {
		return nil
	}
	if err := c.readRaw(ctx, socket, s.set.Name, raw); err != nil {
		return err
	}
	if !s.anonymous {
		s.set.Elements, err = raw.elementsOf(s.set)
		return err
	}
	for _, e := range raw.elements {
		s.values = append(s.values, bytes.Clone(e.key))
	}
	return nil
}

// readRaw reads the elements of a set as the kernel keeps them.
func (c *Conn) readRaw(ctx context.Context, socket *nlsocket.Socket, set string, raw *rawSet) error {
	raw.reset()
	narrow := func(e *encoder) {
		e.string(unix.NFTA_SET_ELEM_LIST_TABLE, c.table)
		e.string(unix.NFTA_SET_ELEM_LIST_SET, set)
	}
	return c.dump(ctx, socket, fmt.Sprintf("the elements of %q", set), unix.NFT_MSG_GETSETELEM, narrow, func(b []byte) error {
		if err := raw.take(b); err != nil {
			return fmt.Errorf("set %q: %w", set, err)
		}
		return nil
	})
}

func (c *Conn) readChains(ctx context.Context, d *tableDump) error {
	return c.dump(ctx, c.socket, "chains", unix.NFT_MSG_GETCHAIN, func(e *encoder) { e.string(unix.NFTA_CHAIN_TABLE, c.table) }, func(b []byte) error {
		table, chain, err := unmarshalChain(b)
		if table != c.table {
			return nil // kernels that know no filter for this dump list all tables
		}
		d.table.Chains = append(d.table.Chains, chain)
		return err
	})
}

func unmarshalChain(b []byte) (table string, c ruleset.Chain, err error) {
	ad, err := newDecoder(b)
	if err != nil {
		return "", c, err
	}
	kind, policy := "filter", uint32(policyDrop)
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_CHAIN_TABLE:
			table = ad.String()
		case unix.NFTA_CHAIN_NAME:
			c.Name = ad.String()
		case unix.NFTA_CHAIN_TYPE:
			kind = ad.String()
		case unix.NFTA_CHAIN_POLICY:
			policy = ad.Uint32()
		case unix.NFTA_CHAIN_HOOK:
			ad.Nested(func(ad *netlink.AttributeDecoder) error { return decodeHook(ad, &c) })
		}
	}
	if policy == policyAccept {
		c.Policy = ruleset.Verdict{Kind: ruleset.Accept}
	}
	if kind != "filter" && ad.Err() == nil {
		return table, c, foreign("chain %q is of type %s", c.Name, kind)
	}
	return table, c, decodeError(ad)
}

func decodeHook(ad *netlink.AttributeDecoder, c *ruleset.Chain) error {
	number := uint32(unix.NF_INET_NUMHOOKS)
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_HOOK_HOOKNUM:
			number = ad.Uint32()
		case unix.NFTA_HOOK_PRIORITY:
			c.Priority = ad.Int32()
		}
	}
	for hook, n := range chainHooks {
		if n == number {
			c.Hook = hook
			return nil
		}
	}
	return foreign("chain %q at hook %d", c.Name, number)
}

func (c *Conn) readRules(ctx context.Context, d *tableDump) error {
	index := make(map[string]int, len(d.table.Chains))
	for i, chain := range d.table.Chains {
		index[chain.Name] = i
	}
	return c.dump(ctx, c.socket, "rules", unix.NFT_MSG_GETRULE, func(e *encoder) { e.string(unix.NFTA_RULE_TABLE, c.table) }, func(b []byte) error {
		chain, rule, err := unmarshalRule(b, d.anonymous)
		if err != nil {
			return fmt.Errorf("chain %q: %w", chain, err)
		}
		i, listed := index[chain]
		if !listed {
			return foreign("a rule in chain %q, which was not listed", chain)
		}
		d.table.Chains[i].Rules = append(d.table.Chains[i].Rules, rule)
		return nil
	})
}

// unmarshalRule reads one rule of a dump, with the values of the anonymous sets by name.
func unmarshalRule(b []byte, anonymous map[string][][]byte) (chain string, rule ruleset.Rule, err error) {
	ad, err := newDecoder(b)
	if err != nil {
		return "", rule, err
	}
	var ops []operation
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_RULE_CHAIN:
			chain = ad.String()
		case unix.NFTA_RULE_EXPRESSIONS:
			if ops, err = unmarshalOperations(ad.Bytes()); err != nil {
				return chain, rule, err
			}
		case unix.NFTA_RULE_USERDATA:
			rule.Comment = commentOf(ad.Bytes(), byte(userdata.TypeComment))
		}
	}
	if err := decodeError(ad); err != nil {
		return chain, rule, err
	}
	rule.Statements, err = decodeRule(ops, func(name string, _ uint32) ([][]byte, bool) {
		values, ok := anonymous[name]
		return values, ok
	})
	rule.Statements = canonicalStatements(rule.Statements)
	return chain, rule, err
}
