package nft

import (
	"errors"
	"testing"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/ruleset"
)

// sampleMessages are the attributes of everything that the sample table sends.
func sampleMessages(f testing.TB) map[netlink.HeaderType][][]byte {
	messages, err := encodeReplace(sampleTable(), true, 1, false)
	require.NoError(f, err)
	out := map[netlink.HeaderType][][]byte{}
	for _, m := range messages {
		out[m.Header.Type] = append(out[m.Header.Type], payload(m))
	}
	return out
}

func mustBeForeign(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, ErrForeign) {
		t.Fatalf("an undecodable table must be called foreign: %v", err)
	}
}

// FuzzUnmarshalRule: whatever the kernel shows, decoding ends with a rule or with ErrForeign, and a rule that decoded
// is one that encodes to the same rule again.
func FuzzUnmarshalRule(f *testing.F) {
	for _, b := range sampleMessages(f)[messageType(unix.NFT_MSG_NEWRULE)] {
		f.Add(b)
	}
	anonymous := map[string][][]byte{anonymousName: {{6}, {17}}}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, rule, err := unmarshalRule(b, anonymous)
		mustBeForeign(t, err)
		if err != nil {
			return
		}
		batch := newBatch(ruleset.FamilyINET, "t")
		batch.addRules("c", []ruleset.Rule{rule})
		if batch.err != nil {
			return // nobody could have written it through this package: Diff sees another rule and replaces it
		}
		_, again, err := unmarshalRule(payload(batch.messages[len(batch.messages)-1]), anonymous)
		require.NoError(t, err)
		require.Equal(t, rule, again)
	})
}

func FuzzUnmarshalSet(f *testing.F) {
	for _, b := range sampleMessages(f)[messageType(unix.NFT_MSG_NEWSET)] {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := unmarshalSet(b)
		mustBeForeign(t, err)
		if err != nil || s.anonymous || checkSet(s.set) != nil {
			return
		}
		var encoded encoder
		require.NoError(t, encodeSet(&encoded, "t", s.set, 1))
		again, err := unmarshalSet(encoded.data)
		require.NoError(t, err)
		require.Equal(t, s.set, again.set)
	})
}

func FuzzUnmarshalElements(f *testing.F) {
	for _, b := range sampleMessages(f)[messageType(unix.NFT_MSG_NEWSETELEM)] {
		f.Add(b, byte(0))
		f.Add(b, byte(4))
	}
	sets := sampleSets()
	f.Fuzz(func(t *testing.T, b []byte, which byte) {
		var raw rawSet
		err := raw.take(b)
		mustBeForeign(t, err)
		if err != nil {
			return
		}
		reference, err := referenceElements(b)
		require.NoError(t, err)
		requireSameElements(t, reference, raw.elements)
		_, err = raw.elementsOf(sets[int(which)%len(sets)])
		mustBeForeign(t, err)
	})
}

func FuzzUnmarshalChain(f *testing.F) {
	for _, b := range sampleMessages(f)[messageType(unix.NFT_MSG_NEWCHAIN)] {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, err := unmarshalChain(b)
		mustBeForeign(t, err)
	})
}

