package enforcer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/cut"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/ruleset"
)

// Status is what the kernel of the calling thread's network namespace enforces, as it says itself. The zero value says
// that nothing is enforced.
type Status struct {
	// InForce: the table is there, and as far as can be told without the policy it is what this enforcer wrote.
	InForce bool `json:"in_force"`
	// Generation of the kernel's ruleset at which it was read.
	Generation uint32 `json:"kernel_generation"`
	// Tampered says why it is not, if somebody changed it into something this enforcer did not write.
	Tampered string `json:"tampered,omitempty"`
	// Objects are those that no policy compiles to, or that are missing. Whether those that let somebody in are the policy's is
	// for Verify to say.
	Objects []ruleset.Difference `json:"objects,omitempty"`
	// MarkMask are the bits of the conntrack mark that hold a connection's class, as the rules have it; 0 if none of them says.
	MarkMask uint32 `json:"mark_mask,omitempty"`
	// Denying: there is no policy, and everybody is kept away from what the last one protected (BootDenying).
	Denying bool `json:"denying,omitempty"`
	// Databases, by name.
	Databases []DatabaseStatus `json:"databases"`
}

// DatabaseStatus is what is known of one database.
type DatabaseStatus struct {
	Name string `json:"name"`
	// ForceTLS tells whether all, none or some of its ports that can speak TLS are held to it; "never" if it has none.
	ForceTLS string `json:"force_tls"`
	// TLS and Plaintext count connections since the table was made, by what they turned out to speak; Refused counts those
	// that Force TLS refused.
	TLS       uint64 `json:"tls_connections"`
	Plaintext uint64 `json:"plaintext_connections"`
	Refused   uint64 `json:"refused_connections"`
	// LastPlaintext and LastRefused are the latest sources without TLS; nil if there was none in the last 30 days.
	LastPlaintext *Sighting `json:"last_plaintext,omitempty"`
	LastRefused   *Sighting `json:"last_refused,omitempty"`
	// PlaintextSources are all sources that spoke plaintext, latest first.
	PlaintextSources []Sighting `json:"plaintext_sources,omitempty"`
	// Live are the connections that stand now.
	Live Live `json:"live"`
}

// Sighting is a source that came without TLS.
type Sighting struct {
	Source      netip.Addr `json:"source"`
	Connections uint64     `json:"connections"`
	LastAt      time.Time  `json:"last_at"`
}

// Live counts connections that stand, by class.
type Live struct {
	TLS       int `json:"tls"`
	Plaintext int `json:"plaintext"`
	// Beginning have not shown yet what they speak.
	Beginning int `json:"beginning"`
	// Unknown began before the table was made, or were never tracked.
	Unknown int `json:"unknown"`
}

func (l *Live) add(c compile.Class) {
	switch c.Speech() {
	case compile.SpeaksTLS:
		l.TLS++
	case compile.SpeaksPlaintext:
		l.Plaintext++
	case compile.SpeaksYet:
		l.Beginning++
	default:
		l.Unknown++
	}
}

