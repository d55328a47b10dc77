package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/enforcer/nft"
	"drawbridge/sim/netns/netnstest"
)

func TestReasoned(t *testing.T) {
	asked := fmt.Errorf("probe the kernel: begin: %w", syscall.EPERM)
	written := fmt.Errorf("%w: delete element: %w", nft.ErrRejected, syscall.EPERM)
	for _, tt := range []struct {
		name, place string
		err         error
		is          error // nil: it stays as it is
		says        string
	}{
		{"no capability", "enforce plan", asked, errCapability, "CAP_NET_ADMIN"},
		{"said already", "enforce plan", reasoned("enforce plan", asked), nil, ""},
		{"owned", "enforce reset", written, nft.ErrOwned, "stop it first"},
		{"owned, as the daemon is told", "enforce run", fmt.Errorf("%w: netlink port 1", nft.ErrOwned), nft.ErrOwned, "drawbridge enforce run"},
		{"another reason", "enforce apply", fmt.Errorf("%w: %w", nft.ErrRejected, syscall.ENOENT), nil, ""},
		{"a file", "enforce run", &fs.PathError{Op: "open", Path: "audit.log", Err: syscall.EPERM}, nil, ""},
		{"connections that were not cut", "enforce apply", fmt.Errorf("%w: %w", enforcer.ErrNotCut, syscall.EPERM), nil, ""},
		{"the lab", "sim up", asked, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := reasoned(tt.place, tt.err)
			if tt.is == nil {
				require.Equal(t, tt.err, got)
				return
			}
			require.ErrorIs(t, got, tt.is)
			require.ErrorIs(t, got, tt.err, "the cause stays")
			require.ErrorContains(t, got, tt.says)
		})
	}
}

// TestBesideADaemon: whoever changes the tables of a running daemon is told whose they are.
func TestBesideADaemon(t *testing.T) {
	ns := netnstest.New(t)
	require.NoError(t, ns.Do(func() error {
		s, err := enforcer.Open(enforcer.Options{})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		if err := s.Own(t.Context()); errors.Is(err, enforcer.ErrUnsupported) {
			t.Skip("this kernel has no owned tables")
		} else if err != nil {
			return err
		}
		_, err = s.Apply(t.Context(), []byte(understood))
		return err
	}))
	other := strings.Replace(understood, "198.51.100.0/28", "198.51.100.0/27", 1)
	for _, verb := range []string{"apply", "reset"} {
		code, out, errs := fed(t, ns, other, "enforce", verb)
		require.Equal(t, exitUnjudged, code, out)
		require.Contains(t, errs, nft.ErrOwned.Error(), verb)
		require.Contains(t, errs, "is another `drawbridge enforce run` at work here?", verb)
	}
}

// TestBootWithoutAnything: each reason once, and what to do.
func TestBootWithoutAnything(t *testing.T) {
	ns := netnstest.New(t)
	dir := t.TempDir()
	code, _, errs := fed(t, ns, "", "enforce", "boot", "--state", filepath.Join(dir, "none"), "--policy", filepath.Join(dir, "policy.json"))
	require.Equal(t, exitUnjudged, code)
	lines := strings.Split(strings.TrimSpace(errs), "\n")
	require.Len(t, lines, 5, errs)
	require.Contains(t, lines[0], errNotBooted.Error())
	require.Equal(t, 1, strings.Count(errs, "no whole snapshot"), errs)
	require.Contains(t, lines[2], "policy.json")
	require.Contains(t, lines[3], enforcer.ErrNothingToDeny.Error())
	require.Contains(t, lines[4], "way out")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "policy.copy.json"), []byte("damaged"), 0o600))
	code, _, errs = fed(t, ns, "", "enforce", "boot", "--state", dir)
	require.Equal(t, exitUnjudged, code)
	require.Contains(t, errs, "policy.copy.json: truncated or changed", "what is damaged is told")
	require.NotContains(t, errs, "protected.json")
}
