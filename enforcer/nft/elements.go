package nft

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/ruleset"
)

// rawElement is one element as the kernel keeps it: of an interval, the start or (with end set) the first key behind it.
type rawElement struct {
	key     []byte
	end     bool
	open    bool // a start with no end behind it: the range goes up to the last key
	verdict *expr.Verdict
	timeout time.Duration
	comment string
	expires time.Duration // what is left of timeout
	packets uint64        // of the element's counter
	counted bool          // it has a counter
	value   []byte        // of a map
}

// rawSet holds the elements of one set after the other as the kernel keeps them. What is there for one set is gone with the
// next: the room is used again.
type rawSet struct {
	elements []rawElement
	bytes    []byte // their keys and values
}

func (r *rawSet) reset() { r.elements, r.bytes = r.elements[:0], r.bytes[:0] }

// keep copies bytes to where they are until the next set.
func (r *rawSet) keep(b []byte) []byte {
	at := len(r.bytes)
	r.bytes = append(r.bytes, b...)
	return r.bytes[at:len(r.bytes):len(r.bytes)]
}

// put translates elements of a set to what the kernel keeps.
func (r *rawSet) put(s ruleset.Set, elements []ruleset.Element) error {
	r.reset()
	if len(elements) == 0 {
		return nil
	}
	shape, err := shapeOf(s.Key)
	if err != nil {
		return err
	}
	n := len(elements)
	if s.Interval {
		n *= 2 // starts and ends
	}
	r.elements, r.bytes = slices.Grow(r.elements, n), slices.Grow(r.bytes, n*shape.padded)
	for i, e := range elements {
		if err := r.add(s, shape, e); err != nil {
			return fmt.Errorf("element %d (% x): %w", i, string(e.Key), err)
		}
	}
	return nil
}

func (r *rawSet) add(s ruleset.Set, shape keyShape, e ruleset.Element) (err error) {
	raw := rawElement{timeout: e.Timeout, comment: e.Comment}
	if raw.key, err = r.padded(shape, e.Key); err != nil {
		return err
	}
	switch {
	case len(e.Comment) > maxComment:
		return fmt.Errorf("comment of %d bytes: at most %d", len(e.Comment), maxComment)
	case !s.Verdicts && e.Verdict != ruleset.Verdict{}:
		return fmt.Errorf("a verdict in a set that is not a map")
	case !s.Interval && e.End != "":
		return fmt.Errorf("a range in a set without intervals")
	case e.Timeout != 0 && !s.HasTimeout && s.Timeout == 0:
		return fmt.Errorf("a timeout in a set without timeouts")
	}
	if s.Verdicts {
		if raw.verdict, err = encodeVerdict(e.Verdict); err != nil {
			return err
		}
	}
	if err := wholeSeconds(e.Timeout); err != nil || !s.Interval {
		r.elements = append(r.elements, raw)
		return err
	}
	return r.interval(raw, shape, e)
}

// padded keeps a key with its padding.
func (r *rawSet) padded(shape keyShape, key ruleset.Key) ([]byte, error) {
	at := len(r.bytes)
	all, err := shape.pad(r.bytes, key)
	if err != nil {
		return nil, err
	}
	r.bytes = all
	return all[at:len(all):len(all)], nil
}

// interval adds the start of a closed range and, unless it reaches the last key, the end behind it.
func (r *rawSet) interval(start rawElement, shape keyShape, e ruleset.Element) error {
	if len(e.End) != len(e.Key) || e.End < e.Key {
		return fmt.Errorf("the range ends at % x, before it starts", string(e.End))
	}
	behind, err := r.padded(shape, e.End)
	if err != nil {
		return err
	}
	closed := increment(behind)
	start.open = !closed
	r.elements = append(r.elements, start)
	if closed {
		r.elements = append(r.elements, rawElement{key: behind, end: true})
	}
	return nil
}

