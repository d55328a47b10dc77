package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"drawbridge/enforcer/policy"
)

// oneLine is text that others may have written, in the kernel for one, as one line that cannot speak to a terminal: control characters, and
// those that turn the direction of writing, stand there as \u001b does in JSON.
func oneLine(text string) string { return escaped(text, "") }

// printable passes on text of several lines, with everything else that oneLine escapes escaped. What is JSON stays so.
type printable struct{ to io.Writer }

func (p printable) Write(b []byte) (int, error) {
	if _, err := io.WriteString(p.to, escaped(string(b), "\n\t")); err != nil {
		return 0, err
	}
	return len(b), nil
}

func escaped(text, but string) string {
	if !strings.ContainsFunc(text, func(c rune) bool { return speaks(c) && !strings.ContainsRune(but, c) }) {
		return text
	}
	var out strings.Builder
	for at := 0; at < len(text); {
		c, size := utf8.DecodeRuneInString(text[at:])
		switch {
		case c == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, `\x%02x`, text[at])
		case c != utf8.RuneError && speaks(c) && !strings.ContainsRune(but, c):
			fmt.Fprintf(&out, `\u%04x`, c)
		default:
			out.WriteString(text[at : at+size])
		}
		at += size
	}
	return out.String()
}

// speaks tells whether a character does something to a terminal, or to the order of the text around it (UAX 9), or is none.
func speaks(c rune) bool {
	return policy.IsControl(c) || c == utf8.RuneError
}
