package topology

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// MaxDocument is the greatest size of a topology document in bytes, inclusive.
const MaxDocument = 8 << 20

// maxName bounds names so that every name the loader derives (canary-<point>-1, edge-<region>) is still a DNS label of
// at most 63 bytes (RFC 1035, section 2.3.4).
const maxName = 40

// namePattern is a DNS label in lower case (RFC 1123, section 2.1) that begins with a letter.
var namePattern = regexp.MustCompile(`^[a-z]([a-z0-9-]*[a-z0-9])?$`)

// syntaxLine finds the place in the YAML parser's messages, the only form in which it gives one.
var syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// val is a value and its place; the zero val is absent.
type val[T any] struct {
	place
	v T
}

// vals is a list of values; its place is the list's own.
type vals[T any] struct {
	place
	items []val[T]
}

func (l vals[T]) values() []T {
	var out []T
	for _, item := range l.items {
		out = append(out, item.v)
	}
	return out
}

// reader turns YAML nodes into values. What it cannot read it reports, and gives back as absent.
type reader struct{ *problems }

// root returns the document's only node, or false if there is no such thing.
func (r reader) root(data []byte) (*yaml.Node, bool) {
	start := place{line: 1}
	if len(data) > MaxDocument {
		r.add(start, "split the world", "the document has %d bytes, at most %d are read", len(data), MaxDocument)
		return nil, false
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			r.add(start, "a world needs at least version, name, regions and internet", "the document is empty")
		} else {
			r.syntax(err, data)
		}
		return nil, false
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		r.add(place{line: second.Line, column: second.Column}, "keep one world in a file", "a second document begins here")
		return nil, false
	case !errors.Is(err, io.EOF):
		r.syntax(err, data)
		return nil, false
	}
	if !r.plain(&doc) {
		return nil, false
	}
	return doc.Content[0], true
}

func (r reader) syntax(err error, data []byte) {
	at, way, reason := place{}, "", err.Error()
	if m := syntaxLine.FindStringSubmatch(reason); m != nil {
		reason = m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			at.line = n
		}
	}
	if i := notText(data); at.line == 0 && i < len(data) { // of characters the decoder does not tell where they are
		before := data[:i]
		at.line = 1 + bytes.Count(before, []byte{'\n'})
		at.column = 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
		way = "save it as UTF-8 without control characters"
	}
	r.add(at, way, "not YAML: %s", reason)
}

// notText is where the first byte is that no YAML document has (YAML 1.2.2 section 5.1): of no character, or of one that controls something;
// the length if there is none.
func notText(data []byte) int {
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		if c == utf8.RuneError && size <= 1 || unicode.IsControl(c) && !strings.ContainsRune("\t\n\r\u0085", c) {
			return i
		}
		i += size
	}
	return len(data)
}

// plain refuses anchors and aliases anywhere: a few lines of them can expand to a document of any size.
func (r reader) plain(n *yaml.Node) bool {
	at := place{line: n.Line, column: n.Column}
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		r.add(at, "write the value out", "anchors and aliases are not accepted")
		return false
	}
	ok := true
	for _, c := range n.Content {
		ok = r.plain(c) && ok
	}
	return ok
}

// fields are the members of one mapping.
type fields struct {
	reader
	place
	nodes map[string]*yaml.Node
}

type (
	required []string
	optional []string
)

// mapping reads a mapping and reports unknown, repeated and missing fields.
func (r reader) mapping(n *yaml.Node, at place, must required, may optional) fields {
	f := fields{r, at, map[string]*yaml.Node{}}
	if n.Kind != yaml.MappingNode {
		r.add(at, "", "is %s, not a mapping", describe(n))
		return f
	}
	known := slices.Concat([]string(must), []string(may))
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		keyAt := f.member(key.Value, key)
		switch line, twice := first[key.Value]; {
		case key.Kind != yaml.ScalarNode || !slices.Contains(known, key.Value):
			r.add(keyAt, "known here: "+strings.Join(known, ", "), "unknown field")
		case twice:
			r.add(keyAt, "keep one of the two", "given twice, first in line %d", line)
		default:
			first[key.Value], f.nodes[key.Value] = key.Line, n.Content[i+1]
		}
	}
	for _, name := range must {
		if f.nodes[name] == nil {
			r.add(f.member(name, n), "", "is missing")
		}
	}
	return f
}

