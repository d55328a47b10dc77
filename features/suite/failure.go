package suite

import (
	"errors"
	"fmt"
)

// ErrNotConformant is what errors.Is finds in every finding against the enforcer. Any other error of a scenario means that it could not be judged.
var ErrNotConformant = errors.New("not conformant")

// nonconformity is one finding against the enforcer.
type nonconformity struct{ what string }

func (n *nonconformity) Error() string { return n.what }
func (n *nonconformity) Unwrap() error { return ErrNotConformant }

func notConformant(format string, args ...any) error {
	return &nonconformity{fmt.Sprintf(format, args...)}
}

// errFeature marks what is wrong with a feature's own text: the literal contradicts the oracle, or names what does not exist.
var errFeature = errors.New("the feature is wrong")

func wrongFeature(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errFeature, fmt.Sprintf(format, args...))
}

// errInconclusive marks attempts whose two ends do not add up.
var errInconclusive = errors.New("inconclusive")

// errLost ends every scenario after the one in which the defaults could not be brought back.
var errLost = errors.New("not run: an earlier scenario ended without the defaults in force again")
