package policy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drawbridge/enforcer/policy"
)

// fitsSchema returns what tells whether a document is what the schema describes.
func fitsSchema(t *testing.T) func(text string) error {
	t.Helper()
	raw, err := jsonschema.UnmarshalJSON(bytes.NewReader(policy.Schema()))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("policy.schema.json", raw))
	schema, err := c.Compile("policy.schema.json")
	require.NoError(t, err)
	return func(text string) error {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			return err
		}
		return schema.Validate(v)
	}
}

// places are those of a document in which a word stands, with words that are right there, that are nearly so, and that are wrong.
var places = []struct {
	old   string // what stands in sample
	words []string
}{
	{`"peer0"`, []string{"a+b", "eth0@x", "eth0.100", "[x]", "!#$%&'()~", "^`{|}", ";<=>?", ".", "..", "lo", "lo0", "a:b", "a*", "a/b", `a\b`, `a"b`, "a b", "é", "", "123456789012345", "1234567890123456"}},
	{`"office"`, []string{"", "Büro 3", "a\tb", "a\nb\x1b[31mRED", "\x7f", "\u0085", "\u009b31m", "\u2028", "\u2029", "\u202e", "\u2066", "\u2069", "\u206a", "\u200d", "😀", strings.Repeat("é", 128), strings.Repeat("l", 257)}},
	{`"198.51.100.0/28"`, []string{"2001:DB8::/32", "64:ff9b::192.0.2.0/120", "::/0", "0.0.0.0/0", "192.0.2.1/32", "192.0.2.1/032", "192.0.2.1", "192.0.2.1/24", "010.0.0.0/8", "::ffff:192.0.2.0/120", "fe80::%eth0/64", "1::2::/16", "::/129", "0.0.0.0/33", "/8"}},
	{`"orders",`, []string{"a", "A.b-c_d", "-a", ".a", "", strings.Repeat("n", 64), strings.Repeat("n", 65), "a\n"}},
	{`"postgresql"`, []string{"mariadb", "none", "Redis", "a b", ""}},
	{`"gw-orders"`, []string{"x", "x:y", "é"}},
}

// addresses, right and wrong.
var addresses = []string{"203.0.113.9", "2001:DB8:2::1", "2001:db8:2::1", "64:ff9b::192.0.2.9", "::1", "::", "fe80::1", "fe80::1%eth0", "::ffff:192.0.2.1", "::FFFF:192.0.2.1", "127.0.0.1", "224.0.0.1",
	"1.2.3", "01.2.3.4", "1::2::3", "g::1", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:9", "1111:2222:3333:4444:5555:6666:123.123.123.123", "", "ff02::1"}

// ends of rules.
var ends = []string{"2027-01-31T18:00:00Z", "2027-01-31T1:00:00Z", "2027-01-31T18:00:00.5Z", "2027-01-31T18:00:00,25+01:00", "2027-01-31t18:00:00z", "2027-02-30T18:00:00Z", "2027-01-31 18:00:00Z", "2027-01-31T18:00Z",
	"2027-01-31T24:00:00Z", "2027-01-31T18:00:60Z", "2027-01-31T18:00:00+24:00", "2027-01-31T18:00:00", "0001-01-01T00:00:00Z", "2027-1-31T18:00:00Z"}

// values that may stand where anything else does.
var values = []string{"null", "true", "0", "1", "65535", "65536", "5e3", "-1", "1.5", `""`, `"dedicated"`, `"cut"`, `"ipv6"`, `"none"`, "[]", "{}", `["192.0.2.0/24"]`, `["10.64.1.99"]`}

// altered draws a document that differs from the sample in a few places.
func altered(t *rapid.T) string {
	text := rapid.SampledFrom([]string{sample, sharedSample}).Draw(t, "of")
	quoted := func(word string) string {
		out, err := json.Marshal(word)
		require.NoError(t, err)
		return string(out)
	}
	for range rapid.IntRange(1, 2).Draw(t, "changes") {
		switch rapid.IntRange(0, 4).Draw(t, "what") {
		case 0:
			p := rapid.SampledFrom(places).Draw(t, "place")
			text = strings.Replace(text, p.old, quoted(rapid.SampledFrom(p.words).Draw(t, "word"))+strings.Repeat(",", strings.Count(p.old, ",")), 1)
		case 1:
			of := rapid.SampledFrom([]string{`"203.0.113.140", "port": 5432, "family": "ipv4", "tls": "in-band"`, `"192.0.2.10", "port": 3306, "family": "ipv4", "tls": "in-band"`}).Draw(t, "endpoint")
			text = strings.Replace(text, of, fmt.Sprintf(`%s, "port": 5432, "family": %q, "tls": "in-band"`,
				quoted(rapid.SampledFrom(addresses).Draw(t, "address")), rapid.SampledFrom([]string{"ipv4", "ipv6"}).Draw(t, "family")), 1)
		case 2:
			text = strings.Replace(text, `["10.64.1.12"]`, "["+quoted(rapid.SampledFrom(addresses).Draw(t, "node"))+"]", 1)
		case 3:
			text = strings.Replace(text, `"label": "office"`, `"expires": `+quoted(rapid.SampledFrom(ends).Draw(t, "end")), 1)
		case 4:
			text = exchanged(t, text)
		}
	}
	return text
}

// exchanged puts another value in the place of one in the document, or leaves a member out.
func exchanged(t *rapid.T, text string) string {
	var document any
	if json.Unmarshal([]byte(text), &document) != nil {
		return text
	}
	var slots []func(any)
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, key := range sortedKeys(v) {
				slots = append(slots, func(with any) {
					if v[key] = with; with == absent {
						delete(v, key)
					}
				})
				walk(v[key])
			}
		case []any:
			for i := range v {
				slots = append(slots, func(with any) {
					if with != absent {
						v[i] = with
					}
				})
				walk(v[i])
			}
		}
	}
	walk(document)
	with := any(absent)
	if n := rapid.IntRange(-1, len(values)-1).Draw(t, "value"); n >= 0 {
		with = json.RawMessage(values[n])
	}
	rapid.SampledFrom(slots).Draw(t, "slot")(with)
	out, err := json.MarshalIndent(document, "", " ")
	require.NoError(t, err)
	return string(out)
}

