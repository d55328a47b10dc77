//go:build !operator

package main

import (
	"crypto/tls"
	"fmt"
	"testing"
	"time"

	"drawbridge/sim/trouble"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

// troubles is every kind of ordinary trouble at an endpoint.
func troubles(to topology.Endpoint) []trouble.Case {
	small := []tls.CurveID{tls.X25519}
	all := append(split(to), trouble.Case{To: to, Groups: small}, trouble.Case{To: to, Groups: small, Idle: time.Second},
		trouble.Case{To: to, Groups: small, Delay: 20 * time.Millisecond})
	for _, way := range []trouble.Way{trouble.Up, trouble.Down} {
		for _, accident := range []trouble.Accident{trouble.Lost, trouble.Repeated, trouble.Swapped} {
			for n := 1; n <= 6; n++ {
				all = append(all, trouble.Case{To: to, Way: way, Packet: n, Accident: accident, Groups: small})
			}
		}
	}
	return all
}

// split are handshakes whose ClientHello takes several segments: Go's own with a post-quantum key share takes two.
func split(to topology.Endpoint) []trouble.Case {
	small, least := []tls.CurveID{tls.X25519}, 7
	if to.TLS == topology.TLSEither {
		least = 11 // what the reference enforcer needs to tell a ClientHello from a command of MongoDB
	}
	return []trouble.Case{
		{To: to}, {To: to, MSS: 536}, {To: to, Piece: 100, Groups: small}, {To: to, Piece: least, Groups: small},
		{To: to, Delay: 20 * time.Millisecond}, {To: to, Delay: 20 * time.Millisecond, MSS: 536},
	}
}

// allowed is how many retransmissions a connection may need (SPEC X-08): one, besides that of a packet that was lost or late.
func allowed(r trouble.Result) int {
	if r.Happened && r.Case.Accident != trouble.Repeated {
		return 2
	}
	return 1
}

// severalSegments is what a ClientHello of several segments may cost, by engine, where nothing between client and gate puts
// them together again (as network cards do): the second is dropped until the server has acknowledged the first, and a
// PostgreSQL server that has just answered the request takes up to 40 ms for that (net.ipv4's delayed acknowledgement).
var severalSegments = map[topology.Engine]int{topology.PostgreSQL: 3}

// TestOrdinaryTrouble makes connections of real clients over a bad wire, without the enforcer and with it.
func TestOrdinaryTrouble(t *testing.T) {
	a := newArena(t, false)
	wire, err := trouble.Lay(t.Context(), a.lab, evader)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, wire.Close()) })
	var cases []trouble.Case
	for _, e := range a.forced() {
		cases = append(cases, troubles(e)...)
	}
	free, err := wire.RunAll(t.Context(), cases)
	require.NoError(t, err)
	a.enforce(t, nil)
	forced, err := wire.RunAll(t.Context(), cases)
	require.NoError(t, err)
	counts := map[string]int{}
	for i, r := range forced {
		require.True(t, free[i].Served, "without an enforcer: %s: %s", r.Case, free[i].Error)
		require.True(t, r.Served, "%s: %s", r.Case, r.Error)
		limit := max(allowed(r), free[i].Retransmissions+1)
		if r.Case.Accident == 0 && (r.Case.Piece > 0 || len(r.Case.Groups) == 0) {
			t.Logf("%s: %d retransmissions in %s, without an enforcer %d in %s", r.Case, r.Retransmissions, r.Took.Round(time.Millisecond), free[i].Retransmissions, free[i].Took.Round(time.Millisecond))
		}
		if r.Case.Groups == nil || r.Case.Piece > 0 || r.Case.MSS > 0 {
			limit = max(limit, severalSegments[r.Case.To.Engine])
		}
		if r.Retransmissions > limit {
			t.Errorf("%s: %d retransmissions in %s, without an enforcer %d", r.Case, r.Retransmissions, r.Took, free[i].Retransmissions)
		}
		counts[fmt.Sprintf("%d with, %d without", r.Retransmissions, free[i].Retransmissions)]++
	}
	t.Logf("%d connections, retransmissions: %v", len(cases), counts)
}

// TestOnTheDatabaseHostNothingIsRetransmitted: without accidents, and with the ClientHello in one segment, nothing is.
func TestOnTheDatabaseHostNothingIsRetransmitted(t *testing.T) {
	a := newArena(t, false)
	wire, err := trouble.Lay(t.Context(), a.lab, evader)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, wire.Close()) })
	a.enforce(t, nil)
	for _, e := range a.forced() {
		r, err := wire.Run(t.Context(), trouble.Case{To: e, Groups: []tls.CurveID{tls.X25519}})
		require.NoError(t, err)
		require.True(t, r.Served, "%s: %s", r.Case, r.Error)
		require.Zero(t, r.Retransmissions, r.Case)
	}
}
