package capture

import (
	"bytes"
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
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		n++
	}
	require.Equal(t, len(packets), n)
}