// encode writes the element's attributes.
func (r rawElement) encode(e *encoder) {
	if r.end {
		e.uint32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	e.nested(unix.NFTA_SET_ELEM_KEY, func() { e.bytes(unix.NFTA_DATA_VALUE, r.key) })
	if r.verdict != nil {
		e.nested(unix.NFTA_SET_ELEM_DATA, func() {
			e.nested(unix.NFTA_DATA_VERDICT, func() {
				e.uint32(unix.NFTA_VERDICT_CODE, uint32(int32(r.verdict.Kind)))
				if r.verdict.Chain != "" {
					e.string(unix.NFTA_VERDICT_CHAIN, r.verdict.Chain)
				}
			})
		})
	}
	if r.timeout != 0 {
		e.uint64(unix.NFTA_SET_ELEM_TIMEOUT, uint64(r.timeout/timeoutUnit))
	}
	if data := r.userData(); len(data) > 0 {
		e.bytes(unix.NFTA_SET_ELEM_USERDATA, data)
	}
}

// userData carries what only nft(8) and people read.
func (r rawElement) userData() []byte {
	var data []byte
	if r.comment != "" {
		data = userdata.AppendString(data, userdata.NFTNL_UDATA_SET_ELEM_COMMENT, r.comment)
	}
	if r.open {
		data = userdata.AppendUint32(data, userdata.NFTNL_UDATA_SET_ELEM_FLAGS, userdata.NFTNL_UDATA_SET_ELEM_F_INTERVAL_OPEN)
	}
	return data
}

// take adds the elements of one message of a dump.
func (r *rawSet) take(message []byte) error {
	return each(message, func(a attribute) error {
		if a.kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return nil
		}
		return each(a.value, func(a attribute) error {
			e, err := unmarshalElement(a.value)
			if err != nil {
				return err
			}
			e.key = r.keep(e.key)
			if e.value != nil {
				e.value = r.keep(e.value)
			}
			r.elements = append(r.elements, e)
			return nil
		})
	})
}

// unmarshalElement reads one element, whose key and value are parts of b.
func unmarshalElement(b []byte) (e rawElement, err error) {
	if err := each(b, e.attribute); err != nil {
		return rawElement{}, err
	}
	if len(e.key) == 0 {
		return rawElement{}, foreign("an element without a key (a catch-all)")
	}
	return e, nil
}

func (r *rawElement) attribute(a attribute) (err error) {
	switch a.kind {
	case unix.NFTA_SET_ELEM_FLAGS:
		var flags uint32
		flags, err = a.uint32()
		r.end = flags&unix.NFT_SET_ELEM_INTERVAL_END != 0
	case unix.NFTA_SET_ELEM_KEY:
		return each(a.value, func(a attribute) error { r.key = a.value; return nil })
	case elemAttrKeyEnd:
		return foreign("a concatenated range")
	case unix.NFTA_SET_ELEM_DATA:
		return each(a.value, r.data)
	case unix.NFTA_SET_ELEM_TIMEOUT:
		r.timeout, err = a.milliseconds()
	case unix.NFTA_SET_ELEM_EXPIRATION:
		r.expires, err = a.milliseconds()
	case unix.NFTA_SET_ELEM_EXPR:
		r.packets, err = unmarshalCount(a.value)
		r.counted = true
	case elemAttrExpressions:
		return foreign("an element with several expressions")
	case unix.NFTA_SET_ELEM_USERDATA:
		r.comment = commentOf(a.value, byte(userdata.NFTNL_UDATA_SET_ELEM_COMMENT))
	}
	return err
}

func (a attribute) milliseconds() (time.Duration, error) {
	n, err := a.uint64()
	return time.Duration(n) * timeoutUnit, err
}

