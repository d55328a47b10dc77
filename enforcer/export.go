package enforcer

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/policy"
	"drawbridge/enforcer/ruleset"
)

// Export writes what Apply would bring into force as a file for nft(8), and asks no kernel. Loading it replaces the tables
// that stand there, in one transaction; what is loaded reads back as what Apply writes. A policy that is refused is
// ErrRefused.
func Export(document []byte, options Options) (string, error) {
	options = options.withDefaults()
	p, err := policy.Parse(options.Name, document)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrRefused, err)
	}
	mark, err := compile.NewMark(options.Compile.MarkMask)
	if err != nil {
		return "", err
	}
	main, err := options.table(p)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "#!/usr/sbin/nft -f\n# The policy of point %s, %s point with %d databases, written by drawbridge enforce export.\n", p.Point(), p.Model(), len(p.Databases()))
	fmt.Fprintf(&b, "# From %s, SHA-256 %x.\n", oneLine(options.Name), sha256.Sum256(document))
	fmt.Fprintf(&b, "# The bits %#08x of the conntrack mark hold what connections speak. Loading this replaces the tables below.\n", options.Compile.MarkMask)
	if !nextExpiry(p, options.Clock()).IsZero() {
		fmt.Fprintf(&b, "# It has rules that expire: what they have left to live was counted from %s, and counts from when it is loaded.\n", options.Clock().UTC().Format(time.RFC3339))
	}
	for _, t := range append([]ruleset.Table{main}, mark.Endings()...) {
		fmt.Fprintf(&b, "\ntable %[1]s %[2]s\ndelete table %[1]s %[2]s\n%[3]s", t.Family, t.Name, ruleset.Print(t))
	}
	return b.String(), nil
}

// oneLine keeps a name from ending the comment that it stands in.
func oneLine(s string) string { return strings.Map(printable, s) }

func printable(r rune) rune {
	if r < ' ' {
		return '?'
	}
	return r
}
