package policy_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drawbridge/enforcer/policy"
)

// pointOf is the document of a gateway with these databases.
func pointOf(databases ...string) string {
	return `{"version": 1, "point": {"name": "g", "model": "dedicated"}, "managed_ranges": {"fr1": ["192.0.2.1/32"]}, "databases": [` +
		strings.Join(databases, ", ") + `]}`
}

func databaseOf(name string, third int, rules string) string {
	return fmt.Sprintf(`{"name": %q, "model": "dedicated", "engine": "postgresql",
		"endpoints": [{"kind": "public-rw", "address": "203.0.113.%d", "port": 5432, "family": "ipv4", "tls": "in-band"}],
		"nodes": [{"name": "n", "here": true, "addresses": ["10.0.0.%d"], "ports": [{"port": 5432, "tls": "in-band"}]}],
		"firewall_rules": [%s]}`, name, third, third, rules)
}

func custom(cidr string) string { return fmt.Sprintf(`{"type": "custom_range", "cidr": %q}`, cidr) }

// TestWhatWasKeptIsTaken, whatever its labels hold: but nothing else that is refused.
func TestWhatWasKeptIsTaken(t *testing.T) {
	labelled := func(label string) string {
		return pointOf(databaseOf("one", 1, `{"type": "custom_range", "cidr": "198.51.100.0/28", "label": "`+label+`"}`))
	}
	for name, tt := range map[string]struct{ text, label, refused string }{
		"as ever":              {labelled("Büro 😀"), "Büro 😀", ""},
		"for a terminal":       {labelled(`off\u001b[31mice\n`), "off\ufffd[31mice\ufffd", ""},
		"in another direction": {labelled("\u202eecin\u2028"), "\ufffdecin\ufffd", ""},
		"too long":             {labelled(strings.Repeat("l", 257)), "", "257 bytes of label"},
		"in a name":            {strings.Replace(labelled(""), `"one"`, `"o\u001bne"`, 1), "", "databases[0].name"},
	} {
		t.Run(name, func(t *testing.T) {
			kept := policy.Reader{Kept: true}
			p, _, err := kept.Read([]byte(tt.text))
			if tt.refused != "" {
				require.ErrorContains(t, err, tt.refused)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.label, p.Databases()[0].Rules()[0].Label)
			_, err = policy.Parse("p", []byte(tt.text))
			require.Equal(t, strings.Contains(tt.label, "\ufffd"), err != nil, "whoever writes one now is told")
		})
	}
}

// TestReaderSaysWhatDiffers: a database whose rules or toggles changed comes alone; anything else is everything.
func TestReaderSaysWhatDiffers(t *testing.T) {
	a, b, c := databaseOf("a", 1, ""), databaseOf("b", 2, ""), databaseOf("c", 3, "")
	open := databaseOf("b", 2, custom("198.51.100.0/24"))
	for _, tt := range []struct {
		name, after string
		only        []string // databases that differ; nil: anything may
	}{
		{"nothing", pointOf(a, b, c), []string{}},
		{"a rule", pointOf(a, open, c), []string{"b"}},
		{"two databases", pointOf(databaseOf("a", 1, custom("198.51.100.0/24")), b, databaseOf("c", 3, custom("0.0.0.0/0"))), []string{"a", "c"}},
		{"a toggle", pointOf(a, strings.Replace(b, `"engine"`, `"force_tls": false, "engine"`, 1), c), []string{"b"}},
		{"space around a database", strings.Replace(pointOf(a, b, c), ", "+b, " ,\n"+b, 1), []string{}},
		{"space in a database", pointOf(a, strings.Replace(b, `"engine"`, ` "engine"`, 1), c), []string{}},
		{"an address", pointOf(a, databaseOf("b", 4, ""), c), nil},
		{"a name", pointOf(a, databaseOf("d", 2, ""), c), nil},
		{"one more", pointOf(a, b, c, databaseOf("d", 4, "")), nil},
		{"one less", pointOf(a, c), nil},
		{"another order", pointOf(b, a, c), nil},
		{"a managed range", strings.Replace(pointOf(a, b, c), "192.0.2.1/32", "192.0.2.2/32", 1), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r policy.Reader
			before, none, err := r.Read([]byte(pointOf(a, b, c)))
			require.NoError(t, err)
			require.Equal(t, policy.Difference{}, none)
			after, difference, err := r.Read([]byte(tt.after))
			require.NoError(t, err)
			require.Equal(t, parse(t, tt.after), after)
			require.Equal(t, parse(t, pointOf(a, b, c)), before, "what was read stays")
			require.Equal(t, tt.only != nil, difference.Databases)
			if len(tt.only) == 0 {
				require.Nil(t, difference.After)
				return
			}
			var was, is []string
			for i, db := range difference.After.Databases() {
				was, is = append(was, difference.Before.Databases()[i].Name()), append(is, db.Name())
				require.Contains(t, after.Databases(), db)
				require.Contains(t, before.Databases(), difference.Before.Databases()[i])
			}
			require.Equal(t, tt.only, was)
			require.Equal(t, tt.only, is)
		})
	}
}

