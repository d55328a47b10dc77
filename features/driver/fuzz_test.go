package driver

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzParseDescription(f *testing.F) {
	f.Add([]byte(`{"protocol":1,"name":"n","version":"1","profiles":["core"],"features":{"force_tls":"database"}}`))
	f.Add([]byte(`{"protocol":1}{}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := parseDescription(data)
		if err != nil {
			require.Empty(t, d)
			return
		}
		require.True(t, d.Has(Core))
		require.NotEmpty(t, d.Name)
		require.Contains(t, []ForceTLS{FirstBytes, ByDatabase}, d.ForceTLS)
		require.True(t, d.Revoke == Cut || !d.Has(Extended))
	})
}

func FuzzParseReceipt(f *testing.F) {
	f.Add([]byte(`{"generation":7}`))
	f.Add([]byte(`{"generation":"a","more":[]}`))
	f.Add([]byte(`{"generation":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseReceipt(data)
		if err != nil {
			require.Empty(t, r)
			return
		}
		require.True(t, json.Valid([]byte(r.Generation)))
		require.True(t, json.Valid(r.Members))
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add("12 (sleep) S 1 12 12 0 -1")
	f.Add("12 (a) b) R 1 7 12")
	f.Add("12 (x) Z 1 12")
	f.Fuzz(func(t *testing.T, stat string) {
		if name, _, ok := parseStat(stat); !ok {
			require.True(t, name == "" || len(name) < len(stat))
		}
	})
}

func TestParseStat(t *testing.T) {
	name, group, ok := parseStat("12 (a) b) S 1 7 12 0 -1")
	require.True(t, ok)
	require.Equal(t, "a) b", name)
	require.Equal(t, 7, group)
	for _, s := range []string{"", "12 (x) Z 1 7", "12 (x) S", ") (", "1 (x) S 1 no"} {
		_, _, ok := parseStat(s)
		require.False(t, ok, s)
	}
}