func TestIntervalsDecodeToClosedRanges(t *testing.T) {
	set := ruleset.Set{Name: "s", Key: []ruleset.DataType{ruleset.TypeIPv4Addr}, Interval: true}
	tests := map[string][]ruleset.Element{
		"everything":                {ranged("0.0.0.0", "255.255.255.255")},
		"the last address":          {ranged("255.255.255.255", "255.255.255.255")},
		"the first address":         {ranged("0.0.0.0", "0.0.0.0")},
		"neighbours":                {ranged("10.0.0.0", "10.0.0.255"), ranged("10.0.1.0", "10.0.1.0"), ranged("10.0.1.1", "10.0.1.255")},
		"carry over several octets": {ranged("10.0.0.0", "10.255.255.255"), ranged("11.0.0.0", "11.0.0.0")},
		"up to the end":             {ranged("1.0.0.0", "1.0.0.1"), ranged("255.255.255.254", "255.255.255.255")},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			var raw rawSet
			require.NoError(t, raw.put(set, want))
			got, err := raw.elementsOf(set)
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

// What this package would not write is not read as something similar.
func TestForeignExpressionsAreNotMistaken(t *testing.T) {
	load := &expr.Ct{Key: expr.CtKeyMARK, Register: 1}
	masked := func(xor byte) *expr.Bitwise {
		return &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: []byte{0, 0, 0xf0, 0}, Xor: []byte{0, 0, xor, 0}}
	}
	cmp := &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, 0, 0, 0}}
	for name, ops := range map[string][]operation{
		"a changed value is compared": {load, masked(0x10), cmp},
		"masked twice":                {load, masked(0), masked(0), cmp},
		"masked in a named set":       {load, masked(0), &expr.Lookup{SourceRegister: 1, SetName: "classes"}},
		"compared in part":            {load, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0}}},
		"loaded twice":                {load, load, cmp},
		"loaded and left":             {load},
		"nothing loaded":              {cmp},
		"a mark written unmasked":     {load, &expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true}},
		"something else written":      {load, masked(0), &expr.Ct{Key: expr.CtKeyZONE, Register: 1, SourceRegister: true}},
		"a header written":            {&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}},
		"a payload of another length": {&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 3}, cmp},
		"a fib of another sort":       {&expr.Fib{Register: 1, FlagSADDR: true, ResultOIF: true}, cmp},
		"data from a map":             {load, &expr.Lookup{SourceRegister: 1, SetName: "classes", IsDestRegSet: true, DestRegister: 1}},
		"a dynset with a limit":       {load, &expr.Dynset{SrcRegKey: 1, SetName: "seen", Exprs: []expr.Any{&expr.Limit{}}}},
		"a log to the kernel's log":   {&expr.Log{Key: 1 << unix.NFTA_LOG_LEVEL}},
		"an ICMP error of our own":    {&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 1}},
		"to user space":               {&expr.Verdict{Kind: expr.VerdictQueue}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decodeRule(ops, func(string, uint32) ([][]byte, bool) { return nil, false })
			require.ErrorIs(t, err, ErrForeign)
		})
	}
}

func TestRegistersHaveTwoNames(t *testing.T) {
	for index, numbers := range map[int][]uint32{0: {1, 8}, 4: {2, 12}, 8: {3, 16}, 12: {4, 20}, 1: {9}, 15: {23}} {
		for _, number := range numbers {
			got, err := registerIndex(number)
			require.NoError(t, err)
			require.Equal(t, index, got)
		}
	}
	for _, number := range []uint32{0, 5, 7, 24, 1 << 31} {
		_, err := registerIndex(number)
		require.ErrorIs(t, err, errOutOfRange)
	}
}

// TestAnElementWithAnExpression: whatever an element does besides being there is not the element that was written.
func TestAnElementWithAnExpression(t *testing.T) {
	element := func(e expr.Any) []byte {
		var out encoder
		rawElement{key: addr("192.0.2.1")}.encode(&out)
		data, err := expr.Marshal(familyINET, e)
		require.NoError(t, err)
		out.bytes(unix.NFTA_SET_ELEM_EXPR|unix.NLA_F_NESTED, data)
		require.NoError(t, out.err)
		return out.data
	}
	plain := ruleset.Set{Name: "s", Key: []ruleset.DataType{ruleset.TypeIPv4Addr}}
	_, err := unmarshalElement(element(&expr.Limit{Type: expr.LimitTypePkts, Rate: 1, Unit: expr.LimitTimeSecond}))
	require.ErrorIs(t, err, ErrForeign)
	raw, err := unmarshalElement(element(&expr.Counter{Packets: 7}))
	require.NoError(t, err)
	_, err = elementOf(plain, raw)
	require.ErrorIs(t, err, ErrForeign, "a counter where the set has none")
	plain.Counter = true
	_, err = elementOf(plain, raw)
	require.NoError(t, err)
}
