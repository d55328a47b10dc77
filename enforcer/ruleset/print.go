package ruleset

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Print writes the table in nft(8) syntax, one object a line, elements sorted by key. `nft -f` loads the result: it
// creates the table, or adds to one of that name.
//
// Where a header field needs a protocol that the rule does not name, nft(8) puts a test for it in front when it loads
// the text; the kernel's own copy of the table has no such test where the chain is reached by that protocol only.
func Print(t Table) string {
	p := &printer{table: t}
	p.line("%s {", t.Title())
	for _, name := range counterNames(t) {
		p.line("\tcounter %s {", name)
		p.line("\t}")
	}
	for _, s := range t.Sets {
		p.set(s)
	}
	for _, c := range t.Chains {
		p.chain(c)
	}
	p.line("}")
	return p.b.String()
}

// PrintRule writes one rule's statements in nft(8) syntax, without its comment.
func PrintRule(r Rule) string {
	parts := make([]string, len(r.Statements))
	for i, s := range r.Statements {
		parts[i] = printStatement(s)
	}
	return strings.Join(parts, " ")
}

// counterNames are the named counters of the rules, sorted: nft(8) wants them declared.
func counterNames(t Table) []string {
	var names []string
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for _, s := range r.Statements {
				if counter, ok := s.(Counter); ok && counter.Name != "" {
					names = append(names, counter.Name)
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

type printer struct {
	table Table
	b     strings.Builder
}

func (p *printer) line(format string, args ...any) {
	fmt.Fprintf(&p.b, format, args...)
	p.b.WriteByte('\n')
}

func (p *printer) set(s Set) {
	kind := "set"
	if s.Verdicts || s.Data != TypeInvalid {
		kind = "map"
	}
	p.line("\t%s %s {", kind, s.Name)
	p.line("\t\t%s", p.keyType(s))
	if flags := setFlags(s); len(flags) > 0 {
		p.line("\t\tflags %s", strings.Join(flags, ","))
	}
	if s.Size > 0 {
		p.line("\t\tsize %d", s.Size)
	}
	if s.Timeout > 0 {
		p.line("\t\ttimeout %s", printDuration(s.Timeout))
	}
	if s.Counter {
		p.line("\t\tcounter")
	}
	p.elements(s)
	p.line("\t}")
}

// keyType names the key's type. nft(8) cannot name the integers behind a mark, so that a set of those which the kernel
// fills is written by the fields of the rule that fills it.
func (p *printer) keyType(s Set) string {
	if slices.Contains(s.Key, TypeMark) && !s.Verdicts {
		if fields, data := p.filledFrom(s.Name); len(fields) > 0 && s.Data != TypeInvalid {
			return "typeof " + printFields(fields) + " : " + data.String()
		} else if len(fields) > 0 {
			return "typeof " + printFields(fields)
		}
	}
	names := make([]string, len(s.Key))
	for i, t := range s.Key {
		names[i] = t.String()
	}
	out := "type " + strings.Join(names, " . ")
	if s.Verdicts {
		out += " : verdict"
	}
	if s.Data != TypeInvalid {
		out += " : " + s.Data.String()
	}
	return out
}

// filledFrom returns the key, and the value of a map, of the first rule that puts elements into the set, nil if there is none.
func (p *printer) filledFrom(set string) (key []Field, data Field) {
	for _, c := range p.table.Chains {
		for _, r := range c.Rules {
			for _, s := range r.Statements {
				if d, ok := s.(Dynset); ok && d.Set == set {
					return d.Key, d.Data
				}
			}
		}
	}
	return nil, Field{}
}

func setFlags(s Set) []string {
	var flags []string
	if s.Interval {
		flags = append(flags, "interval")
	}
	if s.Dynamic {
		flags = append(flags, "dynamic")
	}
	if s.Timeout > 0 || s.HasTimeout {
		flags = append(flags, "timeout")
	}
	return flags
}

func (p *printer) elements(s Set) {
	if len(s.Elements) == 0 {
		return
	}
	sorted := slices.SortedFunc(slices.Values(s.Elements), func(a, b Element) int { return cmp.Compare(a.Key, b.Key) })
	p.line("\t\telements = {")
	for _, e := range sorted {
		p.line("\t\t\t%s,", PrintElement(s, e))
	}
	p.line("\t\t}")
}

// PrintElement writes one element of a set in nft(8) syntax.
func PrintElement(s Set, e Element) string {
	out := printKey(s.Key, e.Key)
	if s.Interval && e.End != "" && e.End != e.Key {
		out = printRange(s.Key[0], e.Key, e.End)
	}
	if e.Timeout > 0 {
		out += " timeout " + printDuration(e.Timeout)
	}
	if e.Comment != "" {
		out += " comment " + printString(e.Comment)
	}
	if s.Verdicts {
		out += " : " + printVerdict(e.Verdict)
	}
	return out
}

// printKey cuts a key into its parts. A key that does not fit its types is written as bare hexadecimal, which nft(8)
// refuses: better than a part left out.
func printKey(types []DataType, key Key) string {
	parts := make([]string, 0, len(types))
	rest := []byte(key)
	for _, t := range types {
		n := t.Len()
		if n == 0 || len(rest) < n {
			return fmt.Sprintf("0x%x", key)
		}
		parts = append(parts, printData(t, rest[:n]))
		rest = rest[n:]
	}
	return strings.Join(parts, " . ")
}

// printRange prefers the prefix that the range is, if it is one, as people write it.
func printRange(t DataType, from, to Key) string {
	first, ok1 := netip.AddrFromSlice([]byte(from))
	last, ok2 := netip.AddrFromSlice([]byte(to))
	if (t == TypeIPv4Addr || t == TypeIPv6Addr) && ok1 && ok2 {
		for bits := range first.BitLen() {
			if prefix := netip.PrefixFrom(first, bits); prefix.Masked().Addr() == first && lastAddr(prefix) == last {
				return prefix.String()
			}
		}
	}
	return printData(t, []byte(from)) + "-" + printData(t, []byte(to))
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(b) // as long as it was
	return last
}

func printData(t DataType, b []byte) string {
	switch t {
	case TypeIPv4Addr, TypeIPv6Addr:
		if a, ok := netip.AddrFromSlice(b); ok {
			return a.String()
		}
	case TypeInetService:
		return fmt.Sprint(binary.BigEndian.Uint16(b))
	case TypeIfname:
		return printString(strings.TrimRight(string(b), "\x00"))
	case TypeMark:
		return fmt.Sprintf("0x%08x", binary.NativeEndian.Uint32(b))
	}
	return fmt.Sprintf("0x%x", b)
}

func (p *printer) chain(c Chain) {
	p.line("\tchain %s {", c.Name)
	if c.Hook != HookNone {
		p.line("\t\ttype filter hook %s priority %d; policy %s;", c.Hook, c.Priority, printVerdict(c.Policy))
	}
	for _, r := range c.Rules {
		text := PrintRule(r)
		if r.Comment != "" {
			text += " comment " + printString(r.Comment)
		}
		p.line("\t\t%s", text)
	}
	p.line("\t}")
}

// printString quotes for nft(8), which knows no escapes: a quote or a line break inside becomes an apostrophe or a space.
func printString(s string) string {
	return `"` + strings.NewReplacer(`"`, "'", "\n", " ", "\r", " ").Replace(s) + `"`
}

// printDuration writes whole units, days first, as nft(8) reads them.
func printDuration(d time.Duration) string {
	if d <= 0 {
		return "0s"
	}
	var out strings.Builder
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if n := d / unit.length; n > 0 {
			fmt.Fprintf(&out, "%d%s", n, unit.name)
			d -= n * unit.length
		}
	}
	return out.String()
}
