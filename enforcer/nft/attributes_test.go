package nft

import (
	"encoding/binary"
	"math"
	"testing"
	"time"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// newEncoder is the library's attribute encoder in the byte order of nf_tables.
func newEncoder() *netlink.AttributeEncoder {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	return ae
}

// TestTheEncoderWritesWhatTheLibraryWrites holds the encoder against an independent one.
func TestTheEncoderWritesWhatTheLibraryWrites(t *testing.T) {
	reference := newEncoder()
	reference.Uint8(1, 1)
	reference.Nested(2, func(ae *netlink.AttributeEncoder) error {
		ae.String(3, "abc")
		ae.Nested(4, func(*netlink.AttributeEncoder) error { return nil })
		ae.Bytes(5, []byte("fifth"))
		return nil
	})
	reference.Uint32(6, 1<<31)
	reference.Uint64(7, 1<<63)
	want, err := reference.Encode()
	require.NoError(t, err)

	var e encoder
	e.uint8(1, 1)
	e.nested(2, func() {
		e.string(3, "abc")
		e.nested(4, func() {})
		e.bytes(5, []byte("fifth"))
	})
	e.uint32(6, 1<<31)
	e.uint64(7, 1<<63)
	require.NoError(t, e.err)
	require.Equal(t, want, e.data)
}

func TestAnAttributeThatIsTooLong(t *testing.T) {
	var e encoder
	e.bytes(1, make([]byte, math.MaxUint16-unix.NLA_HDRLEN))
	require.NoError(t, e.err)
	e.bytes(1, make([]byte, math.MaxUint16-unix.NLA_HDRLEN+1))
	require.Error(t, e.err)
}

// requireSameElements compares what was read in two ways.
func requireSameElements(t *testing.T, want, got []rawElement) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, want[i].value != nil, got[i].value != nil)
		require.Equal(t, string(want[i].value), string(got[i].value))
		want[i].value, got[i].value = nil, nil
		require.Equal(t, want[i], got[i])
	}
}

// referenceElements reads a list of elements with the library's decoder: slowly, and by other code.
func referenceElements(b []byte) (out []rawElement, err error) {
	err = referenceEach(b, func(ad *netlink.AttributeDecoder) error {
		if ad.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return nil
		}
		return referenceEach(ad.Bytes(), func(ad *netlink.AttributeDecoder) error {
			var e rawElement
			err := referenceEach(ad.Bytes(), func(ad *netlink.AttributeDecoder) error { return referenceAttribute(&e, ad) })
			out = append(out, e)
			return err
		})
	})
	return out, err
}

func referenceEach(b []byte, fn func(*netlink.AttributeDecoder) error) error {
	ad, err := newDecoder(b)
	if err != nil {
		return err
	}
	for ad.Next() {
		if err := fn(ad); err != nil {
			return err
		}
	}
	return decodeError(ad)
}

func referenceAttribute(e *rawElement, ad *netlink.AttributeDecoder) error {
	switch ad.Type() {
	case unix.NFTA_SET_ELEM_FLAGS:
		e.end = ad.Uint32()&unix.NFT_SET_ELEM_INTERVAL_END != 0
	case unix.NFTA_SET_ELEM_KEY:
		return referenceEach(ad.Bytes(), func(ad *netlink.AttributeDecoder) error { e.key = ad.Bytes(); return nil })
	case unix.NFTA_SET_ELEM_DATA:
		return referenceEach(ad.Bytes(), func(ad *netlink.AttributeDecoder) error {
			if ad.Type() != unix.NFTA_DATA_VERDICT {
				e.value = ad.Bytes()
				return nil
			}
			e.verdict = &expr.Verdict{}
			return referenceEach(ad.Bytes(), func(ad *netlink.AttributeDecoder) error {
				switch ad.Type() {
				case unix.NFTA_VERDICT_CODE:
					e.verdict.Kind = expr.VerdictKind(ad.Int32())
				case unix.NFTA_VERDICT_CHAIN:
					e.verdict.Chain = ad.String()
				}
				return nil
			})
		})
	case unix.NFTA_SET_ELEM_TIMEOUT:
		e.timeout = time.Duration(ad.Uint64()) * timeoutUnit
	case unix.NFTA_SET_ELEM_EXPIRATION:
		e.expires = time.Duration(ad.Uint64()) * timeoutUnit
	case unix.NFTA_SET_ELEM_EXPR:
		e.counted = true
		return referenceEach(ad.Bytes(), func(ad *netlink.AttributeDecoder) error {
			if ad.Type() != unix.NFTA_EXPR_DATA {
				return nil
			}
			e.packets = 0
			return referenceEach(ad.Bytes(), func(ad *netlink.AttributeDecoder) error {
				if ad.Type() == unix.NFTA_COUNTER_PACKETS {
					e.packets = ad.Uint64()
				}
				return nil
			})
		})
	case unix.NFTA_SET_ELEM_USERDATA:
		e.comment = commentOf(ad.Bytes(), byte(userdata.NFTNL_UDATA_SET_ELEM_COMMENT))
	}
	return nil
}
