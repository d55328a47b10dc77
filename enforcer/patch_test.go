package enforcer_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer"
	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/policy/policytest"
	"drawbridge/enforcer/ruleset"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

// point is a policy that changes.
type point struct {
	model     string
	databases []map[string]any
}

func newPoint(model string, n int) *point {
	p := &point{model: model}
	for i := range n {
		address := fmt.Sprintf("203.0.113.%d", i+1)
		if model == "shared" {
			address = "203.0.113.1" // one host, different ports
		}
		port := 5432 + i
		p.databases = append(p.databases, map[string]any{
			"name": fmt.Sprint("db", i), "model": model, "engine": "postgresql",
			"endpoints": []any{map[string]any{"kind": "public-rw", "address": address, "port": port, "family": "ipv4", "tls": "in-band"}},
			"nodes":     []any{map[string]any{"name": "n", "here": true, "addresses": []string{address}, "ports": []any{map[string]any{"port": port, "tls": "in-band"}}}},
		})
	}
	return p
}

// step changes one database, or all, the way users do.
func (p *point) step(r *rand.Rand) {
	db := p.databases[r.IntN(len(p.databases))]
	switch r.IntN(6) {
	case 0:
		db["force_tls"] = r.IntN(2) == 0 || db["internet_accessibility"] == true
	case 1:
		if p.model == "shared" {
			on := r.IntN(2) == 0
			db["internet_accessibility"] = on
			if on {
				db["force_tls"] = true
			}
		}
	case 2:
		if r.IntN(4) == 0 {
			db["unknown_connections"] = []string{"cut", "keep"}[r.IntN(2)]
		} else if len(p.databases) > 2 && r.IntN(3) == 0 {
			p.databases = p.databases[1:]
		}
	default:
		if p.model == "dedicated" {
			db["firewall_rules"] = randomRules(r)
		}
	}
}

func randomRules(r *rand.Rand) (rules []any) {
	for i := range r.IntN(4) {
		rules = append(rules, map[string]any{"type": "custom_range", "cidr": fmt.Sprintf("198.51.%d.0/%d", 4*i, 22+r.IntN(3))})
	}
	if r.IntN(3) == 0 {
		rules = append(rules, map[string]any{"type": "managed_range", "name": "fr1"})
	}
	if rules == nil {
		rules = []any{}
	}
	return rules
}

func (p *point) document(t *testing.T) []byte {
	t.Helper()
	text, err := json.Marshal(map[string]any{"version": 1, "point": map[string]any{"name": "p", "model": p.model}, "region": map[string]any{"name": "r",
		"networks": []string{"10.10.0.0/16"}}, "managed_ranges": map[string]any{"fr1": []string{"192.0.2.0/28"}}, "databases": p.databases})
	require.NoError(t, err)
	return text
}

// TestEveryChangeIsTheWholePolicy: however a session gets from one policy to the next, the kernel holds what the policy compiles
// to as a whole, and nothing else; also where somebody else writes in between.
func TestEveryChangeIsTheWholePolicy(t *testing.T) {
	for _, tt := range []struct {
		model      string
		own, other bool
	}{{"shared", false, false}, {"dedicated", false, false}, {"dedicated", true, true}, {"shared", false, true}} {
		t.Run(fmt.Sprintf("%s owned %v disturbed %v", tt.model, tt.own, tt.other), func(t *testing.T) {
			ns := netnstest.New(t)
			r := rand.New(rand.NewPCG(1, 2))
			p := newPoint(tt.model, 5)
			require.NoError(t, ns.Do(func() error {
				s, err := enforcer.Open(enforcer.Options{})
				require.NoError(t, err)
				defer s.Close()
				if tt.own {
					require.NoError(t, s.Own(t.Context()))
				}
				for i := range 60 {
					p.step(r)
					document := p.document(t)
					if tt.other && i%3 == 0 {
						disturb(t, ns, i, tt.own)
					}
					_, err := s.Apply(t.Context(), document)
					require.NoError(t, err)
					requireInForce(t, document)
				}
				return nil
			}))
		})
	}
}

// disturb writes to the ruleset: elsewhere, or to the enforcer's table where that is possible.
func disturb(t *testing.T, ns *netns.Handle, i int, owned bool) {
	t.Helper()
	run := func(args ...string) {
		h := host{host: ns}
		h.nft(t, args...)
	}
	if i%2 == 0 || owned || i == 3 {
		run("add", "table", "ip", fmt.Sprint("t", i))
		return
	}
	run("add", "element", "inet", "drawbridge", "region4", "{ 192.168.0.0/16 }")
}

