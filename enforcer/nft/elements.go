package nft

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
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

// rawElements translates elements of a set to what the kernel keeps.
func rawElements(s ruleset.Set, elements []ruleset.Element) ([]rawElement, error) {
	out := make([]rawElement, 0, len(elements))
	for i, e := range elements {
		raw, err := rawElementOf(s, e)
		if err == nil && s.Interval {
			out, err = appendInterval(out, raw, e)
		} else {
			out = append(out, raw)
		}
		if err != nil {
			return nil, fmt.Errorf("element %d (% x): %w", i, string(e.Key), err)
		}
	}
	return out, nil
}

func rawElementOf(s ruleset.Set, e ruleset.Element) (rawElement, error) {
	key, err := padKey(s.Key, e.Key)
	if err != nil {
		return rawElement{}, err
	}
	raw := rawElement{key: key, timeout: e.Timeout, comment: e.Comment}
	switch {
	case len(e.Comment) > maxComment:
		return raw, fmt.Errorf("comment of %d bytes: at most %d", len(e.Comment), maxComment)
	case !s.Verdicts && e.Verdict != ruleset.Verdict{}:
		return raw, fmt.Errorf("a verdict in a set that is not a map")
	case !s.Interval && e.End != "":
		return raw, fmt.Errorf("a range in a set without intervals")
	case e.Timeout != 0 && !s.HasTimeout && s.Timeout == 0:
		return raw, fmt.Errorf("a timeout in a set without timeouts")
	}
	if s.Verdicts {
		if raw.verdict, err = encodeVerdict(e.Verdict); err != nil {
			return raw, err
		}
	}
	return raw, wholeSeconds(e.Timeout)
}

// appendInterval appends the start of a closed range and, unless it reaches the last key, the end behind it.
func appendInterval(out []rawElement, start rawElement, e ruleset.Element) ([]rawElement, error) {
	if len(e.End) != len(e.Key) || e.End < e.Key {
		return nil, fmt.Errorf("the range ends at % x, before it starts", string(e.End))
	}
	next, ok := successor([]byte(e.End))
	start.open = !ok
	out = append(out, start)
	if ok {
		out = append(out, rawElement{key: next, end: true})
	}
	return out, nil
}

