package policy

import (
	"errors"
	"fmt"
	"strings"
)

// ErrRefused is what every refusal by a rule of network exposure is, in contrast to a document that is malformed.
// Callers that want to know which rule test for the one below.
var ErrRefused = errors.New("refused")

// The rules that refuse a well-formed document. An Error that carries one of them carries ErrRefused as well.
var (
	// ErrAccessibilityNeedsForceTLS is SPEC S-09: Internet accessibility needs Force TLS first, and Force TLS stays on
	// as long as the database is accessible from the Internet.
	ErrAccessibilityNeedsForceTLS = errors.New("Internet accessibility needs Force TLS (S-09)")
	// ErrRulesOnShared is SPEC S-10, first half: shared databases have no firewall rules.
	ErrRulesOnShared = errors.New("a shared database has no firewall rules (S-10)")
	// ErrAccessibilityOnDedicated is SPEC S-10, second half: dedicated databases are opened by rules.
	ErrAccessibilityOnDedicated = errors.New("a dedicated database has no Internet accessibility (S-10)")
	// ErrTooManyRules is SPEC D-12.
	ErrTooManyRules = fmt.Errorf("more than %d firewall rules (D-12)", MaxRules)
	// ErrNegotiationUnknown: Force TLS cannot be enforced for an engine whose way to TLS is not known (SPEC X-08).
	ErrNegotiationUnknown = errors.New("the engine's TLS negotiation is not known (X-08)")
)

// Error says where a document is wrong, why, and what to do about it.
type Error struct {
	Name   string // the document's name, as given to Parse
	Line   int    // from 1; 0 if the whole document is meant
	Column int    // from 1, in bytes
	Path   string // JSON path of the member, such as "databases[0].endpoints[1].port"; empty for the whole document
	Reason string
	Hint   string // a way out; may be empty
	// Rule is one of the Err... values above for a refusal; nil for a malformed document.
	Rule error

	cutOff bool // the document ends too early
}

// Error returns "name:line:column: path: reason; hint".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Name)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	b.WriteString(": ")
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Reason)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Unwrap makes errors.Is find ErrRefused and the rule.
func (e *Error) Unwrap() []error {
	if e.Rule == nil {
		return nil
	}
	return []error{ErrRefused, e.Rule}
}

// IsCutOff tells whether an error is about a document that ends too early: more of it may be to come.
func IsCutOff(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.cutOff
}
