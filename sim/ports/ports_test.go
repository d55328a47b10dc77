package ports_test

import (
	"slices"
	"sync"
	"testing"

	"drawbridge/sim/ports"

	"github.com/stretchr/testify/require"
)

func nobody(uint16) bool { return false }

func TestNoTwoOwnersShareAPort(t *testing.T) {
	owners := []ports.Range{ports.Streams, ports.Probes, ports.Kernel, ports.Evasions, ports.Troubles, ports.Floods}
	slices.SortFunc(owners, func(a, b ports.Range) int { return int(a.First) - int(b.First) })
	for i, r := range owners {
		require.Greater(t, r.First, uint16(1023), "a privileged port")
		require.Less(t, r.First, r.Last)
		if i > 0 {
			require.Greater(t, r.First, owners[i-1].Last)
		}
	}
}

func TestAHeldPortIsNobodyElses(t *testing.T) {
	p := ports.NewPool(ports.Range{First: 65531, Last: 65535}, func(port uint16) bool { return port == 65533 })
	var got []uint16
	for range 4 {
		port, err := p.Take()
		require.NoError(t, err)
		got = append(got, port)
	}
	require.Equal(t, []uint16{65531, 65532, 65534, 65535}, got, "all but the server's")
	_, err := p.Take()
	require.ErrorIs(t, err, ports.ErrExhausted)
	p.Give(65534)
	port, err := p.Take()
	require.NoError(t, err)
	require.Equal(t, uint16(65534), port)
}

func TestTheLongestUnusedPortComesFirst(t *testing.T) {
	p := ports.NewPool(ports.Range{First: 10, Last: 12}, nobody)
	for _, want := range []uint16{10, 11, 12, 10} {
		port, err := p.Take()
		require.NoError(t, err)
		require.Equal(t, want, port)
		p.Give(port)
	}
}

func TestARowIsInOnePiece(t *testing.T) {
	p := ports.NewPool(ports.Range{First: 10, Last: 19}, func(port uint16) bool { return port == 13 })
	for _, want := range []uint16{10, 14} { // not across the server's
		first, err := p.TakeRow(3)
		require.NoError(t, err)
		require.Equal(t, want, first)
	}
	_, err := p.TakeRow(4) // not around the end
	require.ErrorIs(t, err, ports.ErrExhausted)
	p.Give(14, 15, 16)
	first, err := p.TakeRow(6)
	require.NoError(t, err)
	require.Equal(t, uint16(14), first)
}

func TestPortsAreHandedOutOnceAtATime(t *testing.T) {
	p := ports.NewPool(ports.Range{First: 1000, Last: 1007}, nobody)
	var mu sync.Mutex
	inUse := map[uint16]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				port, err := p.Take()
				mu.Lock()
				bad := err != nil || inUse[port]
				inUse[port] = true
				mu.Unlock()
				if bad {
					t.Errorf("port %d twice (%v)", port, err)
				}
				mu.Lock()
				inUse[port] = false
				mu.Unlock()
				p.Give(port)
			}
		})
	}
	wg.Wait()
}
