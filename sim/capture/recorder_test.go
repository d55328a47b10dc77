package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"
)

func TestRecorderKeepsTheLatest(t *testing.T) {
	r := &Recorder{bounds: 3}
	for i := range 5 {
		r.keep(Packet{Seq: uint32(i)})
	}
	var seen []uint32
	for _, p := range r.Latest(func(p Packet) bool { return p.Seq != 3 }) {
		seen = append(seen, p.Seq)
	}
	require.Equal(t, []uint32{2, 4}, seen)
}

// TestRecorderShowsAConnection records one and writes it into a file that a reader takes.
func TestRecorderShowsAConnection(t *testing.T) {
	a, z := pair(t)
	tap, err := Open(z)
	require.NoError(t, err)
	r := Record(tap, 64)
	l, err := z.Listen(t.Context(), netip.AddrPortFrom(addrZ, 5432))
	require.NoError(t, err)
	defer l.Close()
	c, err := a.Dial(t.Context(), netip.AddrPortFrom(addrA, 40000), netip.AddrPortFrom(addrZ, 5432))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, tap.Close()) // what was captured is delivered before
	r.Close()
	packets := r.Latest(func(p Packet) bool { return p.Flow.Src.Port() == 40000 || p.Flow.Dst.Port() == 40000 })
	require.GreaterOrEqual(t, len(packets), 3)
	require.True(t, packets[0].Flags.Has(SYN))
	require.False(t, packets[0].Outgoing)

	var file bytes.Buffer
	w := NewWriter(&file)
	for _, p := range packets {
		require.NoError(t, w.Write("z", p))
	}
	require.NoError(t, w.Flush())
	reader, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
	require.NoError(t, err)
	n := 0
	for {
		_, _, err := reader.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		n++
	}
	require.Equal(t, len(packets), n)
}

// TestSecretsStandBeforeThePacketsTheyAreFor writes one by hand between packets, and has a reader take all of it.
func TestSecretsStandBeforeThePacketsTheyAreFor(t *testing.T) {
	var file bytes.Buffer
	w := NewWriter(&file)
	require.Error(t, w.Secrets([]byte("x")), "a section has to begin first")
	require.NoError(t, w.Declare("a", "eth0"))
	p := Packet{Iface: "eth0", Raw: make([]byte, 61), Length: 61}
	require.NoError(t, w.Write("a", p, "first"))
	require.NoError(t, w.Secrets([]byte("CLIENT_RANDOM 01 02\n"))) // 20 bytes
	require.NoError(t, w.Secrets([]byte("CLIENT_RANDOM 01 023\n")))
	require.NoError(t, w.Write("a", p, "second", "again"))
	require.NoError(t, w.Flush())

	var kinds []uint32
	for b := file.Bytes(); len(b) > 0; {
		size := binary.LittleEndian.Uint32(b[4:])
		require.Zero(t, size%4)
		require.Equal(t, size, binary.LittleEndian.Uint32(b[size-4:]), "the length stands at both ends")
		kinds = append(kinds, binary.LittleEndian.Uint32(b))
		b = b[size:]
	}
	require.Equal(t, []uint32{0x0a0d0d0a, 1, 6, 10, 10, 6}, kinds, "section, interface, packet, secrets, packet")
	require.Contains(t, file.String(), "KSLT\x14\x00\x00\x00CLIENT_RANDOM 01 02\n")

	reader, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
	require.NoError(t, err)
	for _, want := range [][]string{{"first"}, {"second", "again"}} {
		_, _, options, err := reader.ReadPacketDataWithOptions()
		require.NoError(t, err)
		require.Equal(t, want, options.Comments)
	}
}
