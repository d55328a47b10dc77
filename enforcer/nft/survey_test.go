package nft

import (
	"encoding/binary"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// expression is one expression of a rule as the kernel dumps it.
func expression(t require.TestingT, name string, attributes func(*netlink.AttributeEncoder)) []byte {
	data := newEncoder()
	attributes(data)
	encoded, err := data.Encode()
	require.NoError(t, err)
	ae := newEncoder()
	ae.Nested(unix.NFTA_LIST_ELEM, func(ae *netlink.AttributeEncoder) error {
		ae.String(unix.NFTA_EXPR_NAME, name)
		ae.Bytes(unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, encoded)
		return nil
	})
	list, err := ae.Encode()
	require.NoError(t, err)
	return list
}

// connmark is a CONNMARK target of iptables-nft.
func connmark(t require.TestingT, revision uint32, mode byte, value, mask, third uint32) []byte {
	info := binary.NativeEndian.AppendUint32(nil, value)
	info = binary.NativeEndian.AppendUint32(info, mask)
	info = binary.NativeEndian.AppendUint32(info, third)
	if revision >= 2 {
		info = append(info, 0, 0)
	}
	info = append(info, mode, 0, 0, 0)
	return expression(t, "target", func(ae *netlink.AttributeEncoder) {
		ae.String(targetName, "CONNMARK")
		ae.Uint32(targetRevision, revision)
		ae.Bytes(targetInfo, info)
	})
}

// TestForeignRules of iptables, which this machine's nft does not write. Those of nft are tried with nft (enforcer.TestExamine).
func TestForeignRules(t *testing.T) {
	for _, tt := range []struct {
		name     string
		list     []byte
		marks    uint32
		untracks bool
	}{
		{"set under a mask", connmark(t, 1, 0, 0x4000, 0x4000, ^uint32(0)), 0x4000, false},
		{"set xor", connmark(t, 1, 0, 0x3, 0, 0), 0x3, false},
		{"save under masks", connmark(t, 1, 1, 0, 0xff, 0xf00), 0xfff, false},
		{"restore", connmark(t, 1, connmarkRestore, 0, ^uint32(0), ^uint32(0)), 0, false},
		{"set, revision 2", connmark(t, 2, 0, 0x8000, 0x8000, 0), 0x8000, false},
		{"restore, revision 2", connmark(t, 2, connmarkRestore, 0x1, 0x1, 0x1), 0, false},
		{"cut off", expression(t, "target", func(ae *netlink.AttributeEncoder) { ae.String(targetName, "CONNMARK") }), ^uint32(0), false},
		{"CT --notrack", expression(t, "target", func(ae *netlink.AttributeEncoder) {
			ae.String(targetName, "CT")
			ae.Bytes(targetInfo, binary.NativeEndian.AppendUint16(nil, ctTargetUntracks))
		}), 0, true},
		{"CT --zone", expression(t, "target", func(ae *netlink.AttributeEncoder) {
			ae.String(targetName, "CT")
			ae.Bytes(targetInfo, []byte{0, 0, 7, 0})
		}), 0, false},
		{"never heard of", expression(t, "tomorrow", func(ae *netlink.AttributeEncoder) { ae.Uint64(1, 1) }), 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := decodeForeign(tt.list)
			require.NoError(t, err)
			require.Equal(t, tt.marks, r.marks)
			require.Equal(t, tt.untracks, r.untracks)
		})
	}
}

// FuzzForeign: whatever another program's rule or flow table looks like, reading it ends.
func FuzzForeign(f *testing.F) {
	f.Add(connmark(f, 1, 0, 1, 2, 3))
	f.Add(expression(f, "ct", func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.NFTA_CT_KEY, unix.NFT_CT_MARK)
		ae.Uint32(unix.NFTA_CT_SREG, 1)
	}))
	f.Add([]byte{})
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = decodeForeign(b)
		_, _ = decodeFlowtable(b)
		var s Survey
		_ = s.rule(netlink.Message{Data: b}, "own")
	})
}
