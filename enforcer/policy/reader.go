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
	// Kept: the document was in force before, accepted by an earlier version of this package perhaps, which took any text for a label. In the place
	// of what a label may not hold any more there is U+FFFD then: it decides about nobody, and to refuse it would take what was in force away.
	Kept bool

	last *parsed
}

// parsed is what a document that was parsed said, word by word. The texts are those that the policy's own strings are parts of, so
// that keeping them keeps nothing more.
type parsed struct {
	head, tail string   // what is around the databases
	texts      []string // of the databases, as many as policy.databases
	policy     *Policy
}

// Difference is what two policies differ in.
type Difference struct {
	// Databases says that nothing differs but these databases, of which no endpoint, node or name does.
	Databases bool
	// Before and After hold the databases that differ, as they were and as they are, and all of the policies that is not a
	// database. Both are nil unless Databases is true and there are such databases.
	Before, After *Policy
}

// Read parses the next version. The difference is that to the version that was read without an error before; its zero value says
// that anything may differ. data is not needed afterwards.
func (r *Reader) Read(data []byte) (*Policy, Difference, error) {
	if next, difference, ok := r.patch(data); ok {
		r.last = next
		return next.policy, difference, nil
	}
	p, root, err := parse(document{name: r.Name, data: data, kept: r.Kept})
	if err != nil {
		return nil, Difference{}, err
	}
	r.last = takeApart(root, p)
	return p, Difference{}, nil
}

// takeApart cuts the document of a policy into its databases and what is around them.
func takeApart(root whole, p *Policy) *parsed {
	out := &parsed{policy: p}
	for _, m := range root.members {
		if m.name != "databases" || len(m.value.items) == 0 {
			continue
		}
		items := m.value.items
		out.head, out.tail = root.text[:items[0].offset], root.text[items[len(items)-1].end:]
		out.texts = make([]string, len(items))
		for i, v := range items {
			out.texts[i] = root.text[v.offset:v.end]
		}
	}
	return out
}

// patch parses what differs from the last version. It is sure of what it accepts; whatever else there is, it leaves to
// a parse of the whole.
func (r *Reader) patch(data []byte) (*parsed, Difference, bool) {
	if r.last == nil || len(r.last.texts) == 0 || len(data) > MaxSize {
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
	texts   []string // as they are now; nil: as they were
	changed []changedDatabase
}

type changedDatabase struct {
	index    int
	database *Database
}

func (p *patcher) next(policy *Policy) *parsed {
	next := *p.old
	next.policy = policy
	if p.texts != nil {
		next.texts = p.texts
	}
	return &next
}

// walk compares what is around the databases, and the databases one by one. An object ends where its own bytes say so: where
// those of an old one follow, there is that object and nothing else.
func (p *patcher) walk() bool {
	if !p.take(p.old.head) {
		return false
	}
	for i, text := range p.old.texts {
		if i > 0 && !p.comma() {
			return false
		}
		if !p.take(text) && !p.database(i) {
			return false
		}
	}
	return string(p.data[p.at:]) == p.old.tail
}

// take takes what is here if it is this text.
func (p *patcher) take(text string) bool {
	end := p.at + len(text)
	if end > len(p.data) || string(p.data[p.at:end]) != text {
		return false
	}
	p.at = end
	return true
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
	db := new(d.database(v, &rest, &claims{d: d, names: map[string]int{}, keys: map[claimKey]claim{}}))
	if d.err != nil || !sameClaims(was, db) {
		return false
	}
	if !reflect.DeepEqual(was, db) {
		p.changed = append(p.changed, changedDatabase{index: i, database: db})
	}
	if p.texts == nil {
		p.texts = slices.Clone(p.old.texts)
	}
	p.texts[i] = r.text
	p.at += len(raw)
	return true
}

// SameClaims tells whether two policies name the same databases, which claim the same addresses, ports and nodes: whatever else differs
// between them, they protect the same. It looks at nothing but what is not the very same database.
func (p *Policy) SameClaims(other *Policy) bool {
	return p.model == other.model && slices.EqualFunc(p.databases, other.databases, func(a, b *Database) bool { return a == b || sameClaims(a, b) })
}

// sameClaims tells whether two versions of a database have the same name, and claim the same addresses, ports and nodes: then
// the other databases of the point do not matter for what has changed.
func sameClaims(a, b *Database) bool {
	return a.name == b.name && a.engine == b.engine && slices.Equal(a.endpoints, b.endpoints) && slices.Equal(a.clusterPorts, b.clusterPorts) &&
		slices.EqualFunc(a.nodes, b.nodes, func(x, y Node) bool {
			return x.Name == y.Name && x.Here == y.Here && slices.Equal(x.Addresses, y.Addresses) && slices.Equal(x.Ports, y.Ports)
		})
}
