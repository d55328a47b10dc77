package main

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drawbridge/sim/netns/netnstest"
)

func TestWriteIndentedHasNoNullLists(t *testing.T) {
	type inner struct{ List []int }
	for name, tt := range map[string]struct {
		v    any
		want string
	}{
		"a list":    {[]inner(nil), `[]`},
		"in lists":  {[]inner{{}, {List: []int{1}}}, `[{"List": []}, {"List": [1]}]`},
		"a pointer": {struct{ In, None *inner }{In: &inner{}}, `{"In": {"List": []}, "None": null}`},
		"embedded": {struct {
			inner
			At     *time.Time
			Bytes  []byte
			hidden []int
		}{}, `{"List": [], "At": null, "Bytes": null}`},
		"omitted": {struct {
			A []int `json:"a,omitempty"`
		}{}, `{}`},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			require.NoError(t, writeIndented(&out, tt.v))
			require.JSONEq(t, tt.want, out.String())
		})
	}
}

// TestListsAreThere: the members that the examples of --help go over are lists also when nothing is wrong, and when nothing is in force.
func TestListsAreThere(t *testing.T) {
	ns := netnstest.New(t)
	const noRules = `{"version": 1, "point": {"name": "gw", "model": "dedicated"}, "databases": []}`
	lists := func(policy string, args ...string) {
		t.Helper()
		_, out, errs := fed(t, ns, policy, append([]string{"enforce"}, append(args, "--json")...)...)
		var whole any
		require.NoError(t, json.Unmarshal([]byte(out), &whole), errs)
		require.NotContains(t, out, "null", args)
		members := map[string][]string{
			"status": {"databases", "findings", "denied"}, "verify": {"access", "objects", "unprovable", "state_not_compared"}, "plan": {"commands", "settings", "access", "cut", "warnings"},
		}
		object, _ := whole.(map[string]any)
		for _, name := range members[args[0]] {
			require.IsType(t, []any{}, object[name], "%s: %s", args, name)
		}
		if members[args[0]] == nil {
			require.IsType(t, []any{}, whole, args)
		}
	}
	lists("", "status")
	lists(understood, "verify")
	lists(understood, "plan")
	lists("", "doctor")
	code, _, errs := fed(t, ns, understood, "enforce", "apply")
	require.Equal(t, exitOK, code, errs)
	lists("", "status")
	lists(understood, "verify")
	lists(understood, "plan")
	lists(understood, "hits")
	lists(noRules, "hits")
	lists("", "denied", "--over", "10ms")
	lists(understood, "explain", "--policy", "-", "--from", "198.51.100.99", "--to", "orders")
}
