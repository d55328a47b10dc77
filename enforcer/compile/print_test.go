package compile

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

func TestTmp(t *testing.T) {
	data, err := os.ReadFile("testdata/dedicated.json")
	require.NoError(t, err)
	p, err := policy.Parse("x", data)
	require.NoError(t, err)
	tab, err := Compile(p)
	require.NoError(t, err)
	fmt.Println(p.Warnings())
	require.NoError(t, os.WriteFile("/tmp/pol/out.nft", []byte(ruleset.Print(tab)), 0o600))
}
