package enforcer_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
)

// behind is a gateway's policy for the test host: its database has the host's address as endpoint.
func behind(rules string) []byte {
	return fmt.Appendf(nil, `{"version": 1, "point": {"name": "gw", "model": "dedicated"}, "region": {"name": "r", "networks": []},
		"managed_ranges": {"fr1": ["10.10.0.0/30"], "fr2": ["192.0.2.0/24"]},
		"databases": [{"name": "docs", "model": "dedicated", "engine": "mongodb", "force_tls": false,
			"endpoints": [{"kind": "public-rw", "address": "10.10.0.1", "port": 27017, "family": "ipv4", "tls": "either"}],
			"nodes": [{"name": "one", "here": true, "addresses": ["10.64.2.1"], "ports": [{"port": 27017, "tls": "either"}]}],
			"firewall_rules": [%s]}]}`, rules)
}

func (h *host) hits(t *testing.T, document []byte) (hits []enforcer.Hit) {
	t.Helper()
	require.NoError(t, h.host.Do(func() (err error) {
		hits, _, err = enforcer.ReadHits(t.Context(), document, enforcer.Options{})
		return err
	}))
	return hits
}

func packets(hits []enforcer.Hit) map[int]uint64 {
	out := map[int]uint64{}
	for _, h := range hits {
		out[h.Rule] = h.Packets
	}
	return out
}

// TestHits: each rule that covers a client counts its packets, and goes on counting while others change.
func TestHits(t *testing.T) {
	h := newHost(t)
	const around, one, elsewhere = `{"type": "custom_range", "cidr": "10.10.0.0/24"}`, `{"type": "custom_range", "cidr": "10.10.0.2/32"}`, `{"type": "custom_range", "cidr": "192.0.2.0/24", "label": "old"}`
	document := behind(around + "," + one + "," + elsewhere)
	mustApply(t, h.host, document)
	c, _ := h.dial(t, false)
	require.NoError(t, say(c))
	hits := h.hits(t, document)
	require.Equal(t, []any{3, uint64(0), "rule 3, custom range 192.0.2.0/24 (old)"}, []any{hits[0].Rule, hits[0].Packets, hits[0].Words}, "unused ones first")
	n := packets(hits)
	require.GreaterOrEqual(t, n[1], uint64(5), "handshake, question, answer")
	require.Equal(t, n[1], n[2], "both cover it")

	more := behind(around + "," + one + "," + `{"type": "custom_range", "cidr": "198.18.0.0/24"}`)
	mustApply(t, h.host, more)
	require.GreaterOrEqual(t, packets(h.hits(t, more))[1], n[1], "the change was elsewhere")
	require.True(t, func() bool { v := verify(t, h.host, string(more)); return v.Proven }(), "counts are no difference")
}

// TestHitsOfManagedRanges: only the range's own clients count.
func TestHitsOfManagedRanges(t *testing.T) {
	h := newHost(t)
	document := behind(`{"type": "managed_range", "name": "fr2"}, {"type": "managed_range", "name": "fr1"}`)
	mustApply(t, h.host, document)
	c, _ := h.dial(t, false)
	require.NoError(t, say(c))
	n := packets(h.hits(t, document))
	require.Zero(t, n[1])
	require.GreaterOrEqual(t, n[2], uint64(5))
}

// TestLastSeen: a rule was seen when its count grew between two looks.
func TestLastSeen(t *testing.T) {
	var m enforcer.HitMemory
	at := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	look := func(minute int, a, b uint64) []enforcer.Hit {
		return m.Observe([]enforcer.Hit{{Database: "x", Words: "a", Packets: a}, {Database: "x", Words: "b", Packets: b}}, at.Add(time.Duration(minute)*time.Minute))
	}
	first := look(0, 5, 0)
	require.True(t, first[0].LastSeen.IsZero(), "before the first look: nobody knows when")
	second := look(1, 6, 0)
	require.Equal(t, at.Add(time.Minute), second[0].LastSeen)
	require.True(t, second[1].LastSeen.IsZero())
	third := look(2, 6, 1)
	require.Equal(t, at.Add(time.Minute), third[0].LastSeen)
	require.Equal(t, at.Add(2*time.Minute), third[1].LastSeen)
	require.Equal(t, at.Add(3*time.Minute), look(3, 1, 1)[0].LastSeen, "it began anew")
}

// TestHitsOfAnotherPolicy: rules that are not in force are used by nobody, which says nothing about them.
func TestHitsOfAnotherPolicy(t *testing.T) {
	h := newHost(t)
	const one, other, moved = `{"type": "custom_range", "cidr": "10.10.0.0/24"}`, `{"type": "custom_range", "cidr": "10.10.0.0/23"}`, `{"type": "managed_range", "name": "fr2"}`
	mustApply(t, h.host, behind(one))
	read := func(document []byte) (marks map[int]bool, inForce bool) {
		require.NoError(t, h.host.Do(func() error {
			hits, is, err := enforcer.ReadHits(t.Context(), document, enforcer.Options{})
			marks, inForce = map[int]bool{}, is
			for _, hit := range hits {
				marks[hit.Rule] = hit.NotInForce
			}
			return err
		}))
		return marks, inForce
	}
	marks, inForce := read(behind(one))
	require.True(t, inForce)
	require.Equal(t, map[int]bool{1: false}, marks)
	marks, inForce = read(behind(one + "," + moved + "," + other))
	require.False(t, inForce)
	require.Equal(t, map[int]bool{1: false, 2: true, 3: true}, marks, "the first one is in force")
	elsewhere := bytes.Replace(behind(`{"type": "custom_range", "cidr": "198.18.0.0/24"}`), []byte("10.10.0.1"), []byte("10.10.0.9"), 1)
	marks, inForce = read(elsewhere)
	require.False(t, inForce)
	require.Equal(t, map[int]bool{1: true}, marks, "everybody passes there, as nothing is protected")
}
