package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// The exit codes of every verb but sim exec, which ends as the program it ran did.
const (
	exitOK            = 0 // conformant; done
	exitNotConformant = 1 // judged, and something that must hold does not
	exitUsage         = 2 // wrong use, or input that was refused; nothing was changed
	exitUnjudged      = 3 // could not be judged or done: the reason lies outside of what was asked

	// Of a program that was to be run and was not, as shells, env(1) and timeout(1) have them (POSIX, Shell Command Language 2.8.2).
	exitNotExecutable = 126 // it is there, and cannot be run
	exitNotFound      = 127
)

// failure is an error that knows its place (a verb, a file, a flag) and its exit code.
type failure struct {
	code  int
	place string
	err   error
}

func (f *failure) Error() string {
	if f.place == "" {
		return f.err.Error()
	}
	return f.place + ": " + f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

// misuse is wrong use or bad input at a place.
func misuse(place string, err error) error { return &failure{exitUsage, place, err} }

func misusef(place, format string, args ...any) error {
	return misuse(place, fmt.Errorf(format, args...))
}

// unable is a reason, outside of what was asked, for which a verb could not do its work.
func unable(place string, err error) error {
	return &failure{exitUnjudged, place, reasoned(place, err)}
}

// errNotConformant ends a run whose report has already said what does not hold: nothing is printed for it.
var errNotConformant = &quiet{exitNotConformant}

// errNothingInForce ends a status that has already said so.
var errNothingInForce = &quiet{exitNotConformant}

// quiet is an exit code that needs no words.
type quiet struct{ code int }

func (q *quiet) Error() string { return fmt.Sprintf("exit status %d", q.code) }

// exitCode returns the code that an error ends the process with. An error that nobody classified never passes for a
// judgement.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if q, ok := errors.AsType[*quiet](err); ok {
		return q.code
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f.code
	}
	return exitUnjudged
}

// complaint returns what stderr says about an error: one line per reason, each with the program's name; "" for none.
func complaint(err error) string {
	if err == nil {
		return ""
	}
	if _, ok := errors.AsType[*quiet](err); ok {
		return ""
	}
	var b strings.Builder
	for line := range strings.Lines(strings.TrimRight(err.Error(), "\n")) {
		fmt.Fprintf(&b, "drawbridge: %s\n", oneLine(strings.TrimRight(line, "\n")))
	}
	return b.String()
}

// print writes the text that a verb was asked for.
func (p *program) print(verb, text string) error {
	if _, err := io.WriteString(p.std.out, text); err != nil {
		return unable(verb, err)
	}
	return nil
}
