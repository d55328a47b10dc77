package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"drawbridge/enforcer"
	"drawbridge/enforcer/policy"
)

// errPart: the files of a directory do not add up to one document.
var errPart = errors.New("the parts of the policy do not fit together")

// part is one file of a directory.
type part struct {
	id        identity
	text      []byte
	members   map[string]json.RawMessage // but for databases
	databases []json.RawMessage
}

// readParts puts the files of the directory together, in memory that may be used for that. Those that did not change are not read again.
func (s *source) readParts(text []byte) ([]byte, error) {
	files, err := s.files()
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%w: %s holds no *.json file", errPart, s.path)
	}
	fresh := make(map[string]part, len(files))
	size := 0
	for _, name := range files {
		p, err := s.part(name)
		if err != nil {
			return nil, err
		}
		fresh[name] = p
		if size += len(p.text); size > policy.MaxSize {
			return nil, fmt.Errorf("%w: %s: together they are more than %d MiB", errPart, name, policy.MaxSize>>20)
		}
	}
	s.parts = fresh
	return merge(roomFor(text, size), files, fresh)
}

func (s *source) part(name string) (part, error) {
	id, err := identify(name)
	if err != nil {
		return part{}, err
	}
	if old, ok := s.parts[name]; ok && old.id == id {
		return old, nil
	}
	text, err := readBounded(name, policy.MaxSize)
	if err != nil {
		return part{}, err
	}
	return parsePart(name, id, text)
}

func parsePart(name string, id identity, text []byte) (part, error) {
	p := part{id: id, text: text}
	if err := json.Unmarshal(text, &p.members); err != nil {
		return part{}, fmt.Errorf("%w: %w", errPart, placed(name, text, err))
	}
	// What encoding/json lets pass, such as a name that is there twice, must not get lost on the way.
	if err := policy.CheckSyntax(name, text); err != nil {
		return part{}, fmt.Errorf("%w: %w", errPart, err)
	}
	if list, ok := p.members["databases"]; ok {
		if err := json.Unmarshal(list, &p.databases); err != nil {
			return part{}, fmt.Errorf("%w: %s: databases: %w", errPart, name, err)
		}
		delete(p.members, "databases")
	}
	return p, nil
}

// placed puts the line and column of a syntax error in front of it.
func placed(name string, text []byte, err error) error {
	if located := policy.CheckSyntax(name, text); located != nil {
		return located
	}
	return fmt.Errorf("%s: %w", name, err)
}

// merge appends the parts, put together: their lists of databases one after the other, in the order of the files' names; of every
// other member there is one.
func merge(out []byte, files []string, parts map[string]part) ([]byte, error) {
	whole, owner := map[string]json.RawMessage{}, map[string]string{}
	var databases []json.RawMessage
	for _, name := range files {
		p := parts[name]
		for _, key := range slices.Sorted(maps.Keys(p.members)) {
			if first, taken := owner[key]; taken && !bytes.Equal(whole[key], p.members[key]) {
				return nil, fmt.Errorf("%w: %s: %q is in %s already, and differs; leave one out", errPart, name, key, first)
			}
			owner[key], whole[key] = name, p.members[key]
		}
		databases = append(databases, p.databases...)
	}
	// The databases' bytes are left as they are, so that those that did not change are known again.
	out = append(out, '{')
	for _, key := range slices.Sorted(maps.Keys(whole)) {
		quoted, err := json.Marshal(key)
		if err != nil {
			return nil, err
		}
		out = fmt.Appendf(out, "%s: %s,\n", quoted, whole[key])
	}
	out = append(out, `"databases": [`...)
	for i, database := range databases {
		if i > 0 {
			out = append(out, ",\n"...)
		}
		out = append(out, database...)
	}
	return append(out, "]}\n"...), nil
}

// where says in which file of the directory an error about a database is, which the whole document's line does not.
func (s *source) where(err error) error {
	e, ok := errors.AsType[*policy.Error](err)
	if !ok || !s.dir {
		return err
	}
	rest, ofDatabase := strings.CutPrefix(e.Path, "databases[")
	number, member, closed := strings.Cut(rest, "]")
	index, notNumber := strconv.Atoi(number)
	if !ofDatabase || !closed || notNumber != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(s.parts)) {
		if n := len(s.parts[name].databases); index >= n {
			index -= n
			continue
		}
		located := *e
		located.Name, located.Line, located.Column = name, 0, 0
		located.Path = fmt.Sprintf("databases[%d]%s", index, member)
		return fmt.Errorf("%w: %w", enforcer.ErrRefused, &located)
	}
	return err
}
