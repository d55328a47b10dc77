package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Snapshots keeps the last documents that came into force, so that they can be brought back without their source. The zero
// value keeps none.
type Snapshots struct {
	// Dir is where they are; it is made if it is missing. Empty: none are kept.
	Dir string
}

const (
	snapshotName = "policy.json"
	previousName = "policy.previous.json"
)

// ErrNoSnapshot: there is no snapshot, or none that is whole.
var ErrNoSnapshot = errors.New("no whole snapshot of a policy")

// Save writes a document. Whenever the machine stops, the file holds the old or the new document, and both can be told
// from half of one by their checksums.
func (s Snapshots) Save(document []byte) error {
	if s.Dir == "" {
		return nil
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	current := filepath.Join(s.Dir, snapshotName)
	if old, err := read(current); err == nil {
		if err := write(filepath.Join(s.Dir, previousName), old); err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
	}
	if err := write(current, document); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// Load returns the latest document that is whole. The error wraps ErrNoSnapshot if none is.
func (s Snapshots) Load() ([]byte, error) {
	if s.Dir == "" {
		return nil, ErrNoSnapshot
	}
	var errs []error
	for _, name := range []string{snapshotName, previousName} {
		document, err := read(filepath.Join(s.Dir, name))
		if err == nil {
			return document, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("%w in %s: %w", ErrNoSnapshot, s.Dir, errors.Join(errs...))
}

// The first line of a snapshot is its checksum, so that one rename replaces both.
func write(path string, document []byte) error {
	sum := sha256.Sum256(document)
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it is gone once it was renamed
	_, err = f.WriteString(hex.EncodeToString(sum[:]) + "\n" + string(document))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func read(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	sum, document, ok := strings.Cut(string(text), "\n")
	want := sha256.Sum256([]byte(document))
	if !ok || sum != hex.EncodeToString(want[:]) {
		return nil, fmt.Errorf("%s: truncated or changed, its checksum does not fit", path)
	}
	return []byte(document), nil
}
