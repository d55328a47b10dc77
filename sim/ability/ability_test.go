package ability_test

import (
	"errors"
	"math"
	"testing"

	"drawbridge/sim/ability"
	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func TestKernelSaysWhatItTried(t *testing.T) {
	has := map[string]bool{}
	for _, f := range ability.Kernel(netnstest.New(t)) {
		require.NotEmpty(t, f.Affects, f.Name)
		require.Equal(t, f.Has, f.Detail == "", "%s: what is missing has a reason", f.Name)
		has[f.Name] = f.Has
	}
	require.True(t, has["packet sockets"], "labs need them")
	require.True(t, has["connection tracking over netlink"], "the project's other tests need it")
}

func TestFind(t *testing.T) {
	require.Equal(t, ability.Finding{Name: "a", Affects: "b", Detail: "no"}, ability.Find("a", "b", func() error { return errors.New("no") }))
	require.Equal(t, ability.Finding{Name: "a", Affects: "b", Has: true}, ability.Find("a", "b", func() error { return nil }))
}

func TestFit(t *testing.T) {
	require.NoError(t, ability.Fit(ability.Needs{Namespaces: 1, Descriptors: 1}))
	err := ability.Fit(ability.Needs{Namespaces: 1, Descriptors: math.MaxInt32 + 1})
	require.ErrorIs(t, err, ability.ErrLimit)
	require.ErrorContains(t, err, "open files: ")
	require.ErrorContains(t, err, "raise it with: ulimit -n")
}