// TestReaderRefuses what a parse of the whole refuses, with its words, and goes on from what was good.
func TestReaderRefuses(t *testing.T) {
	a, b := databaseOf("a", 1, ""), databaseOf("b", 2, "")
	good := []byte(pointOf(a, b))
	for _, bad := range []string{
		pointOf(a, databaseOf("b", 2, custom("198.51.100.1/24"))),
		pointOf(a, strings.Replace(b, `"engine"`, `"internet_accessibility": true, "engine"`, 1)),
		pointOf(a, strings.Replace(b, "203.0.113.2", "203.0.113.1", 1)),
		pointOf(a, strings.Replace(b, "postgresql", "postgre\\u0000sql", 1)),
		pointOf(a, strings.Replace(b, `"name": "b"`, `"name": "b", "name": "b"`, 1)),
		pointOf(a, b) + "x", pointOf(a, b)[:len(good)-3], pointOf(a, b+" "+b), pointOf(a, b, ""), pointOf(a, b+"\x00"),
	} {
		r := policy.Reader{Name: "policy.json"}
		_, _, err := r.Read(good)
		require.NoError(t, err)
		_, want := policy.Parse("policy.json", []byte(bad))
		require.Error(t, want, bad)
		p, _, err := r.Read([]byte(bad))
		require.Equal(t, want, err)
		require.Nil(t, p)
		_, difference, err := r.Read([]byte(pointOf(a, databaseOf("b", 2, custom("198.51.100.0/24")))))
		require.NoError(t, err)
		require.True(t, difference.Databases, "the last good version is still known")
	}
}

// TestReaderIsParse: whatever the versions of a document are, reading them one after the other is parsing each.
func TestReaderIsParse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		databases := []string{databaseOf("a", 1, ""), databaseOf("b", 2, ""), databaseOf("c", 3, custom("0.0.0.0/0"))}
		var r policy.Reader
		for range 6 {
			i := rapid.IntRange(0, len(databases)-1).Draw(t, "which")
			n := rapid.IntRange(1, 4).Draw(t, "number")
			rule := rapid.SampledFrom([]string{"", custom("198.51.100.0/24"), custom("::/0"), `{"type": "managed_range", "name": "fr1"}`, custom("10.0.0.1/8")}).Draw(t, "rule")
			databases[i] = databaseOf(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"), n, rule)
			text := pointOf(databases...)
			if rapid.IntRange(0, 9).Draw(t, "cut") == 0 {
				text = text[:rapid.IntRange(0, len(text)).Draw(t, "length")]
			}
			same(t, &r, []byte(text))
		}
	})
}

func same(t require.TestingT, r *policy.Reader, data []byte) {
	want, wantErr := policy.Parse(r.Name, bytes.Clone(data))
	got, _, err := r.Read(data)
	require.Equal(t, wantErr, err)
	require.Equal(t, want, got)
}

// FuzzReader: a version that follows another is read as if it came alone.
func FuzzReader(f *testing.F) {
	a, b := databaseOf("a", 1, ""), databaseOf("b", 2, custom("198.51.100.0/24"))
	f.Add([]byte(pointOf(a, b)), []byte(pointOf(a, databaseOf("b", 2, ""))))
	f.Add([]byte(pointOf(a, b)), []byte(pointOf(b, a)))
	f.Add([]byte(sample), []byte(strings.Replace(sample, "198.51.100.0/28", "198.51.100.0/27", 1)))
	f.Add([]byte(sharedSample), []byte(sharedSample[:100]))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var r policy.Reader
		same(t, &r, first)
		same(t, &r, second)
	})
}