func (f fields) member(name string, n *yaml.Node) place {
	if f.field != "" {
		name = f.field + "." + name
	}
	return place{n.Line, n.Column, name}
}

// read applies a scalar's parser to a field; absent fields stay absent.
func read[T any](f fields, name string, parse func(reader, *yaml.Node, place) (T, bool)) val[T] {
	n := f.nodes[name]
	if n == nil {
		return val[T]{}
	}
	at := f.member(name, n)
	v, ok := parse(f.reader, n, at)
	if !ok {
		return val[T]{}
	}
	return val[T]{at, v}
}

// readAll applies a parser to each item of a field's list.
func readAll[T any](f fields, name string, parse func(reader, *yaml.Node, place) (T, bool)) vals[T] {
	n := f.nodes[name]
	if n == nil {
		return vals[T]{}
	}
	at := f.member(name, n)
	if n.Kind != yaml.SequenceNode {
		f.add(at, "", "is %s, not a list", describe(n))
		return vals[T]{}
	}
	all := vals[T]{place: at}
	for i, c := range n.Content {
		itemAt := place{c.Line, c.Column, fmt.Sprintf("%s[%d]", at.field, i)}
		if v, ok := parse(f.reader, c, itemAt); ok {
			all.items = append(all.items, val[T]{itemAt, v})
		}
	}
	return all
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "empty"
	case "!!str":
		return "a string"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "a boolean"
	}
	return "of type " + n.ShortTag()
}

// scalar returns a scalar's text if its type is the wanted one.
func (r reader) scalar(n *yaml.Node, at place, tag, want string) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != tag {
		r.add(at, "", "is %s, not %s", describe(n), want)
		return "", false
	}
	return n.Value, true
}

func readName(r reader, n *yaml.Node, at place) (string, bool) {
	s, ok := r.scalar(n, at, "!!str", "a name")
	if ok && (len(s) > maxName || !namePattern.MatchString(s)) {
		r.add(at, fmt.Sprintf("use 1 to %d of a-z, 0-9 and -, beginning with a letter, not ending with -", maxName),
			"%.60q is not a name", s)
		ok = false
	}
	return s, ok
}

func readWord(r reader, n *yaml.Node, at place) (string, bool) {
	return r.scalar(n, at, "!!str", "a word")
}

func readPort(r reader, n *yaml.Node, at place) (uint16, bool) {
	s, ok := r.scalar(n, at, "!!int", "a port number")
	if !ok {
		return 0, false
	}
	port, err := strconv.ParseUint(s, 10, 16)
	if err != nil || port == 0 {
		r.add(at, "ports are 1 to 65535, in decimal", "%.40s is not a port", s)
		return 0, false
	}
	return uint16(port), true
}

func readBool(r reader, n *yaml.Node, at place) (bool, bool) {
	s, ok := r.scalar(n, at, "!!bool", "true or false")
	return strings.EqualFold(s, "true"), ok
}

func readAddr(r reader, n *yaml.Node, at place) (netip.Addr, bool) {
	s, ok := r.scalar(n, at, "!!str", "an address")
	if !ok {
		return netip.Addr{}, false
	}
	addr, hint, reason := parseAddr(s)
	if reason != "" {
		r.add(at, hint, "%.60q %s", s, reason)
		return netip.Addr{}, false
	}
	return addr, true
}

func readPrefix(r reader, n *yaml.Node, at place) (netip.Prefix, bool) {
	s, ok := r.scalar(n, at, "!!str", "a network in CIDR notation")
	if !ok {
		return netip.Prefix{}, false
	}
	prefix, hint, reason := parsePrefix(s)
	if reason != "" {
		r.add(at, hint, "%.60q %s", s, reason)
		return netip.Prefix{}, false
	}
	return prefix, true
}