func requireInForce(t *testing.T, document []byte) {
	t.Helper()
	parsed, err := policy.Parse("p", document)
	require.NoError(t, err)
	want, err := compile.Compile(parsed)
	require.NoError(t, err)
	conn, err := nft.Open(compile.TableName)
	require.NoError(t, err)
	defer conn.Close()
	state, err := conn.Read(t.Context())
	require.NoError(t, err)
	require.NoError(t, state.Foreign)
	change := ruleset.Diff(state.Table, want)
	require.True(t, change.IsEmpty(), "%+v", change)
}

// TestAChangeOfOneDatabaseEndsItsConnections, and no others.
func TestAChangeOfOneDatabaseEndsItsConnections(t *testing.T) {
	h := newHost(t)
	var s *enforcer.Session
	within := func(fn func() error) { require.NoError(t, h.host.Do(fn)) }
	within(func() (err error) { s, err = enforcer.Open(enforcer.Options{}); return err })
	defer s.Close()
	apply := func(members string) (receipt enforcer.Receipt) {
		within(func() (err error) { receipt, err = s.Apply(t.Context(), document(wholeRegion, members)); return err })
		return receipt
	}
	apply("")
	plain, _ := h.dial(t, false)
	secure, _ := h.dial(t, true)
	require.NoError(t, say(plain))
	require.NoError(t, say(secure))
	receipt := apply(`, "force_tls": true`)
	require.Equal(t, enforcer.Changed{ElementsAdded: 1}, receipt.Changed)
	require.Equal(t, 1, receipt.Cut.Destroyed, "%+v", receipt.Cut)
	ended(t, plain)
	require.NoError(t, say(secure))
	require.Equal(t, enforcer.Changed{ElementsDeleted: 1}, apply("").Changed)
	again, _ := h.dial(t, false)
	require.NoError(t, say(again))
}

// TestWhatATableThatIsGoneProtectedIsDeniedFirst, where that is prepared, and where making a large one anew takes long: nothing may pass
// meanwhile. However ready the session is, what stands in the end is the policy: also where that has changed since, or where the table is not
// gone but changed.
func TestWhatATableThatIsGoneProtectedIsDeniedFirst(t *testing.T) {
	for _, n := range []int{2, 240} {
		for _, ready := range []string{"not prepared", "prepared", "prepared for an older policy"} {
			for _, attack := range []string{"flush ruleset", "delete table inet drawbridge", "flush chain inet drawbridge admission"} {
				t.Run(fmt.Sprint(n, " databases, ", ready, ", ", attack), func(t *testing.T) { repairs(t, n, ready, attack) })
			}
		}
	}
}

func repairs(t *testing.T, n int, ready, attack string) {
	t.Helper()
	ns := netnstest.New(t)
	document := policytest.Gateway(t, n, "198.18.0.0/24")
	var s *enforcer.Session
	var before, after enforcer.Receipt
	require.NoError(t, ns.Do(func() (err error) {
		if s, err = enforcer.Open(enforcer.Options{}); err != nil {
			return err
		}
		if before, err = s.Apply(t.Context(), document); err != nil || ready == "not prepared" {
			return err
		}
		if err := s.Prepare(); err != nil || ready == "prepared" {
			return err
		}
		document = policytest.Gateway(t, n, "198.18.1.0/24")
		_, err = s.Apply(t.Context(), document)
		return err
	}))
	h := host{host: ns}
	h.nft(t, strings.Fields(attack)...)
	notes := h.monitored(t, func() {
		require.NoError(t, ns.Do(func() (err error) { after, err = s.Repair(t.Context()); return err }))
	})
	require.NotZero(t, after.Changed)
	require.Greater(t, after.KernelGeneration, before.KernelGeneration)
	denied := !strings.Contains(attack, "chain") && (n == 240 || ready == "prepared")
	require.Equal(t, denied, strings.Contains(notes, "deny_address4"))
	require.Equal(t, denied, !after.DeniedAt.IsZero())
	require.True(t, after.DeniedAt.IsZero() || after.DeniedAt.Before(after.InForceAt))
	require.NoError(t, ns.Do(func() error { requireInForce(t, document); return s.Close() }))
}

// nftablesGroup is NFNLGRP_NFTABLES (linux/netfilter/nfnetlink.h).
const nftablesGroup = 7

// monitored returns the kernel's notes about changes while something was done: all of the first ones, of too many the last are lost. (The
// monitor of nft(8) takes minutes and gigabytes for some thousand elements.)
func (h *host) monitored(t *testing.T, do func()) string {
	t.Helper()
	fd, err := h.host.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (nftablesGroup - 1)}))
	do()
	var notes strings.Builder
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return notes.String() // what a commit tells is there when it returns
		case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EINTR):
			continue
		}
		require.NoError(t, err)
		notes.Write(buf[:n])
	}
}
