package ruleset_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/ruleset"
	"drawbridge/sim/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

var update = flag.Bool("update", false, "write the golden files")

func host(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// everything uses every statement, field and kind of set that there is.
func everything() ruleset.Table {
	f := ruleset.F
	fields := func(k ...ruleset.FieldKind) []ruleset.Field {
		var out []ruleset.Field
		for _, kind := range k {
			out = append(out, f(kind))
		}
		return out
	}
	match := func(k ruleset.FieldKind, op ruleset.Op, v ...byte) ruleset.Statement {
		return ruleset.Match{Field: f(k), Op: op, Value: v}
	}
	rule := func(s ...ruleset.Statement) ruleset.Rule { return ruleset.Rule{Statements: s} }
	tcp := match(ruleset.MetaL4Proto, ruleset.Eq, 6)
	name := func(s string) []byte { return append([]byte(s), make([]byte, 16-len(s))...) }
	return ruleset.Table{Family: ruleset.FamilyINET, Name: "everything", Sets: []ruleset.Set{
		{Name: "plain", Key: []ruleset.DataType{ruleset.TypeIPv4Addr, ruleset.TypeInetService}, Counter: true, Elements: []ruleset.Element{
			{Key: "\x0a\x00\x00\x02\x15\x38"}, {Key: "\x0a\x00\x00\x01\x15\x38", Comment: `say "it"`}}},
		{Name: "ranges4", Key: []ruleset.DataType{ruleset.TypeIPv4Addr}, Interval: true, Elements: []ruleset.Element{
			{Key: "\x0a\x00\x00\x00", End: "\x0a\x00\x00\xff"}, {Key: "\x0a\x00\x01\x01", End: "\x0a\x00\x01\x01"}, {Key: "\x0a\x00\x01\x05", End: "\x0a\x00\x01\x07"}}},
		{Name: "ranges6", Key: []ruleset.DataType{ruleset.TypeIPv6Addr}, Interval: true, Elements: []ruleset.Element{
			{Key: ruleset.Key(make([]byte, 16)), End: ruleset.Key(bytes.Repeat([]byte{0xff}, 16))}}},
		{Name: "names", Key: []ruleset.DataType{ruleset.TypeIfname}, Elements: []ruleset.Element{{Key: ruleset.Key(name("eth0"))}}},
		{Name: "timed", Key: []ruleset.DataType{ruleset.TypeInetService}, HasTimeout: true, Elements: []ruleset.Element{{Key: "\x15\x38", Timeout: 26*time.Hour + 90*time.Second + 5*time.Millisecond}}},
		{Name: "filled", Key: []ruleset.DataType{ruleset.TypeMark, ruleset.TypeMark}, Dynamic: true, Timeout: 10 * time.Second, Size: 100},
		{Name: "marks", Key: []ruleset.DataType{ruleset.TypeMark}, Elements: []ruleset.Element{{Key: ruleset.Key(host(0x00f00000))}}},
		{Name: "verdicts", Key: []ruleset.DataType{ruleset.TypeInetService}, Verdicts: true, Elements: []ruleset.Element{
			{Key: "\x00\x01", Verdict: ruleset.Verdict{Kind: ruleset.Jump, Chain: "leaf"}}, {Key: "\x00\x02", Verdict: ruleset.Verdict{Kind: ruleset.Goto, Chain: "leaf"}},
			{Key: "\x00\x03", Verdict: accept}, {Key: "\x00\x04", Verdict: drop, Comment: "no"}}},
	}, Chains: []ruleset.Chain{
		{Name: "leaf", Rules: []ruleset.Rule{rule(ruleset.Verdict{Kind: ruleset.Return})}},
		{Name: "early", Hook: ruleset.HookPrerouting, Priority: -310, Policy: accept, Rules: []ruleset.Rule{
			rule(match(ruleset.MetaIIF, ruleset.Eq, host(1)...), accept),
			rule(match(ruleset.MetaIIF, ruleset.Neq, host(7)...), ruleset.NoTrack{}),
			rule(match(ruleset.MetaIIFName, ruleset.Eq, name("eth0")...), ruleset.Counter{}),
			rule(ruleset.InSet{Key: fields(ruleset.MetaIIFName), Set: "names"}, drop),
			rule(match(ruleset.MetaNFProto, ruleset.Eq, 2), match(ruleset.IPSaddr, ruleset.Eq, 10, 0, 0, 1), ruleset.Verdict{Kind: ruleset.Goto, Chain: "leaf"}),
			rule(match(ruleset.MetaNFProto, ruleset.Eq, 10), match(ruleset.IP6Daddr, ruleset.Neq, make([]byte, 16)...), ruleset.Verdict{Kind: ruleset.Jump, Chain: "leaf"}),
			rule(match(ruleset.FibSaddrIIFOIF, ruleset.Eq, host(0)...), drop),
			rule(ruleset.Match{Field: f(ruleset.IPFragOff), Mask: []byte{0x3f, 0xff}, Op: ruleset.Neq, Value: []byte{0, 0}}, drop),
			rule(match(ruleset.ExthdrFragExists, ruleset.Eq, 1), drop),
			rule(match(ruleset.ExthdrFragExists, ruleset.Eq, 0), accept),
		}},
		{Name: "late", Hook: ruleset.HookPrerouting, Priority: -150, Policy: accept, Rules: []ruleset.Rule{
			rule(match(ruleset.MetaL4Proto, ruleset.Eq, 17), accept),
			rule(match(ruleset.MetaL4Proto, ruleset.Eq, 132), drop),
			rule(tcp, ruleset.InSet{Key: fields(ruleset.IPDaddr, ruleset.THDport), Set: "plain", Negate: true}, accept),
			rule(tcp, ruleset.VerdictMap{Key: fields(ruleset.THDport), Map: "verdicts"}),
			rule(ruleset.Match{Field: f(ruleset.TCPFlags), Mask: []byte{0x12}, Op: ruleset.Eq, Value: []byte{0x12}}, ruleset.Reject{TCPReset: true}),
			rule(ruleset.Match{Field: f(ruleset.TCPFlags), Mask: []byte{0x02}, Op: ruleset.Eq, Value: []byte{0}}, accept),
			rule(ruleset.Match{Field: f(ruleset.CTState), Mask: host(65), Op: ruleset.Neq, Value: host(0)}, drop),
			rule(match(ruleset.CTDirection, ruleset.Eq, 1), accept),
			rule(ruleset.Match{Field: f(ruleset.CTMark), Mask: host(0x00f00000), Op: ruleset.Eq, Value: host(0x00700000)}, accept),
			rule(ruleset.InAnonymous{Field: f(ruleset.CTMark), Mask: host(0x00f00000), Values: [][]byte{host(0), host(0x00100000)}}, accept),
			rule(ruleset.InAnonymous{Field: f(ruleset.CTMark), Mask: host(0x00f00000), Values: [][]byte{host(0)}, Negate: true}, drop),
			rule(tcp, ruleset.Match{Field: ruleset.InnerField(5, 2), Op: ruleset.Eq, Value: []byte{1, 0}}, drop),
			rule(tcp, ruleset.Match{Field: ruleset.InnerField(0, 1), Op: ruleset.Gte, Value: []byte{0}}, drop),
			rule(tcp, ruleset.InAnonymous{Field: ruleset.InnerField(0, 3), Values: [][]byte{{0x16, 3, 1}, {0x16, 3, 3}}}, accept),
			rule(tcp, ruleset.InSet{Key: fields(ruleset.CTID, ruleset.TCPSeq), Set: "filled"}, drop),
			rule(ruleset.Dynset{Op: ruleset.AddElement, Key: fields(ruleset.CTID, ruleset.TCPAckSeq), Set: "filled"}, accept),
			rule(ruleset.Dynset{Op: ruleset.UpdateElement, Key: fields(ruleset.CTID, ruleset.TCPAckSeq), Set: "filled", Timeout: 10 * time.Minute}, accept),
			rule(ruleset.Dynset{Op: ruleset.DeleteElement, Key: fields(ruleset.CTID, ruleset.TCPSeq), Set: "filled"}),
			rule(ruleset.SetMark{Mask: 0x00f00000, Value: 0x00700000}),
			rule(tcp, ruleset.ResetTCPOption{Kind: 30}),
			rule(match(ruleset.TCPOptionMPTCP, ruleset.Eq, 1), drop),
			rule(match(ruleset.TCPOptionFastOpen, ruleset.Eq, 0), accept),
			rule(match(ruleset.ICMPType, ruleset.Eq, 8), ruleset.Reject{}),
			rule(ruleset.InAnonymous{Field: f(ruleset.ICMPv6Type), Values: [][]byte{{135}, {136}}}, accept),
			rule(ruleset.Limit{Rate: 10, Burst: 20}, ruleset.Log{Group: 5, Prefix: "denied ", Snaplen: 128}),
			{Statements: []ruleset.Statement{ruleset.Counter{}, drop}, Comment: "the rest"},
		}},
		{Name: "out", Hook: ruleset.HookPostrouting, Priority: 150, Policy: drop, Rules: []ruleset.Rule{
			rule(match(ruleset.MetaOIF, ruleset.Eq, host(1)...), accept),
			rule(match(ruleset.MetaOIFName, ruleset.Neq, name("eth0")...), accept),
			rule(match(ruleset.THSport, ruleset.Gte, 4, 0), drop),
		}},
	}}
}

func TestPrint(t *testing.T) {
	got := ruleset.Print(everything())
	if *update {
		require.NoError(t, os.WriteFile("testdata/everything.nft", []byte(got), 0o644))
	}
	want, err := os.ReadFile("testdata/everything.nft")
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// TestNftReadsIt: what is printed is nft(8) syntax, all of it.
func TestNftReadsIt(t *testing.T) {
	path := netnstest.Tool(t, "nft")
	ns := netnstest.New(t)
	var errs bytes.Buffer
	cmd := exec.Command(path, "-c", "-f", "-")
	cmd.Stdin, cmd.Stderr = strings.NewReader(ruleset.Print(everything())), &errs
	require.NoError(t, ns.Start(cmd))
	require.NoError(t, cmd.Wait(), errs.String())
}

// nft(8) refuses a rule that names a counter which nobody declared.
func TestPrintDeclaresNamedCountersOnce(t *testing.T) {
	rules := []ruleset.Rule{
		{Statements: []ruleset.Statement{ruleset.Counter{Name: "seen"}}},
		{Statements: []ruleset.Statement{ruleset.Counter{Name: "seen"}, ruleset.Counter{}}},
	}
	got := ruleset.Print(ruleset.Table{Family: ruleset.FamilyINET, Name: "t", Chains: []ruleset.Chain{{Name: "c", Rules: rules}}})
	require.Equal(t, 1, strings.Count(got, "\tcounter seen {"), got)
}
