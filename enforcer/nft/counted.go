package nft

import (
	"context"
	"errors"
	"fmt"
	"time"

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
	var raw rawSet
	err := c.readRaw(ctx, c.socket, s.Name, &raw)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	shape, err := shapeOf(s.Key)
	if err != nil {
		return nil, foreign("set %q: %v", s.Name, err)
	}
	var out []Counted
	var key []byte
	for _, e := range raw.elements {
		if e.end {
			continue
		}
		if key, err = shape.unpad(key[:0], e.key); err != nil {
			return nil, fmt.Errorf("set %q: %w", s.Name, err)
		}
		out = append(out, Counted{Key: ruleset.Key(key), Value: e.value, Packets: e.packets, Timeout: e.timeout, Expires: e.expires})
	}
	return out, nil
}
