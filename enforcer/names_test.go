package enforcer_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/sim/netns"
	"drawbridge/sim/netns/netnstest"
)

// exchanged is a document with two names exchanged.
func exchanged(document []byte, a, b string) []byte {
	name := func(s string) []byte { return []byte(`"name":"` + s + `"`) }
	document = bytes.ReplaceAll(document, name(a), name("\x00"))
	document = bytes.ReplaceAll(document, name(b), name(a))
	return bytes.ReplaceAll(document, name("\x00"), name(b))
}

func settingsOf(t *testing.T, ns *netns.Handle, document []byte) (settings []string) {
	t.Helper()
	require.NoError(t, ns.Do(func() error {
		p, err := enforcer.MakePlan(t.Context(), document, enforcer.Options{})
		settings = append(p.Settings, p.Commands...)
		return err
	}))
	return settings
}

// TestNamesAreThoseOfThePolicy, however they came to be: the kernel's own are what status, denied and explain go by.
func TestNamesAreThoseOfThePolicy(t *testing.T) {
	for _, model := range []string{"shared", "dedicated"} {
		for _, lasting := range []bool{false, true} {
			p := newPoint(model, 3)
			before := p.document(t)
			renamed := newPoint(model, 3)
			renamed.databases[1]["name"] = "other"
			taken := newPoint(model, 3)
			taken.databases = taken.databases[1:]
			taken.databases[0]["endpoints"], taken.databases[0]["nodes"] = p.databases[0]["endpoints"], p.databases[0]["nodes"]
			for name, after := range map[string][]byte{
				"two exchanged": exchanged(before, "db0", "db1"), "one renamed": renamed.document(t), "an address taken over": taken.document(t),
			} {
				t.Run(model+" "+name, func(t *testing.T) {
					ns := netnstest.New(t)
					apply := func(document []byte) enforcer.Receipt { return mustApply(t, ns, document) }
					if lasting {
						var s *enforcer.Session
						require.NoError(t, ns.Do(func() (err error) { s, err = enforcer.Open(enforcer.Options{}); return err }))
						defer s.Close()
						apply = func(document []byte) (r enforcer.Receipt) {
							require.NoError(t, ns.Do(func() (err error) { r, err = s.Apply(t.Context(), document); return err }))
							return r
						}
					}
					apply(before)
					require.NotEmpty(t, settingsOf(t, ns, after))
					require.False(t, verify(t, ns, string(after)).Proven)
					require.NotZero(t, apply(after).Changed.ElementsAdded)
					require.Empty(t, settingsOf(t, ns, after))
					require.True(t, verify(t, ns, string(after)).Proven)
					require.Zero(t, apply(after).Changed)
					require.True(t, statusIn(t, ns).InForce)
					apply(before)
					require.Empty(t, settingsOf(t, ns, before))
				})
			}
		}
	}
}

// TestAnotherNameLetsNothingThrough: while a database is renamed again and again, Force TLS refuses plaintext and nothing else.
func TestAnotherNameLetsNothingThrough(t *testing.T) {
	h := newHost(t)
	one := document(wholeRegion, `, "force_tls": true`)
	two := bytes.ReplaceAll(one, []byte(`"docs"`), []byte(`"papers"`))
	require.NotEqual(t, one, two)
	mustApply(t, h.host, one)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	renamed := 0
	go func() {
		ended <- h.host.Do(func() error {
			s, err := enforcer.Open(enforcer.Options{})
			if err != nil {
				return err
			}
			defer s.Close()
			for ; ctx.Err() == nil; renamed++ {
				if _, err := s.Apply(context.WithoutCancel(ctx), [][]byte{one, two}[renamed%2]); err != nil {
					return err
				}
			}
			return nil
		})
	}()
	for range 60 {
		secure, raw := h.dial(t, true)
		require.NoError(t, say(secure))
		require.NoError(t, raw.Close())
		plain, _ := h.dial(t, false)
		require.Error(t, say(plain))
		require.NoError(t, plain.Close())
	}
	cancel()
	require.NoError(t, <-ended)
	require.Greater(t, renamed, 2)
}
