package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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
type kind int

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
	offset  int
	text    string // of a string or number
	truth   bool
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

// read parses the document as JSON and nothing but JSON: one value, valid UTF-8, no NUL, no name twice in an object.
func (d document) read() (value, *Error) {
	if len(d.data) > MaxSize {
		return value{}, d.fail(-1, "", fmt.Sprintf("%d bytes are more than %d MiB", len(d.data), MaxSize>>20), "split the point, or send fewer databases")
	}
	if i := bytes.IndexByte(d.data, 0); i >= 0 {
		return value{}, d.fail(i, "", "NUL byte", "send JSON text in UTF-8")
	}
	if !utf8.Valid(d.data) {
		return value{}, d.fail(firstInvalid(d.data), "", "not valid UTF-8", "send JSON text in UTF-8")
	}
	var whole json.RawMessage
	if err := json.Unmarshal(d.data, &whole); err != nil {
		return value{}, d.syntax(err)
	}
	r := reader{document: d, tokens: json.NewDecoder(bytes.NewReader(d.data))}
	r.tokens.UseNumber()
	return r.value("", 0)
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
		return d.fail(len(d.data), "", "the document is cut off: "+reason, "send the whole document")
	}
	return d.fail(offset, "", reason, "the document is one JSON object and nothing after it")
}

type reader struct {
	document
	tokens *json.Decoder
}

// separators are what may stand between two tokens (RFC 8259 section 2).
const separators = " \t\r\n,:"

// next returns the next token and where it begins: the decoder only tells where the one before ended.
func (r *reader) next() (json.Token, int, *Error) {
	offset := int(r.tokens.InputOffset())
	for offset < len(r.data) && strings.IndexByte(separators, r.data[offset]) >= 0 {
		offset++
	}
	token, err := r.tokens.Token()
	if err != nil {
		return nil, offset, r.fail(offset, "", err.Error(), "")
	}
	return token, offset, nil
}

func (r *reader) value(path string, depth int) (value, *Error) {
	token, offset, err := r.next()
	if err != nil {
		return value{}, err
	}
	switch t := token.(type) {
	case string:
		if strings.ContainsRune(t, 0) {
			return value{}, r.fail(offset, path, "NUL character in a string", "")
		}
		return value{kind: kindString, offset: offset, text: t}, nil
	case json.Number:
		return value{kind: kindNumber, offset: offset, text: t.String()}, nil
	case bool:
		return value{kind: kindBool, offset: offset, truth: t}, nil
	case json.Delim:
		if depth >= MaxDepth {
			return value{}, r.fail(offset, path, fmt.Sprintf("nested more than %d deep", MaxDepth), "")
		}
		if t == '{' {
			return r.object(path, offset, depth+1)
		}
		return r.array(path, offset, depth+1)
	}
	return value{kind: kindNull, offset: offset}, nil
}

func (r *reader) object(path string, offset, depth int) (value, *Error) {
	v := value{kind: kindObject, offset: offset}
	seen := map[string]bool{}
	for r.tokens.More() {
		token, at, err := r.next()
		if err != nil {
			return value{}, err
		}
		name, _ := token.(string) // the syntax has been checked: names are strings
		if seen[name] {
			return value{}, r.fail(at, join(path, name), "the name occurs twice in one object", "leave one of them out")
		}
		seen[name] = true
		child, err := r.value(join(path, name), depth)
		if err != nil {
			return value{}, err
		}
		v.members = append(v.members, member{name: name, offset: at, value: child})
	}
	_, _, err := r.next()
	return v, err
}

func (r *reader) array(path string, offset, depth int) (value, *Error) {
	v := value{kind: kindArray, offset: offset}
	for r.tokens.More() {
		child, err := r.value(index(path, len(v.items)), depth)
		if err != nil {
			return value{}, err
		}
		v.items = append(v.items, child)
	}
	_, _, err := r.next()
	return v, err
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
