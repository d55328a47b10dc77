package nft

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/ruleset"
)

// Counted is an element of a set, with what the kernel counted for it.
type Counted struct {
	// Key is the element's key, as in ruleset.Element.
	Key ruleset.Key
	// Value is what a map holds for the key; nil in a set.
	Value []byte
	// Packets that found the element; of a dynamic set, that made or renewed it.
	Packets uint64
	// Timeout is the element's lifetime from its last renewal on, Expires what is left of it; both 0 if it has none.
	Timeout, Expires time.Duration
}

// ReadCounted lists the elements of a set of this table with their counts, those of a dynamic set too, which Read leaves out.
// Of an interval it has the first key. A set that is not there has none.
func (c *Conn) ReadCounted(ctx context.Context, s ruleset.Set) ([]Counted, error) {
	replies, err := c.dumpOf(ctx, unix.NFT_MSG_GETSETELEM, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_SET_ELEM_LIST_TABLE, c.table)
		ae.String(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the elements of %q: %w", s.Name, err)
	}
	var out []Counted
	for _, r := range replies {
		elements, err := unmarshalElements(payload(r))
		if err != nil {
			return nil, fmt.Errorf("set %q: %w", s.Name, err)
		}
		for _, e := range elements {
			if e.end {
				continue
			}
			key, err := unpadKey(s.Key, e.key)
			if err != nil {
				return nil, fmt.Errorf("set %q: %w", s.Name, err)
			}
			out = append(out, Counted{Key: key, Value: e.value, Packets: e.packets, Timeout: e.timeout, Expires: e.expires})
		}
	}
	return out, nil
}
