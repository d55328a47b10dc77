package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"drawbridge/enforcer"
	"drawbridge/enforcer/nft"
)

// errCapability: the kernel asks for a capability that this process has not.
var errCapability = errors.New("it takes CAP_NET_ADMIN in this network namespace: run it as root; as root, `drawbridge enforce doctor` says what else is in the way")

// ownedWayOut is what to do about tables of another process.
const ownedWayOut = "is another `drawbridge enforce run` at work here? change the policy's file that it follows, or stop it first (systemctl stop drawbridge)"

// reasoned adds to an error of a verb of enforce what the kernel leaves out of "operation not permitted": the tables belong to another
// process (nft.ErrOwned), or a capability is missing (errCapability).
func reasoned(place string, err error) error {
	verb := strings.HasPrefix(place, "enforce")
	_, ofFile := errors.AsType[*fs.PathError](err)
	forbidden := errors.Is(err, syscall.EPERM) && !ofFile && !errors.Is(err, enforcer.ErrNotCut)
	switch {
	case !verb || errors.Is(err, errCapability) || errors.Is(err, errNotBooted): // said already
		return err
	case errors.Is(err, nft.ErrOwned):
		return fmt.Errorf("%w; %s", err, ownedWayOut)
	case forbidden && errors.Is(err, nft.ErrRejected): // whoever may ask the kernel may write, but for what somebody owns
		return fmt.Errorf("%w: %w; %s", nft.ErrOwned, err, ownedWayOut)
	case forbidden:
		return fmt.Errorf("%w; %w", err, errCapability)
	}
	return err
}
