package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Opening lets everybody reach one database until a time, whatever the document says (break-glass). What Force TLS demands stays.
type Opening struct {
	Database string
	Until    time.Time
	Reason   string
}

var (
	// ErrUnknownDatabase: the policy has no such database.
	ErrUnknownDatabase = errors.New("the policy has no such database")
	// ErrOpenAlready: everybody may reach it, and an end of the opening would close nothing.
	ErrOpenAlready = errors.New("Internet accessibility is on already")
)

// CanOpen tells why a database cannot be opened; nil if it can. A shared one needs Force TLS for it, as Internet accessibility does
// (SPEC S-09).
func (p *Policy) CanOpen(database string) error {
	at := p.find(database)
	switch {
	case at < 0:
		return fmt.Errorf("%w: %s", ErrUnknownDatabase, database)
	case p.databases[at].model == Dedicated:
		return nil
	case p.databases[at].internetAccessible:
		return fmt.Errorf("%w: %s", ErrOpenAlready, database)
	case !p.databases[at].forceTLS:
		return fmt.Errorf("%w: set force_tls of %s first", ErrAccessibilityNeedsForceTLS, database)
	}
	return nil
}

func (p *Policy) find(database string) int {
	return slices.IndexFunc(p.databases, func(db *Database) bool { return db.name == database })
}

// everybody is each family's whole address space.
var everybody = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// Open returns the policy with these databases open. A dedicated one gets a rule for each family that expires, also beyond MaxRules; a
// shared one has OpenUntil. Those that cannot be opened stay as they are, and refused says why. Without any that can it is the
// same policy.
func (p *Policy) Open(openings []Opening) (open *Policy, refused []error) {
	open = p
	for _, o := range openings {
		if err := p.CanOpen(o.Database); err != nil {
			refused = append(refused, err)
			continue
		}
		if open == p {
			open = new(*p)
			open.databases = slices.Clone(p.databases)
		}
		at := p.find(o.Database)
		db := new(*open.databases[at])
		db.open(o)
		open.databases[at] = db
	}
	return open, refused
}

func (db *Database) open(o Opening) {
	db.warnings = append(slices.Clone(db.warnings), Warning{Database: db.name, Text: fmt.Sprintf(
		"break-glass: database %s is open to everybody until %s: %s", db.name, o.Until.UTC().Format(time.RFC3339), o.Reason)})
	if db.model != Dedicated {
		db.openUntil = o.Until
		return
	}
	db.rules, db.ends = slices.Clone(db.rules), true
	for _, all := range everybody {
		db.rules = append(db.rules, Rule{CIDR: all, Label: "break-glass: " + o.Reason, Expires: o.Until})
	}
}

// OpenUntil is until when a shared database is open to everybody, whatever Internet accessibility says; the zero value: it is not.
// It may have passed.
func (d Database) OpenUntil() time.Time { return d.openUntil }
