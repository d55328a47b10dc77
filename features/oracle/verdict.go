// Package oracle says what must become of a connection, from first principles: who asks, what arrives at the
// enforcement point, what the database's owner decided. Every answer names the statements of the specification that it
// follows from. It shares nothing with any enforcer and never sees what one did.
package oracle

import (
	"fmt"
	"strings"
)

// Class is what must become of a connection. The zero value is Unspecified: no statement speaks of it, and nothing may
// be concluded from what happens.
type Class int

// Classes of expectation.
const (
	Unspecified Class = iota
	Denied
	Served
)

// String returns "unspecified", "denied" or "served".
func (c Class) String() string {
	switch c {
	case Denied:
		return "denied"
	case Served:
		return "served"
	}
	return "unspecified"
}

// ParseClass reads "served" or "denied".
func ParseClass(s string) (Class, error) {
	switch s {
	case "served":
		return Served, nil
	case "denied":
		return Denied, nil
	}
	return Unspecified, fmt.Errorf("outcome %q: neither served nor denied", s)
}

// Verdict is an expectation and the statements it follows from. The zero value expects nothing.
type Verdict struct {
	Class Class
	// Because holds the statement IDs, the deciding one first.
	Because []string
	// Reason is the same for people.
	Reason string
	// Talk: only what the client says is denied, not its source. The connection itself may come about, as long as nothing
	// the client says reaches the database.
	Talk bool
}

// String prints "denied (D-05: no rule covers 192.0.2.7)".
func (v Verdict) String() string {
	if v.Class == Unspecified {
		return "unspecified: " + v.Reason
	}
	return fmt.Sprintf("%s (%s: %s)", v.Class, strings.Join(v.Because, ", "), v.Reason)
}

func served(reason string, ids ...string) Verdict {
	return Verdict{Class: Served, Because: ids, Reason: reason}
}

func denied(reason string, ids ...string) Verdict {
	return Verdict{Class: Denied, Because: ids, Reason: reason}
}

// silenced denies what the client says, not its source.
func silenced(reason string, ids ...string) Verdict {
	return Verdict{Class: Denied, Because: ids, Reason: reason, Talk: true}
}

func unspecified(format string, args ...any) Verdict {
	return Verdict{Reason: fmt.Sprintf(format, args...)}
}
