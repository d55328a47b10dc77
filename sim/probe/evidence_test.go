package probe

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestConclude(t *testing.T) {
	const refused = "connection refused"
	tests := map[string]struct {
		e       Evidence
		mode    Mode
		givenUp bool
		want    Verdict
		by      By
		final   bool
	}{
		"nothing seen yet":                          {want: Inconclusive},
		"nothing ever seen":                         {givenUp: true, want: Inconclusive, final: true},
		"the client has no route":                   {e: Evidence{ClientError: "no route", Told: true}, givenUp: true, want: Inconclusive, final: true},
		"a fence without an arrival says nothing":   {e: Evidence{Fenced: true}, givenUp: true, want: Inconclusive, final: true},
		"answered and journalled":                   {e: Evidence{SYNEntered: true, SYNLeft: true, Connected: true, Answered: true, QueryAnswered: true}, want: Served, final: true},
		"answered by somebody else":                 {e: Evidence{SYNEntered: true, SYNLeft: true, Connected: true, Answered: true}, givenUp: true, want: Inconclusive, final: true},
		"arrived, not fenced":                       {e: Evidence{SYNEntered: true}, want: Inconclusive},
		"arrived, the fence did not get through":    {e: Evidence{SYNEntered: true, FenceError: "x"}, givenUp: true, want: Inconclusive, final: true},
		"arrived, fenced, silent":                   {e: Evidence{SYNEntered: true, Fenced: true}, want: Dropped, by: ByEnforcer, final: true},
		"arrived, fenced, told":                     {e: Evidence{SYNEntered: true, Fenced: true, ClientError: refused, Told: true}, want: Rejected, by: ByEnforcer, final: true},
		"told, but no fence":                        {e: Evidence{SYNEntered: true, ClientError: refused, Told: true}, want: Inconclusive},
		"handshake by a proxy, nothing passed on":   {e: Evidence{SYNEntered: true, Connected: true, PayloadEntered: 8, Fenced: true}, want: TLSRefused, by: ByEnforcer, final: true},
		"bytes stopped, fenced":                     {e: Evidence{SYNEntered: true, SYNLeft: true, Connected: true, PayloadEntered: 8, Fenced: true}, mode: Plain, want: TLSRefused, by: ByEnforcer, final: true},
		"bytes stopped, not fenced":                 {e: Evidence{SYNEntered: true, SYNLeft: true, Connected: true, PayloadEntered: 8, ClientError: "reset", Told: true}, mode: Plain, want: Inconclusive},
		"bytes stopped, nothing more to come":       {e: Evidence{SYNEntered: true, SYNLeft: true, Connected: true, PayloadEntered: 8}, givenUp: true, want: Leaked, final: true},
		"bytes passed, conversation goes on":        {e: Evidence{SYNEntered: true, SYNLeft: true, Connected: true, PayloadEntered: 8, PayloadLeft: 8}, want: Inconclusive},
		"bytes passed, client reset":                {e: Evidence{SYNEntered: true, SYNLeft: true, Connected: true, PayloadEntered: 8, PayloadLeft: 8, ClientError: "reset", Told: true}, want: Leaked, final: true},
		"bytes read, client given up":               {e: Evidence{SYNEntered: true, Accepted: true, Connected: true, PayloadEntered: 8, BytesRead: 8}, givenUp: true, want: Leaked, final: true},
		"SYN passed, answer under way":              {e: Evidence{SYNEntered: true, SYNLeft: true, SYNs: 1, Fenced: true}, want: Inconclusive},
		"SYN passed, answer lost":                   {e: Evidence{SYNEntered: true, SYNLeft: true, SYNs: 2, Fenced: true}, want: Leaked, final: true},
		"SYN passed, a wire lost the answer":        {e: Evidence{SYNEntered: true, SYNLeft: true, SYNs: 2, Lost: 1, AnswersLost: 1, Fenced: true}, want: Inconclusive},
		"SYN passed, a wire lost one answer of two": {e: Evidence{SYNEntered: true, SYNLeft: true, SYNs: 3, Lost: 1, AnswersLost: 1, Fenced: true}, want: Leaked, final: true},
		"SYN passed, a wire lost other packets":     {e: Evidence{SYNEntered: true, SYNLeft: true, SYNs: 2, Lost: 5, Fenced: true}, want: Leaked, final: true},
		"later bytes stopped, the first was lost":   {e: Evidence{SYNEntered: true, SYNLeft: true, Connected: true, PayloadEntered: 8, Lost: 1, Headless: true, Fenced: true}, mode: TLS, want: Inconclusive},
		"SYN passed, told no":                       {e: Evidence{SYNEntered: true, SYNLeft: true, SYNs: 1, ClientError: refused, Told: true, Fenced: true}, want: Leaked, final: true},
		"cut before a word":                         {e: Evidence{SYNEntered: true, SYNLeft: true, Connected: true, ClientError: "reset", Told: true, Fenced: true}, want: Leaked, final: true},
		"cut, and the tap may lag behind":           {e: Evidence{SYNEntered: true, SYNLeft: true, Connected: true, ClientError: "reset", Told: true}, want: Inconclusive},
		"the database refused plaintext":            {e: Evidence{SYNEntered: true, SYNLeft: true, Connected: true, PayloadLeft: 8, BytesRead: 8, RefusedByTheDB: true}, mode: Plain, want: TLSRefused, by: ByDatabase, final: true},
		"the database refused, but the mode is TLS": {e: Evidence{SYNEntered: true, SYNLeft: true, Connected: true, PayloadLeft: 8, RefusedByTheDB: true}, mode: TLS, want: Inconclusive},
		"no TLS on offer":                           {e: Evidence{SYNEntered: true, SYNLeft: true, Connected: true, PayloadLeft: 8, NotOffered: true}, mode: TLS, want: Inconclusive, final: true},
		"SYN passed, the host has no such port":     {e: Evidence{SYNEntered: true, SYNLeft: true, SYNs: 1, HostRefused: true, ClientError: refused, Told: true}, want: Inconclusive, final: true},
		"the same, and the client is told nothing":  {e: Evidence{SYNEntered: true, SYNLeft: true, SYNs: 2, HostRefused: true, Fenced: true}, want: Inconclusive, final: true},
		"refused, but bytes passed before":          {e: Evidence{SYNEntered: true, SYNLeft: true, HostRefused: true, PayloadEntered: 8, PayloadLeft: 8, ClientError: "reset", Told: true}, want: Leaked, final: true},
		"a reset at a host may be the enforcer's":   {e: Evidence{SYNEntered: true, Reset: true, Fenced: true, ClientError: refused, Told: true}, want: Rejected, by: ByEnforcer, final: true},
		"the same, before the client knows":         {e: Evidence{SYNEntered: true, Reset: true, Fenced: true}, want: Rejected, by: ByEnforcer, final: true},
		"accepted without a SYN seen":               {e: Evidence{Accepted: true, Connected: true}, givenUp: true, want: Leaked, final: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := conclude(tt.e, tt.mode, tt.givenUp)
			require.Equal(t, tt.want, got.verdict, got.reason)
			require.Equal(t, tt.by, got.by)
			require.Equal(t, tt.final, got.final, got.reason)
			require.NotEmpty(t, got.reason)
		})
	}
}

