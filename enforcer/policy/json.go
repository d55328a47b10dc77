package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of a document, both inclusive. A policy of 10,000 databases with 30 rules each is about 30 MiB, six deep.
const (
	MaxSize  = 64 << 20
	MaxDepth = 32
)

// kind is the JSON type of a value.
type kind uint8

const (
	kindNull kind = iota
	kindObject
	kindArray
	kindString
	kindNumber
	kindBool
)

func (k kind) String() string {
	return [...]string{"null", "an object", "an array", "a string", "a number", "true or false"}[k]
}

// value is one JSON value with its place in the document.
type value struct {
	kind    kind
	truth   bool
	offset  int
	end     int    // of the document, behind the value
	text    string // of a string or number
	members []member
	items   []value
}

type member struct {
	name   string
	offset int
	value  value
}

// document is the source of a policy, for the places in errors.
type document struct {
	name string
	data []byte
	kept bool // see Reader.Kept
}

// fail makes an error at an offset of the document; a negative offset means the whole.
func (d document) fail(offset int, path, reason, hint string) *Error {
	e := &Error{Name: d.name, Path: path, Reason: reason, Hint: hint}
	if offset >= 0 {
		before := d.data[:min(offset, len(d.data))]
		e.Line = 1 + bytes.Count(before, []byte("\n"))
		e.Column = len(before) - bytes.LastIndexByte(before, '\n')
	}
	return e
}

// whole is the value of a document, and the text of which its strings and offsets are parts.
type whole struct {
	value
	text string
}

// read parses the document as JSON and nothing but JSON: one value, valid UTF-8, no NUL, no name twice in an object.
func (d document) read() (whole, *Error) {
	if len(d.data) > MaxSize {
		return whole{}, d.fail(-1, "", fmt.Sprintf("%d bytes are more than %d MiB", len(d.data), MaxSize>>20), "split the point, or send fewer databases")
	}
	if i := bytes.IndexByte(d.data, 0); i >= 0 {
		return whole{}, d.fail(i, "", "NUL byte", "send JSON text in UTF-8")
	}
	if !utf8.Valid(d.data) {
		return whole{}, d.fail(firstInvalid(d.data), "", "not valid UTF-8", "send JSON text in UTF-8")
	}
	if !json.Valid(d.data) {
		var all json.RawMessage
		return whole{}, d.syntax(json.Unmarshal(d.data, &all))
	}
	r := reader{document: d, text: string(d.data)}
	v, err := r.value(0)
	return whole{value: v, text: r.text}, err
}

func firstInvalid(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(data)
}

func (d document) syntax(err error) *Error {
	offset := len(d.data)
	var s *json.SyntaxError
	if errors.As(err, &s) {
		offset = max(int(s.Offset)-1, 0)
	}
	reason := strings.TrimPrefix(err.Error(), "json: ")
	if offset >= len(d.data)-1 && strings.Contains(reason, "unexpected end") {
		e := d.fail(len(d.data), "", "the document is cut off: "+reason, "send the whole document")
		e.cutOff = true
		return e
	}
	return d.fail(offset, "", reason, "the document is one JSON object and nothing after it")
}

// reader reads a document whose syntax is known to be right. encoding/json reads tokens as well, but takes five times as
// long, and does not tell where they begin.
type reader struct {
	document
	text string // the document; strings in values are parts of it
	at   int
	// trail leads to the value that is being read. A path is only put together where there is an error.
	trail []step
	// What is in objects and arrays that are being read, the innermost last. Each takes its own part when it ends, in a slice of
	// the length that it has by then.
	members []member
	items   []value
}

// step is the name of a member, or the index of an item.
type step struct {
	name  string
	index int
	item  bool
}

func (r *reader) enter(s step) { r.trail = append(r.trail, s) }
func (r *reader) leave()       { r.trail = r.trail[:len(r.trail)-1] }

// failHere makes an error at an offset, with the path of the value that is being read.
func (r *reader) failHere(offset int, reason, hint string) *Error {
	path := ""
	for _, s := range r.trail {
		if s.item {
			path = index(path, s.index)
		} else {
			path = join(path, s.name)
		}
	}
	return r.fail(offset, path, reason, hint)
}

// separators are what may stand between two tokens (RFC 8259 section 2).
const separators = " \t\r\n,:"

