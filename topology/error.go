package topology

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// maxProblems bounds how many errors one document is answered with: more help nobody, and a hostile document could
// otherwise make the answer far larger than itself.
const maxProblems = 100

// Error is one thing that is wrong with a topology document. Parse and Load join as many as they found; callers get at
// them with errors.As, or at all of them with Problems.
type Error struct {
	File string
	// Line and Column count from 1. They are 0 where the YAML parser does not name them.
	Line, Column int
	// Field is the path of the offending field, such as databases[2].nodes[0].port; empty for the document itself.
	Field string
	// Reason says what is wrong, Hint what would be right; Hint may be empty.
	Reason, Hint string
}

// Error prints "file:line:column: field: reason; hint".
func (e *Error) Error() string {
	s := e.File
	if e.Line > 0 {
		s += fmt.Sprintf(":%d", e.Line)
	}
	if e.Column > 0 {
		s += fmt.Sprintf(":%d", e.Column)
	}
	if e.Field != "" {
		s += ": " + e.Field
	}
	s += ": " + e.Reason
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Problems returns every *Error joined in err, in the order of the document; nil if there is none.
func Problems(err error) []*Error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Error
		for _, e := range joined.Unwrap() {
			all = append(all, Problems(e)...)
		}
		return all
	}
	var one *Error
	if errors.As(err, &one) {
		return []*Error{one}
	}
	return nil
}

// place is where something stands in the document. The zero place is nowhere: the thing is absent.
type place struct {
	line, column int
	field        string
}

func (p place) set() bool { return p.line > 0 }

func (p place) String() string { return fmt.Sprintf("%s (line %d)", p.field, p.line) }

// problems collects errors.
type problems struct {
	file string
	list []*Error
	more int // how many were found beyond maxProblems
}

func (p *problems) add(at place, hint, format string, args ...any) {
	if len(p.list) >= maxProblems {
		p.more++
		return
	}
	p.list = append(p.list, &Error{
		File: p.file, Line: at.line, Column: at.column, Field: at.field,
		Reason: fmt.Sprintf(format, args...), Hint: hint,
	})
}

// err joins what was collected, in document order; nil if nothing was.
func (p *problems) err() error {
	slices.SortStableFunc(p.list, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	var errs []error
	for _, e := range p.list {
		errs = append(errs, e)
	}
	if p.more > 0 {
		errs = append(errs, fmt.Errorf("%s: and %d more errors", p.file, p.more))
	}
	return errors.Join(errs...)
}