// A denial needs a fence, whatever else was seen; and once something reached the database, no fence makes a drop of it.
func TestNoDenialWithoutFence(t *testing.T) {
	for bits := range 1 << 8 {
		on := func(i int) bool { return bits&(1<<i) != 0 }
		e := Evidence{Connected: on(0), Told: on(1), SYNEntered: on(2), SYNLeft: on(3), Accepted: on(4), Fenced: on(5)}
		if on(6) {
			e.PayloadEntered = 5
		}
		if on(7) {
			e.PayloadLeft = 5
		}
		if e.Told {
			e.ClientError = "reset"
		}
		for _, givenUp := range []bool{false, true} {
			c := conclude(e, Plain, givenUp)
			denied := c.verdict == Dropped || c.verdict == Rejected || c.verdict == TLSRefused
			if denied {
				require.True(t, e.Fenced && (e.SYNEntered || e.PayloadEntered > 0), "%+v", e)
				require.Zero(t, e.PayloadLeft, "%+v", e)
			}
			if c.verdict == Dropped || c.verdict == Rejected {
				require.False(t, e.SYNLeft || e.Accepted, "%+v", e)
			}
			require.NotEqual(t, Served, c.verdict, "%+v", e)
		}
	}
}

func TestGotFurther(t *testing.T) {
	reached, heard := Evidence{SYNLeft: true}, Evidence{SYNLeft: true, PayloadLeft: 3}
	tests := map[string]struct {
		was  Observation
		now  Evidence
		want bool
	}{
		"dropped and still nothing":       {Observation{Verdict: Dropped}, Evidence{SYNEntered: true}, false},
		"dropped, then the SYN passed":    {Observation{Verdict: Dropped}, reached, true},
		"rejected, then accepted":         {Observation{Verdict: Rejected}, Evidence{Accepted: true}, true},
		"refused, only the handshake":     {Observation{Verdict: TLSRefused, By: ByEnforcer}, reached, false},
		"refused, then a byte passed":     {Observation{Verdict: TLSRefused, By: ByEnforcer}, heard, true},
		"refused by the database, heard":  {Observation{Verdict: TLSRefused, By: ByDatabase}, heard, false},
		"refused by the database, served": {Observation{Verdict: TLSRefused, By: ByDatabase}, Evidence{Answered: true}, true},
		"inconclusive was no denial":      {Observation{}, reached, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tt.want, (&watch{observation: tt.was}).gotFurther(tt.now))
		})
	}
}
