package nft

import (
	"errors"
	"fmt"
)

// Errors of a Conn, for errors.Is.
var (
	// ErrGeneration: the ruleset changed since the generation that the commit was based on. Nothing was written.
	ErrGeneration = errors.New("the ruleset changed in the meantime")
	// ErrUnknownOutcome: the commit may or may not have been applied. Read back; never just repeat it.
	ErrUnknownOutcome = errors.New("outcome of the commit unknown")
	// ErrRejected: the kernel refused the commit. Nothing was written (a batch is applied as a whole or not at all).
	ErrRejected = errors.New("the kernel refused the ruleset")
	// ErrForeign: the table in the kernel holds something that this enforcer did not write.
	ErrForeign = errors.New("not written by this enforcer")
	// ErrInvalid: the table cannot be expressed in nftables; nothing was sent.
	ErrInvalid = errors.New("not a valid table")
)

func foreign(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrForeign}, args...)...)
}