// absent takes a member away.
const absent = "\x00absent"

// TestSchemaTakesWhatTheParserTakes: an editor that goes by the schema must not call a policy wrong that comes into force.
func TestSchemaTakesWhatTheParserTakes(t *testing.T) {
	fits := fitsSchema(t)
	taken := 0
	rapid.Check(t, func(t *rapid.T) {
		text := altered(t)
		if _, err := policy.Parse("p", []byte(text)); err != nil {
			return
		}
		taken++
		require.NoError(t, fits(text), text)
	})
	require.NotZero(t, taken, "nothing that the parser takes was tried")
}

// TestWordsAgree: of single words, schema and parser say the same; in few cases a schema cannot see what is wrong.
func TestWordsAgree(t *testing.T) {
	unseen := map[string]bool{ // by the schema
		"1::2::3": true, "::1": true, "::": true, "127.0.0.1": true, "224.0.0.1": true, "ff02::1": true, "::ffff:192.0.2.1": true, "::FFFF:192.0.2.1": true, "1:2:3:4:5:6:7:8:9": true,
		"192.0.2.1/24": true, "::ffff:192.0.2.0/120": true, "1::2::/16": true, "2027-02-30T18:00:00Z": true, "2027-01-31T24:00:00Z": true, "2027-01-31T18:00:60Z": true,
		"2027-01-31T18:00:00+24:00": true, "0001-01-01T00:00:00Z": true, "none": true, "Redis": true,
	}
	fits := fitsSchema(t)
	check := func(t *testing.T, word, text string) {
		_, err := policy.Parse("p", []byte(text))
		fit := fits(text)
		if err == nil {
			require.NoError(t, fit, "%q", word)
		} else if !unseen[word] {
			require.Error(t, fit, "%q: %v", word, err)
		}
	}
	quoted := func(word string) string {
		out, err := json.Marshal(word)
		require.NoError(t, err)
		return string(out)
	}
	for _, p := range places {
		for _, word := range p.words {
			check(t, word, strings.Replace(sample, p.old, quoted(word)+strings.Repeat(",", strings.Count(p.old, ",")), 1))
		}
	}
	for _, word := range addresses {
		check(t, word, strings.Replace(sample, `["10.64.1.12"]`, "["+quoted(word)+"]", 1))
	}
	for _, word := range ends {
		check(t, word, strings.Replace(sample, `"label": "office"`, `"expires": `+quoted(word), 1))
	}
}

// TestNoDatabase: whoever removes the last database must be able to say so, in either language; it is worth a word.
func TestNoDatabase(t *testing.T) {
	text := `{"version": 1, "point": {"name": "g", "model": "dedicated"}, "databases": []}`
	p := parse(t, text)
	require.NoError(t, fitsSchema(t)(text))
	require.Len(t, p.Warnings(), 1)
	require.Contains(t, p.Warnings()[0].Text, "protects no database")
	require.Empty(t, parse(t, sharedSample).Warnings())
}

// TestControlCharactersAreRefused: a label is shown to people, and comes from customers.
func TestControlCharactersAreRefused(t *testing.T) {
	_, err := policy.Parse("p", []byte(edit(t, sample, `"office"`, `"a\nb\u001b[31mRED"`)))
	var e *policy.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "databases[0].firewall_rules[0].label", e.Path)
	require.NotZero(t, e.Line)
	require.Contains(t, e.Reason, "U+000A")
	require.NotEmpty(t, e.Hint)
	_, err = policy.Parse("p", []byte(edit(t, sample, `"version": 1`, `"version": 1, "\u001b[31m": 1`)))
	require.ErrorAs(t, err, &e)
	require.Equal(t, `"\x1b[31m"`, e.Path)
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }
