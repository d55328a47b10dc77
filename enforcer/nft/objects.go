package nft

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"drawbridge/enforcer/ruleset"
)

// objectTypes are what nft(8) calls the kinds of stateful objects.
var objectTypes = map[uint32]string{
	unix.NFT_OBJECT_COUNTER: "counter", unix.NFT_OBJECT_QUOTA: "quota", unix.NFT_OBJECT_CT_HELPER: "ct helper", unix.NFT_OBJECT_LIMIT: "limit",
	unix.NFT_OBJECT_CONNLIMIT: "ct count", unix.NFT_OBJECT_TUNNEL: "tunnel", unix.NFT_OBJECT_CT_TIMEOUT: "ct timeout",
	unix.NFT_OBJECT_SECMARK: "secmark", unix.NFT_OBJECT_CT_EXPECT: "ct expectation", unix.NFT_OBJECT_SYNPROXY: "synproxy",
}

// readObjects looks for stateful objects, of which the table has no others than the counters that its rules name.
func (c *Conn) readObjects(ctx context.Context, d *tableDump) error {
	counters := namedCounters(d.table)
	narrow := func(e *encoder) { e.string(unix.NFTA_OBJ_TABLE, c.table) }
	return unlessUnknown(c.dump(ctx, c.socket, "objects", unix.NFT_MSG_GETOBJ, narrow, func(b []byte) error {
		table, name, kind, err := unmarshalObject(b)
		if err != nil || table != c.table || kind == unix.NFT_OBJECT_COUNTER && counters[name] {
			return err
		}
		called, ok := objectTypes[kind]
		if !ok {
			called = fmt.Sprintf("object of type %d", kind)
		}
		return foreign("%s %q", called, name)
	}))
}

// readFlowtables looks for flow tables, of which the table has none.
func (c *Conn) readFlowtables(ctx context.Context, _ *tableDump) error {
	narrow := func(e *encoder) { e.string(flowtableTable, c.table) }
	return unlessUnknown(c.dump(ctx, c.socket, "flow tables", unix.NFT_MSG_GETFLOWTABLE, narrow, c.foreignFlowtable))
}

// foreignFlowtable is the error that a flow table of the Conn's table is.
func (c *Conn) foreignFlowtable(b []byte) error {
	f, err := decodeFlowtable(b)
	if err != nil || f.Table != c.table {
		return err
	}
	return foreign("flowtable %q", f.Name)
}

// unlessUnknown passes over that a kernel does not know what was asked for: it has none of it.
func unlessUnknown(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

func unmarshalObject(b []byte) (table, name string, kind uint32, err error) {
	ad, err := newDecoder(b)
	if err != nil {
		return "", "", 0, err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_OBJ_TABLE:
			table = ad.String()
		case unix.NFTA_OBJ_NAME:
			name = ad.String()
		case unix.NFTA_OBJ_TYPE:
			kind = ad.Uint32()
		}
	}
	return table, name, kind, decodeError(ad)
}

// namedCounters are those that rules name.
func namedCounters(t ruleset.Table) map[string]bool {
	names := map[string]bool{}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for _, s := range r.Statements {
				if counter, ok := s.(ruleset.Counter); ok && counter.Name != "" {
					names[counter.Name] = true
				}
			}
		}
	}
	return names
}