// unmarshalCount reads the packets that a counter has counted. An element with any other expression decides something.
func unmarshalCount(expression []byte) (packets uint64, err error) {
	name := ""
	var data []byte
	err = each(expression, func(a attribute) error {
		switch a.kind {
		case unix.NFTA_EXPR_NAME:
			name = a.string()
		case unix.NFTA_EXPR_DATA:
			data = a.value
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if name != "counter" {
		return 0, foreign("an element with an expression that decides: %q", name)
	}
	return packets, each(data, func(a attribute) (err error) {
		if a.kind == unix.NFTA_COUNTER_PACKETS {
			packets, err = a.uint64()
		}
		return err
	})
}

func (r *rawElement) data(a attribute) error {
	if a.kind != unix.NFTA_DATA_VERDICT {
		r.value = a.value
		return nil
	}
	r.verdict = &expr.Verdict{}
	return each(a.value, func(a attribute) error {
		switch a.kind {
		case unix.NFTA_VERDICT_CODE:
			code, err := a.uint32()
			r.verdict.Kind = expr.VerdictKind(int32(code))
			return err
		case unix.NFTA_VERDICT_CHAIN:
			r.verdict.Chain = a.string()
		}
		return nil
	})
}

// commentOf finds a comment in user data: a list of type, length, value with lengths of one byte, which any program
// may have written.
func commentOf(data []byte, kind byte) string {
	for len(data) >= 2 {
		length := int(data[1])
		if len(data) < 2+length {
			return ""
		}
		if data[0] == kind {
			return string(bytes.TrimRight(data[2:2+length], "\x00"))
		}
		data = data[2+length:]
	}
	return ""
}

// elementsOf is the inverse of put, sorted by key. The elements' keys are parts of one string.
func (r *rawSet) elementsOf(s ruleset.Set) ([]ruleset.Element, error) {
	if len(r.elements) == 0 {
		return nil, nil
	}
	slices.SortFunc(r.elements, func(a, b rawElement) int {
		if c := bytes.Compare(a.key, b.key); c != 0 || a.end == b.end {
			return c
		}
		if a.end {
			return -1 // where two ranges meet, one ends before the next starts
		}
		return 1
	})
	shape, err := shapeOf(s.Key)
	if err != nil {
		return nil, foreign("%v", err)
	}
	keys, n, err := r.keys(s, shape)
	if err != nil {
		return nil, fmt.Errorf("set %q: %w", s.Name, err)
	}
	next := func() (key ruleset.Key) {
		key, keys = ruleset.Key(keys[:shape.length]), keys[shape.length:]
		return key
	}
	out := make([]ruleset.Element, 0, n)
	for _, raw := range r.elements {
		if raw.end {
			continue
		}
		e, err := elementOf(s, raw)
		if err != nil {
			return nil, err
		}
		e.Key = next()
		if s.Interval {
			e.End = next()
		}
		out = append(out, e)
	}
	return out, nil
}

// keys are the keys of n elements, each followed by the end of its range if there are ranges.
func (r *rawSet) keys(s ruleset.Set, shape keyShape) (_ string, n int, err error) {
	start := len(r.bytes)
	for i, raw := range r.elements {
		if raw.end {
			continue
		}
		n++
		if r.bytes, err = shape.unpad(r.bytes, raw.key); err == nil && s.Interval {
			err = r.rangeEnd(shape, i)
		}
		if err != nil {
			return "", 0, err
		}
	}
	return string(r.bytes[start:]), n, nil
}

// elementOf is all of an element but its key.
func elementOf(s ruleset.Set, r rawElement) (e ruleset.Element, err error) {
	if r.counted && !s.Counter {
		return e, foreign("set %q: an element with a counter of its own", s.Name)
	}
	e = ruleset.Element{Timeout: r.left(), Comment: r.comment}
	if s.Verdicts != (r.verdict != nil) || r.value != nil {
		return e, foreign("set %q: an element of the wrong sort", s.Name)
	}
	if r.verdict != nil {
		if e.Verdict, err = decodeVerdict(r.verdict); err != nil {
			return e, fmt.Errorf("map %q: %w", s.Name, err)
		}
	}
	return e, nil
}

// left is how long an element has to live, in whole seconds, rounded up as it was written; 0: for ever.
func (r rawElement) left() time.Duration {
	if r.timeout == 0 {
		return 0
	}
	return max((r.expires + time.Second - 1).Truncate(time.Second), time.Second)
}

// rangeEnd appends the last key of the range that starts at the i-th element.
func (r *rawSet) rangeEnd(shape keyShape, i int) (err error) {
	if i+1 == len(r.elements) {
		r.bytes = append(r.bytes, bytes.Repeat([]byte{0xff}, shape.length)...)
		return nil
	}
	at := len(r.bytes)
	if r.bytes, err = shape.unpad(r.bytes, r.elements[i+1].key); err == nil {
		decrement(r.bytes[at:])
	}
	return err
}