// encode writes the element's attributes.
func (r rawElement) encode(ae *netlink.AttributeEncoder) error {
	if r.end {
		ae.Uint32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	ae.Nested(unix.NFTA_SET_ELEM_KEY, func(ae *netlink.AttributeEncoder) error {
		ae.Bytes(unix.NFTA_DATA_VALUE, r.key)
		return nil
	})
	if r.verdict != nil {
		ae.Nested(unix.NFTA_SET_ELEM_DATA, func(ae *netlink.AttributeEncoder) error {
			ae.Nested(unix.NFTA_DATA_VERDICT, func(ae *netlink.AttributeEncoder) error {
				ae.Int32(unix.NFTA_VERDICT_CODE, int32(r.verdict.Kind))
				if r.verdict.Chain != "" {
					ae.String(unix.NFTA_VERDICT_CHAIN, r.verdict.Chain)
				}
				return nil
			})
			return nil
		})
	}
	if r.timeout != 0 {
		ae.Uint64(unix.NFTA_SET_ELEM_TIMEOUT, uint64(r.timeout/timeoutUnit))
	}
	if data := r.userData(); len(data) > 0 {
		ae.Bytes(unix.NFTA_SET_ELEM_USERDATA, data)
	}
	return nil
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

// unmarshalElements reads the list of elements of one message of a dump.
func unmarshalElements(b []byte) ([]rawElement, error) {
	ad, err := newDecoder(b)
	if err != nil {
		return nil, err
	}
	var out []rawElement
	for ad.Next() {
		if ad.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		list, err := newDecoder(ad.Bytes())
		if err != nil {
			return nil, err
		}
		for list.Next() {
			e, err := unmarshalElement(list.Bytes())
			if err != nil {
				return nil, err
			}
			out = append(out, e)
		}
		if err := decodeError(list); err != nil {
			return nil, err
		}
	}
	return out, decodeError(ad)
}

func unmarshalElement(b []byte) (rawElement, error) {
	ad, err := newDecoder(b)
	if err != nil {
		return rawElement{}, err
	}
	var e rawElement
	for ad.Next() {
		if err := e.attribute(ad); err != nil {
			return rawElement{}, err
		}
	}
	if len(e.key) == 0 && ad.Err() == nil {
		return rawElement{}, foreign("an element without a key (a catch-all)")
	}
	return e, decodeError(ad)
}

func (r *rawElement) attribute(ad *netlink.AttributeDecoder) error {
	switch ad.Type() {
	case unix.NFTA_SET_ELEM_FLAGS:
		r.end = ad.Uint32()&unix.NFT_SET_ELEM_INTERVAL_END != 0
	case unix.NFTA_SET_ELEM_KEY:
		ad.Nested(func(ad *netlink.AttributeDecoder) error {
			for ad.Next() {
				r.key = ad.Bytes()
			}
			return nil
		})
	case elemAttrKeyEnd:
		return foreign("a concatenated range")
	case unix.NFTA_SET_ELEM_DATA:
		ad.Nested(r.data)
	case unix.NFTA_SET_ELEM_TIMEOUT:
		r.timeout = time.Duration(ad.Uint64()) * timeoutUnit
	case unix.NFTA_SET_ELEM_EXPIRATION:
		r.expires = time.Duration(ad.Uint64()) * timeoutUnit
	case unix.NFTA_SET_ELEM_EXPR:
		op, err := unmarshalOperation(ad.Bytes())
		if err != nil {
			return err
		}
		c, ok := op.(*expr.Counter)
		if !ok {
			return foreign("an element with an expression that decides: %T", op)
		}
		r.packets, r.counted = c.Packets, true
	case elemAttrExpressions:
		return foreign("an element with several expressions")
	case unix.NFTA_SET_ELEM_USERDATA:
		r.comment = commentOf(ad.Bytes(), byte(userdata.NFTNL_UDATA_SET_ELEM_COMMENT))
	}
	return nil
}

func (r *rawElement) data(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		if ad.Type() != unix.NFTA_DATA_VERDICT {
			r.value = ad.Bytes()
			continue
		}
		r.verdict = &expr.Verdict{}
		ad.Nested(func(ad *netlink.AttributeDecoder) error {
			for ad.Next() {
				switch ad.Type() {
				case unix.NFTA_VERDICT_CODE:
					r.verdict.Kind = expr.VerdictKind(ad.Int32())
				case unix.NFTA_VERDICT_CHAIN:
					r.verdict.Chain = ad.String()
				}
			}
			return nil
		})
	}
	return nil
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

// elementsOf is the inverse of rawElements, sorted by key.
func elementsOf(s ruleset.Set, raw []rawElement) ([]ruleset.Element, error) {
	slices.SortFunc(raw, func(a, b rawElement) int {
		if c := bytes.Compare(a.key, b.key); c != 0 || a.end == b.end {
			return c
		}
		if a.end {
			return -1 // where two ranges meet, one ends before the next starts
		}
		return 1
	})
	var out []ruleset.Element
	for i, r := range raw {
		if r.end {
			continue
		}
		e, err := elementOf(s, r)
		if err != nil {
			return nil, err
		}
		if s.Interval {
			e.End = rangeEnd(raw, i)
		}
		out = append(out, e)
	}
	return out, nil
}

func elementOf(s ruleset.Set, r rawElement) (ruleset.Element, error) {
	key, err := unpadKey(s.Key, r.key)
	if err != nil {
		return ruleset.Element{}, fmt.Errorf("set %q: %w", s.Name, err)
	}
	if r.counted && !s.Counter {
		return ruleset.Element{}, foreign("set %q: an element with a counter of its own", s.Name)
	}
	e := ruleset.Element{Key: key, Timeout: r.left(), Comment: r.comment}
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

// rangeEnd is the last key of the range that starts at raw[i].
func rangeEnd(raw []rawElement, i int) ruleset.Key {
	if i+1 < len(raw) {
		return ruleset.Key(predecessor(raw[i+1].key))
	}
	return ruleset.Key(bytes.Repeat([]byte{0xff}, len(raw[i].key)))
}
