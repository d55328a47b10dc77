package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/sim/netns/netnstest"
)

func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"orders at 203.0.113.1: Büro 😀": "orders at 203.0.113.1: Büro 😀", "a\nb\x1b[31mRED": `a\u000ab\u001b[31mRED`,
		"\u009b31m": `\u009b31m`, "\u202eevil": `\u202eevil`, "\x7f": `\u007f`, "\x9b\xff": `\x9b\xff`, "�": "�", "": "",
	} {
		require.Equal(t, want, oneLine(text))
	}
}

func TestPrintable(t *testing.T) {
	var out bytes.Buffer
	n, err := io.WriteString(printable{&out}, "a\tb\n\x1b[1m")
	require.NoError(t, err)
	require.Equal(t, 8, n)
	require.Equal(t, "a\tb\n\\u001b[1m", out.String())
	out.Reset()
	word := "\x1b\u009b\u202e\x7f\n"
	require.NoError(t, json.NewEncoder(printable{&out}).Encode(word))
	var back string
	require.NoError(t, json.Unmarshal(out.Bytes(), &back), out.String())
	require.Equal(t, word, back, "JSON says what it said")
	require.NotContains(t, out.String(), "\u009b")
	_, err = io.WriteString(printable{closedPipe{}}, "x")
	require.Error(t, err)
}

type closedPipe struct{}

func (closedPipe) Write([]byte) (int, error) { return 0, errors.New("closed") }

// TestOthersDoNotSpeakToTheTerminal: another program's comments, in our table and in others, are shown, and do nothing.
func TestOthersDoNotSpeakToTheTerminal(t *testing.T) {
	ns := netnstest.New(t)
	nft := netnstest.Tool(t, "nft")
	code, _, errs := fed(t, ns, understood, "enforce", "apply")
	require.Equal(t, exitOK, code, errs)
	require.NoError(t, ns.Do(func() error {
		cmd := exec.Command(nft, "-f", "-")
		cmd.Stdin = strings.NewReader("add element inet drawbridge custom4_orders { 192.0.2.0/24 comment \"\x1b[31mRED\" }\n" +
			"add table inet other\nadd chain inet other c { type filter hook prerouting priority -400; comment \"\x1b[32mGREEN\"; }\n" +
			"add rule inet other c ct mark set 0xffffffff comment \"\x1b[33mYELLOW\"\n")
		said, err := cmd.CombinedOutput()
		require.NoError(t, err, string(said))
		return nil
	}))
	for _, args := range []string{"rules", "verify", "plan", "doctor", "status", "explain --from 192.0.2.1 --to orders"} {
		_, out, errs := fed(t, ns, understood, append([]string{"enforce"}, strings.Fields(args)...)...)
		require.NotContains(t, out+errs, "\x1b", args)
	}
	_, out, _ := fed(t, ns, "", "enforce", "rules")
	require.Contains(t, out, `\u001b[31mRED`)
}
