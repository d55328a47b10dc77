package denied

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Bounds of a memory: of sources at each database, and of databases.
const (
	maxSources   = 64
	maxDatabases = 4096
)

// Sighting is a source that was denied at one port for one reason.
type Sighting struct {
	Database string         `json:"database"`
	Source   netip.Addr     `json:"source"`
	To       netip.AddrPort `json:"to"`
	Why      string         `json:"why"`
	// Count of what was heard; there may have been more.
	Count  uint64    `json:"count"`
	LastAt time.Time `json:"last_at"`
}

type key struct {
	source netip.Addr
	to     netip.AddrPort
	why    string
}

// Memory remembers the latest sources that were denied, a bounded number at each database. The zero value is empty. Use it
// from one goroutine at a time.
type Memory struct {
	databases map[string]map[key]*Sighting
}

// Add remembers an event at a database. Where there is no room, the one that was seen longest ago is forgotten; a database
// beyond the bound is not remembered.
func (m *Memory) Add(database string, e Event) {
	if m.databases == nil {
		m.databases = map[string]map[key]*Sighting{}
	}
	of := m.databases[database]
	if of == nil {
		if len(m.databases) >= maxDatabases {
			return
		}
		of = map[key]*Sighting{}
		m.databases[database] = of
	}
	k := key{e.Source, e.To, e.Why}
	s := of[k]
	if s == nil {
		if len(of) >= maxSources {
			delete(of, oldest(of))
		}
		s = &Sighting{Database: database, Source: e.Source, To: e.To, Why: e.Why}
		of[k] = s
	}
	s.Count++
	s.LastAt = e.At
}

func oldest(of map[key]*Sighting) (found key) {
	var at time.Time
	for k, s := range of {
		if at.IsZero() || s.LastAt.Before(at) {
			found, at = k, s.LastAt
		}
	}
	return found
}

// Recent lists what is remembered, by database, latest first.
func (m *Memory) Recent() []Sighting {
	out := []Sighting{}
	for _, of := range m.databases {
		for _, s := range of {
			out = append(out, *s)
		}
	}
	slices.SortFunc(out, func(a, b Sighting) int {
		return cmp.Or(cmp.Compare(a.Database, b.Database), b.LastAt.Compare(a.LastAt), a.Source.Compare(b.Source), a.To.Compare(b.To), cmp.Compare(a.Why, b.Why))
	})
	return out
}

// Len is how many sightings are remembered.
func (m *Memory) Len() (n int) {
	for _, of := range m.databases {
		n += len(of)
	}
	return n
}
