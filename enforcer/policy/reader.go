package policy

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"unicode/utf8"
)

// Reader parses one version of a document after the other. What has the very bytes that it had in the version before is not
// parsed again. The result is that of Parse, errors included: what is refused here was refused by a parse of the whole. The
// zero value has no version before. Use it from one goroutine at a time.
type Reader struct {
	// Name stands for the document in errors.
	Name string

	last *parsed
}

// parsed is a document that was parsed, and where its databases are in it.
type parsed struct {
	data   []byte
	spans  []span // as many as policy.databases
	policy *Policy
}

// span is where a value is in a document.
type span struct{ start, end int }

// Difference is what two policies differ in.
type Difference struct {
	// Databases says that nothing differs but these databases, of which no endpoint, node or name does.
	Databases bool
	// Before and After hold the databases that differ, as they were and as they are, and all of the policies that is not a
	// database. Both are nil unless Databases is true and there are such databases.
	Before, After *Policy
}

// Read parses the next version. The difference is that to the version that was read without an error before; its zero value says
// that anything may differ. data must not be changed afterwards.
func (r *Reader) Read(data []byte) (*Policy, Difference, error) {
	if next, difference, ok := r.patch(data); ok {
		r.last = next
		return next.policy, difference, nil
	}
	p, root, err := parse(document{name: r.Name, data: data})
	if err != nil {
		return nil, Difference{}, err
	}
	r.last = &parsed{data: data, spans: databaseSpans(root), policy: p}
	return p, Difference{}, nil
}

func databaseSpans(root value) []span {
	for _, m := range root.members {
		if m.name != "databases" {
			continue
		}
		spans := make([]span, len(m.value.items))
		for i, v := range m.value.items {
			spans[i] = span{start: v.offset, end: v.end}
		}
		return spans
	}
	return nil
}

// patch parses what differs from the last version. It is sure of what it accepts; whatever else there is, it leaves to
// a parse of the whole.
func (r *Reader) patch(data []byte) (*parsed, Difference, bool) {
	if r.last == nil || len(r.last.spans) == 0 || len(data) > MaxSize {
		return nil, Difference{}, false
	}
	p := patcher{old: r.last, data: data, name: r.Name}
	if !p.walk() {
		return nil, Difference{}, false
	}
	if len(p.changed) == 0 {
		return p.next(r.last.policy), Difference{Databases: true}, true
	}
	before, after := *r.last.policy, *r.last.policy
	before.databases = nil
	after.databases = slices.Clone(after.databases)
	fresh := after
	fresh.databases = nil
	for _, c := range p.changed {
		before.databases = append(before.databases, after.databases[c.index])
		fresh.databases = append(fresh.databases, c.database)
		after.databases[c.index] = c.database
	}
	return p.next(&after), Difference{Databases: true, Before: &before, After: &fresh}, true
}

// patcher walks over a document side by side with the version before.
type patcher struct {
	old     *parsed
	data    []byte
	name    string
	at      int
	spans   []span
	changed []changedDatabase
}

type changedDatabase struct {
	index    int
	database Database
}

func (p *patcher) next(policy *Policy) *parsed {
	return &parsed{data: p.data, spans: p.spans, policy: policy}
}

// walk compares what is around the databases, and the databases one by one. An object ends where its own bytes say so: where
// those of an old one follow, there is that object and nothing else.
func (p *patcher) walk() bool {
	spans := p.old.spans
	head := p.old.data[:spans[0].start]
	if !bytes.HasPrefix(p.data, head) {
		return false
	}
	p.at = len(head)
	p.spans = make([]span, 0, len(spans))
	for i, s := range spans {
		if i > 0 && !p.comma() {
			return false
		}
		text := p.old.data[s.start:s.end]
		if bytes.HasPrefix(p.data[p.at:], text) {
			p.take(len(text))
			continue
		}
		if !p.database(i) {
			return false
		}
	}
	return bytes.Equal(p.data[p.at:], p.old.data[spans[len(spans)-1].end:])
}

func (p *patcher) take(length int) {
	p.spans = append(p.spans, span{start: p.at, end: p.at + length})
	p.at += length
}

// comma takes one comma and the space around it.
func (p *patcher) comma() bool {
	rest := bytes.TrimLeft(p.data[p.at:], " \t\r\n")
	if len(rest) == 0 || rest[0] != ',' {
		return false
	}
	rest = bytes.TrimLeft(rest[1:], " \t\r\n")
	p.at = len(p.data) - len(rest)
	return true
}

// databaseDepth is how deep the objects of databases are nested in a document.
const databaseDepth = 2

// database parses the object that is here now in the place of the i-th database.
func (p *patcher) database(i int) bool {
	var raw json.RawMessage
	if p.at >= len(p.data) || p.data[p.at] != '{' || json.NewDecoder(bytes.NewReader(p.data[p.at:])).Decode(&raw) != nil {
		return false
	}
	doc := document{name: p.name, data: raw}
	if bytes.IndexByte(raw, 0) >= 0 || !utf8.Valid(raw) {
		return false
	}
	r := reader{document: doc, text: string(raw)}
	v, failed := r.value(databaseDepth)
	if failed != nil {
		return false
	}
	d := &decoder{document: doc}
	was := p.old.policy.databases[i]
	rest := *p.old.policy // the database is decoded as if it were the only one: what the others claim does not change
	db := d.database(v, &rest, &claims{d: d, names: map[string]int{}, keys: map[claimKey]claim{}})
	if d.err != nil || !sameClaims(was, db) {
		return false
	}
	if !reflect.DeepEqual(was, db) {
		p.changed = append(p.changed, changedDatabase{index: i, database: db})
	}
	p.take(len(raw))
	return true
}

// sameClaims tells whether two versions of a database have the same name, and claim the same addresses, ports and nodes: then
// the other databases of the point do not matter for what has changed.
func sameClaims(a, b Database) bool {
	return a.name == b.name && a.engine == b.engine && slices.Equal(a.endpoints, b.endpoints) && slices.Equal(a.clusterPorts, b.clusterPorts) &&
		slices.EqualFunc(a.nodes, b.nodes, func(x, y Node) bool {
			return x.Name == y.Name && x.Here == y.Here && slices.Equal(x.Addresses, y.Addresses) && slices.Equal(x.Ports, y.Ports)
		})
}
