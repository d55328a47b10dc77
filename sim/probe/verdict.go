// Package probe makes real connections through a lab and says what became of them, from what both ends saw.
//
// A Prober watches the entrance of every enforcement point, the way from there to the databases, and the databases'
// own journals. It is never told what to expect: it only concludes. What it cannot conclude is Inconclusive.
package probe

import (
	"fmt"
	"net/netip"
	"time"

	"drawbridge/topology"
)

// Mode says whether a client speaks TLS. The zero value is no mode: a Spec without one is refused.
type Mode int

// The two modes. Neither falls back to the other.
const (
	ModeInvalid Mode = iota
	Plain
	TLS
)

// String returns "plain", "tls" or "invalid".
func (m Mode) String() string {
	switch m {
	case Plain:
		return "plain"
	case TLS:
		return "tls"
	}
	return "invalid"
}

// Spec is one connection to be tried.
type Spec struct {
	From   string            // name of the vantage
	Source netip.Addr        // source address; zero: the vantage's own address of the target's family
	To     topology.Endpoint // an endpoint, or a way round one
	Mode   Mode
}

// String prints the spec as people say it: "laptop (198.51.100.9) to pg-shared at 192.0.2.200:30001, tls".
func (s Spec) String() string {
	from := s.From
	if s.Source.IsValid() {
		from = fmt.Sprintf("%s (%s)", s.From, s.Source)
	}
	return fmt.Sprintf("%s to %s at %s, %s", from, s.To.Database, s.To.Addr, s.Mode)
}

// Verdict is what became of a connection. The zero value is Inconclusive, which is neither served nor denied.
type Verdict int

// The verdicts. All but Inconclusive are conclusions from both ends.
const (
	// Inconclusive: the two ends do not add up to any other verdict, or one of them was not seen.
	Inconclusive Verdict = iota
	// Served: the client's query was answered, and the database's journal holds that query.
	Served
	// Dropped: the connection arrived at the enforcement point, nothing of it left towards the database, and the client
	// heard nothing.
	Dropped
	// Rejected: as Dropped, but the client was told, by a TCP reset or an ICMP error.
	Rejected
	// TLSRefused: the connection was established, but not one byte of what the client said reached the database; or
	// the database itself refused to go on without TLS (then Observation.By is ByDatabase).
	TLSRefused
	// Leaked: something of the connection reached the database, yet the client was not served.
	Leaked
)

// String returns the verdict's name in lower case.
func (v Verdict) String() string {
	names := [...]string{"inconclusive", "served", "dropped", "rejected", "tls-refused", "leaked"}
	if v < 0 || int(v) >= len(names) {
		return fmt.Sprintf("verdict-%d", int(v))
	}
	return names[v]
}

// MarshalText writes the verdict's name, for reports.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// By says who refused a connection.
type By string

// Who may refuse.
const (
	ByNobody   By = ""
	ByEnforcer By = "enforcer"
	ByDatabase By = "database"
)

// Way says how a verdict was taken.
type Way string

// Ways to a verdict.
const (
	// ByAnswer: the database itself answered: the query, or with a refusal of its own.
	ByAnswer Way = "answer"
	// ByFence: from the taps at the enforcement point, and a fence sent afterwards.
	ByFence Way = "fence"
	// ByPatience: by time-out, from the client's end and the database's alone.
	ByPatience Way = "patience"
)

// Observation is what a probe saw, and what follows from it.
type Observation struct {
	Spec     Spec           `json:"-"`
	Verdict  Verdict        `json:"verdict"`
	By       By             `json:"by,omitempty"`
	Way      Way            `json:"way"`
	Reason   string         `json:"reason"` // in words, for people
	Local    netip.AddrPort `json:"local"`  // the client's end, before any source NAT
	SeenFrom netip.AddrPort `json:"-"`      // the client's end as the database saw it; zero if no query came
	Node     string         `json:"-"`      // which node of the database the query came to
	Evidence Evidence       `json:"evidence"`
	Started  time.Time      `json:"started"`
	Took     time.Duration  `json:"took"` // from the client's first action to the conclusion
}

// Tried reports whether the probe was made, and had the time that it takes. See ProbeAll.
func (o Observation) Tried() bool { return !o.Started.IsZero() }
