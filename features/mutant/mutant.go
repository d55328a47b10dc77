// Package mutant holds enforcers that are wrong on purpose, to test the suite: each differs from a right one in one thing, and
// names the statement that must catch it. A few are not wrong at all and must pass, so that a suite that fails
// everything is caught as well.
//
// A mutant stands between the suite and a right enforcer, as a driver of its own (docs/DRIVERS.md): it changes the policies on
// their way in, the answers on their way out, or what is in force afterwards.
package mutant

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"drawbridge/features/driver"
)

// Answer is how a driver ended one call. The zero value is a success without a word.
type Answer struct {
	Status         int
	Stdout, Stderr []byte
}

// Door is what a mutant finds where it is called: its working directory is the point's own.
type Door struct {
	// Next calls the right enforcer that the mutant stands in front of.
	Next func(verb string, stdin []byte) Answer
	// Later starts a process that outlives the call, and that calls the mutant with the verb Later.
	Later func() error
}

// Later is the verb of a call that the suite never makes: see Door.
const Later = "later"

// Mutant is one enforcer.
type Mutant struct {
	Name string
	// Breaks says what is wrong with it, or why it is right after all.
	Breaks string
	// Statement is one that must be found broken, with all scenarios or with Tags alone; "" if the run fails before any.
	Statement string
	// Tags selects scenarios that are enough to find that out.
	Tags string
	// Conforms: it must pass.
	Conforms bool
	// Full: the tests judge it by all scenarios and not by those of Tags alone.
	Full bool

	change func(*driver.Document) error                       // what it makes of a policy
	answer func(*driver.Document, Answer) Answer              // what it makes of the answer to apply
	table  bool                                               // it has a table of its own, by nft(8)
	call   func(d Door, verb string, in []byte) Answer        // replaces everything else
	also   func(d Door, doc *driver.Document, a Answer) error // what it does besides, once apply was answered
}

// NeedsNFT reports whether the mutant needs nft(8) on the PATH.
func (m Mutant) NeedsNFT() bool { return m.table }

// ErrUnknown is the error for a name that no mutant has.
var ErrUnknown = errors.New("no such mutant")

// All lists the mutants that scenarios must judge.
func All() []Mutant {
	return slices.Concat(wholesale(), policies(), ranges(), memories(), answers(), afterwards(), swaps(), spoiled(), rulesets(), intruded(), equivalents())
}

// Find returns the mutant of a name, Rare ones included.
func Find(name string) (Mutant, error) {
	all := append(All(), Rare()...)
	i := slices.IndexFunc(all, func(m Mutant) bool { return m.Name == name })
	if i < 0 {
		return Mutant{}, fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	return all[i], nil
}

// Call answers one call of the driver protocol.
func (m Mutant) Call(d Door, verb string, stdin []byte) Answer {
	if m.call != nil {
		return m.call(d, verb, stdin)
	}
	if verb != "apply" {
		return d.Next(verb, stdin)
	}
	a, err := m.apply(d, stdin)
	if err != nil {
		return broken(err)
	}
	return a
}

func (m Mutant) apply(d Door, stdin []byte) (Answer, error) {
	doc, err := decode(stdin)
	if err != nil {
		return unreadable(d, stdin, err)
	}
	asked, err := decode(stdin)
	if err != nil {
		return Answer{}, err
	}
	if m.change != nil {
		if err := m.change(doc); err != nil {
			return Answer{}, err
		}
	}
	body, err := doc.Encode()
	if err != nil {
		return Answer{}, err
	}
	a := d.Next("apply", body)
	if m.answer != nil {
		a = m.answer(asked, a)
	}
	if m.also != nil {
		if err := m.also(d, asked, a); err != nil {
			return Answer{}, err
		}
	}
	return a, nil
}

// unreadable leaves a policy that cannot be read to the reference, which must refuse it: no mutant is wrong in that.
func unreadable(d Door, policy []byte, unread error) (Answer, error) {
	a := d.Next("apply", policy)
	if a.Status == 0 {
		return Answer{}, unread
	}
	return a, nil
}

// broken is the answer of a driver that could not do its work: no mutant is killed by that.
func broken(err error) Answer {
	return Answer{Status: 70, Stderr: fmt.Appendf(nil, "mutant: %v\n", err)}
}

func decode(policy []byte) (*driver.Document, error) {
	d := json.NewDecoder(bytes.NewReader(policy))
	d.DisallowUnknownFields()
	var doc driver.Document
	if err := d.Decode(&doc); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return &doc, nil
}