// next returns the first byte of the next token; 0 at the end.
func (r *reader) next() byte {
	for r.at < len(r.text) && strings.IndexByte(separators, r.text[r.at]) >= 0 {
		r.at++
	}
	if r.at == len(r.text) {
		return 0
	}
	return r.text[r.at]
}

func (r *reader) value(depth int) (value, *Error) {
	first, offset := r.next(), r.at
	switch first {
	case '"':
		text, err := r.string()
		if err == nil && strings.IndexByte(text, 0) >= 0 {
			err = r.failHere(offset, "NUL character in a string", "")
		}
		return value{kind: kindString, offset: offset, end: r.at, text: text}, err
	case '{', '[':
		if depth >= MaxDepth {
			return value{}, r.failHere(offset, fmt.Sprintf("nested more than %d deep", MaxDepth), "")
		}
		r.at++
		if first == '{' {
			return r.object(offset, depth+1)
		}
		return r.array(offset, depth+1)
	}
	word := r.word()
	v := value{kind: kindNumber, offset: offset, end: r.at, text: word}
	switch word {
	case "true", "false":
		v.kind, v.truth, v.text = kindBool, word == "true", ""
	case "null":
		v.kind, v.text = kindNull, ""
	}
	return v, nil
}

// word takes a number, true, false or null.
func (r *reader) word() string {
	from := r.at
	for r.at < len(r.text) && strings.IndexByte(separators+"]}", r.text[r.at]) < 0 {
		r.at++
	}
	return r.text[from:r.at]
}

// string takes a string.
func (r *reader) string() (string, *Error) {
	from := r.at
	for r.at++; r.at < len(r.text) && r.text[r.at] != '"'; r.at++ {
		if r.text[r.at] == '\\' {
			r.at++ // what is escaped may be a quote
		}
	}
	r.at++
	raw := r.text[from:min(r.at, len(r.text))]
	if strings.IndexByte(raw, '\\') < 0 {
		return strings.Trim(raw, `"`), nil
	}
	var text string
	if err := json.Unmarshal([]byte(raw), &text); err != nil {
		return "", r.failHere(from, err.Error(), "")
	}
	return text, nil
}

// fewMembers is up to where looking for a name among those before it is cheaper than a map.
const fewMembers = 16

func (r *reader) object(offset, depth int) (value, *Error) {
	var seen map[string]bool
	from := len(r.members)
	for r.next() == '"' {
		at := r.at
		name, err := r.string()
		if err != nil {
			return value{}, err
		}
		before := r.members[from:]
		if len(before) == fewMembers {
			seen = namesOf(before)
		}
		if seen[name] || seen == nil && slices.ContainsFunc(before, func(m member) bool { return m.name == name }) {
			r.enter(step{name: name})
			return value{}, r.failHere(at, "the name occurs twice in one object", "leave one of them out")
		}
		if seen != nil {
			seen[name] = true
		}
		r.enter(step{name: name})
		child, err := r.value(depth)
		r.leave()
		if err != nil {
			return value{}, err
		}
		r.members = append(r.members, member{name: name, offset: at, value: child})
	}
	r.at++
	return value{kind: kindObject, offset: offset, end: r.at, members: pop(&r.members, from)}, nil
}

func namesOf(members []member) map[string]bool {
	names := make(map[string]bool, 2*len(members))
	for _, m := range members {
		names[m.name] = true
	}
	return names
}

func (r *reader) array(offset, depth int) (value, *Error) {
	from := len(r.items)
	for first := r.next(); first != ']' && first != 0; first = r.next() {
		r.enter(step{index: len(r.items) - from, item: true})
		child, err := r.value(depth)
		r.leave()
		if err != nil {
			return value{}, err
		}
		r.items = append(r.items, child)
	}
	r.at++
	return value{kind: kindArray, offset: offset, end: r.at, items: pop(&r.items, from)}, nil
}

// pop takes what is behind a place off a stack.
func pop[T any](stack *[]T, from int) []T {
	top := slices.Clone((*stack)[from:])
	*stack = (*stack)[:from]
	return top
}

// join adds a member to a path. A name that could be taken for more than one, or speaks to a terminal, is quoted.
func join(path, name string) string {
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return c > '~' || !isAlphanumeric(byte(c)) && c != '-' && c != '_' }) {
		name = strconv.QuoteToASCII(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