// ReadStatus asks the kernel what is in force and what the tally says, in the network namespace of the calling thread. Where the options name no
// mark mask, it is the one that the rules have.
func ReadStatus(ctx context.Context, options Options) (status Status, err error) {
	kernel, err := nft.Open(compile.TableName)
	if err != nil {
		return Status{}, err
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	status, state, err := options.standing(ctx, kernel)
	if err != nil || state.Table.Name == "" || status.Denying {
		return status, err
	}
	options = options.maskOr(status.MarkMask).withDefaults()
	mark, err := compile.NewMark(options.Compile.MarkMask)
	if err != nil {
		return Status{}, err
	}
	read := statusReader{now: options.Clock(), mark: mark, inventory: compile.InventoryOf(state.Table), byName: map[string]*DatabaseStatus{}}
	if err := read.tally(ctx, kernel, state.Table); err != nil {
		return Status{}, err
	}
	if err := read.live(ctx); err != nil {
		return Status{}, err
	}
	status.Databases = read.databases()
	return status, nil
}

// standing reads what stands and says whether it is what this enforcer writes.
func (o Options) standing(ctx context.Context, kernel *nft.Conn) (status Status, state nft.State, err error) {
	for range maxIntactReadings {
		if state, err = kernel.Read(ctx); err != nil {
			return Status{}, state, err
		}
		status = Status{InForce: state.Exists && state.Foreign == nil, Generation: state.Generation, MarkMask: markMask(state.Table)}
		if state.Foreign != nil {
			status.Tampered = state.Foreign.Error()
		}
		if !status.InForce {
			return status, state, nil
		}
		if status.Denying = isDenial(state.Table); status.Denying {
			status.Objects = intactDenial(state.Table)
		} else if status.Objects, err = o.maskOr(status.MarkMask).withDefaults().intact(ctx, kernel, state); err != nil {
			return Status{}, state, err
		}
		if len(status.Objects) == 0 {
			return status, state, nil
		}
		status.InForce, status.Tampered = false, fmt.Sprintf("objects that are not as this enforcer writes them: %d", len(status.Objects))
		if now, err := kernel.Generation(ctx); err != nil || now == state.Generation {
			return status, state, err // else it may be half of a change, which is several transactions
		}
	}
	return status, state, nil
}

// maskOr are the options with this mark mask where they name none.
func (o Options) maskOr(mask uint32) Options {
	if o.Compile.MarkMask == 0 {
		o.Compile.MarkMask = mask
	}
	return o
}

// markMask is the mask under which a table's rules hold the class: that of most of them, since somebody may have changed some; 0 if none says.
func markMask(t ruleset.Table) (mask uint32) {
	votes := map[uint32]int{}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for _, s := range r.Statements {
				if set, ok := s.(ruleset.SetMark); ok {
					if _, err := compile.NewMark(set.Mask); err == nil { // else it sets a part of the class, or is not ours
						votes[set.Mask]++
					}
				}
			}
		}
	}
	for _, m := range slices.Sorted(maps.Keys(votes)) {
		if votes[m] > votes[mask] {
			mask = m
		}
	}
	return mask
}

// statusReader collects a Status.
type statusReader struct {
	now       time.Time
	mark      compile.Mark
	inventory compile.Inventory
	byName    map[string]*DatabaseStatus
}

func (r *statusReader) of(database string) *DatabaseStatus {
	d := r.byName[database]
	if d == nil {
		d = &DatabaseStatus{Name: database, ForceTLS: r.inventory.ForceTLS(database)}
		r.byName[database] = d
	}
	return d
}

func (r *statusReader) tally(ctx context.Context, kernel *nft.Conn, table ruleset.Table) error {
	for _, s := range table.Sets {
		read, ok := compile.TallyOf(s)
		if !ok {
			continue
		}
		counted, err := kernel.ReadCounted(ctx, s)
		if err != nil {
			return err
		}
		for _, e := range counted {
			source, endpoint := read.Key(e.Key)
			r.count(read.Kind, source, endpoint, e, s.Timeout)
		}
	}
	return nil
}

func (r *statusReader) count(kind string, source netip.Addr, endpoint netip.AddrPort, e nft.Counted, lifetime time.Duration) {
	d := r.of(r.inventory.Database(endpoint))
	seen := Sighting{Source: source, Connections: e.Packets, LastAt: r.now.Add(e.Expires - cmp.Or(e.Timeout, lifetime))}
	switch kind {
	case compile.TallyTLS:
		d.TLS += e.Packets
	case compile.TallyPlaintext:
		d.Plaintext += e.Packets
		d.LastPlaintext = later(d.LastPlaintext, seen)
		d.PlaintextSources = append(d.PlaintextSources, seen)
	case compile.TallyRefused:
		d.Refused += e.Packets
		d.LastRefused = later(d.LastRefused, seen)
	}
}

func later(have *Sighting, next Sighting) *Sighting {
	if have != nil && !next.LastAt.After(have.LastAt) {
		return have
	}
	return &next
}

// live counts what stands now.
func (r *statusReader) live(ctx context.Context) error {
	connections, err := cut.List(ctx, func(c cut.Connection) bool { return r.inventory.Database(c.Endpoint) != "" }, r.inventory.Dedicated())
	for _, c := range connections {
		class := compile.ClassUnknown
		if c.Tracked {
			class = r.mark.Class(c.Mark)
		}
		r.of(r.inventory.Database(c.Endpoint)).Live.add(class)
	}
	return err
}

func (r *statusReader) databases() []DatabaseStatus {
	for _, name := range r.inventory.Names() {
		r.of(name)
	}
	delete(r.byName, "") // counted for a database that is gone
	out := make([]DatabaseStatus, 0, len(r.byName))
	for _, d := range r.byName {
		slices.SortFunc(d.PlaintextSources, func(a, b Sighting) int { return b.LastAt.Compare(a.LastAt) })
		out = append(out, *d)
	}
	slices.SortFunc(out, func(a, b DatabaseStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
