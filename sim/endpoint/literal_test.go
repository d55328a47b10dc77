package endpoint

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseSelect(t *testing.T) {
	for statement, want := range map[string][]column{
		"select 'x'":                  {{text: "'x'", value: "x"}},
		"SELECT 1;":                   {{text: "1", value: "1", number: true}},
		"select ''":                   {{text: "''"}},
		"select 'it''s'":              {{text: "'it''s'", value: "it's"}},
		"select 'a' as b, 2 two":      {{text: "'a'", value: "a", alias: "b"}, {text: "2", value: "2", number: true, alias: "two"}},
		`select 1 "a b"`:              {{text: "1", value: "1", number: true, alias: "a b"}},
		"-- hello\n select /* x */ 7": {{text: "7", value: "7", number: true}},
		"select version()":            {{text: "version()", name: true}},
		"select @@version limit 1":    {{text: "@@version", name: true}},
		"select 123456789":            {{text: "123456789", value: "123456789", number: true}},
	} {
		got, err := parseSelect(statement)
		require.NoError(t, err, statement)
		require.Equal(t, want, got, statement)
	}
}

func TestParseSelectRefusesTheRest(t *testing.T) {
	for _, statement := range []string{
		"", ";", "select", "select ", "select 'x", "select 'x' from t", "select 1,", "select 1 2", "select 1; select 2", "selects 1",
		"select 1234567890", "select 1a", "select -1", "select 'a\\b'", "select version(", "select @@@x", "select 1 limit", "select 1 limit x",
		"select 1 as", "select *", "update t",
	} {
		columns, err := parseSelect(statement)
		require.ErrorIs(t, err, errNotLiteral, "%q gave %v", statement, columns)
	}
}

func TestFirstWordAndEmpty(t *testing.T) {
	require.Equal(t, "SET", firstWord(" /* x */ set names utf8"))
	require.Empty(t, firstWord(""))
	require.True(t, isEmpty(" ; -- nothing"))
	require.False(t, isEmpty("; select 1"))
}

func FuzzParseSelect(f *testing.F) {
	for _, s := range []string{"select 'x'", "SELECT 1 as one, version() limit 1;", "select 'it''s' \"a\"", "/*", "--", "select @@a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, statement string) {
		_, _ = firstWord(statement), isEmpty(statement)
		columns, err := parseSelect(statement)
		if err != nil {
			require.ErrorIs(t, err, errNotLiteral)
			require.Nil(t, columns)
			return
		}
		require.NotEmpty(t, columns)
		for _, c := range columns { // what is answered was asked
			require.Contains(t, statement, c.text)
			require.Contains(t, strings.ReplaceAll(statement, "''", "'"), c.value)
		}
	})
}
