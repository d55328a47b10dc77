package daemon

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"drawbridge/enforcer"
	"drawbridge/enforcer/policy"
)

// Snapshots keeps the last documents that came into force, so that they can be brought back without their source. The zero
// value keeps none.
type Snapshots struct {
	// Dir is where they are; it is made if it is missing. Empty: none are kept.
	Dir string
}

// Where earlier versions of the program kept a document, twice: see slots.
const (
	snapshotName = "policy.json"
	copyName     = "policy.copy.json"
)

// What the policy protects is kept apart, so that it can be denied as a whole where no policy can be read.
const (
	protectedName     = "protected.json"
	protectedCopyName = "protected.copy.json"
)

// ErrNoSnapshot: there is no snapshot, or none that is whole.
var ErrNoSnapshot = errors.New("no whole snapshot of a policy")

// errNothingKept: not even one that is damaged is there. It is os.ErrNotExist.
var errNothingKept = fmt.Errorf("nothing was ever kept there: %w", os.ErrNotExist)

// Save writes a document, twice, one after the other, and both to disk. Whenever the machine stops, the old or the new document is there
// whole, and what is not can be told from that by its checksum.
func (s Snapshots) Save(document []byte) (err error) {
	to := newSlots(s.Dir)
	defer func() { err = errors.Join(err, to.close()) }()
	if err := to.write(withSum(document)); err != nil {
		return err
	}
	return to.secure()
}

// summed is a document and its checksum: several need it, and that of a large document takes milliseconds.
type summed struct {
	text []byte
	sum  string // SHA-256, in hexadecimal digits
}

func withSum(text []byte) summed {
	sum := sha256.Sum256(text)
	return summed{text: text, sum: hex.EncodeToString(sum[:])}
}

func notWhole(path string) error {
	return fmt.Errorf("%s: truncated or changed, its checksum does not fit", path)
}

// saveProtected writes what a policy protects, twice.
func (s Snapshots) saveProtected(targets []enforcer.Target) error {
	if s.Dir == "" {
		return nil
	}
	text, err := json.Marshal(targets)
	if err != nil {
		return err
	}
	protected := withSum(text)
	for _, name := range []string{protectedName, protectedCopyName} {
		if err := replace(filepath.Join(s.Dir, name), protected); err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
	}
	return nil
}

// LoadProtected returns what the last good policy protected. The error wraps ErrNoSnapshot if that is not known, and os.ErrNotExist if
// nothing was ever kept.
func (s Snapshots) LoadProtected() ([]enforcer.Target, error) {
	text, errs := s.load(protectedName, protectedCopyName)
	if text == nil {
		return nil, s.none(errs)
	}
	var targets []enforcer.Target
	if err := json.Unmarshal(text, &targets); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNoSnapshot, protectedName, err)
	}
	return targets, nil
}

// clean takes away what a process that was killed has left.
func (s Snapshots) clean() error {
	if s.Dir == "" {
		return nil
	}
	left, err := filepath.Glob(filepath.Join(s.Dir, asidePrefix+"*"))
	for _, name := range left {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// Load returns the latest document that is whole. The error wraps ErrNoSnapshot if none is, and os.ErrNotExist if nothing was ever kept.
func (s Snapshots) Load() ([]byte, error) {
	// What an earlier version has left is gone as soon as there is anything later.
	document, older := s.load(snapshotName, copyName)
	if document != nil {
		return document, nil
	}
	if s.Dir == "" {
		return nil, s.none(older)
	}
	document, errs := loadSlots(s.Dir)
	if document == nil {
		return nil, s.none(append(errs, older...))
	}
	return document, nil
}

// none says why there is no snapshot: what is wrong with those that are there.
func (s Snapshots) none(errs []error) error {
	if s.Dir == "" {
		return ErrNoSnapshot
	}
	damaged := slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, os.ErrNotExist) })
	if len(damaged) == 0 {
		damaged = []error{errNothingKept}
	}
	return fmt.Errorf("%w in %s: %w", ErrNoSnapshot, s.Dir, errors.Join(damaged...))
}

// load returns the first of the files that is whole; nil and what is wrong with each if none is.
func (s Snapshots) load(names ...string) (document []byte, errs []error) {
	if s.Dir == "" {
		return nil, nil
	}
	for _, name := range names {
		document, err := read(filepath.Join(s.Dir, name))
		if err == nil {
			return document, nil
		}
		errs = append(errs, err)
	}
	return nil, errs
}

// asidePrefix begins the names of files that are not finished.
const asidePrefix = ".new-"

// replace writes a file aside and to disk, and renames it. The first line is the checksum, so that one rename replaces both.
func replace(path string, document summed) error {
	f, err := os.CreateTemp(filepath.Dir(path), asidePrefix+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it is gone once it was renamed
	_, err = f.WriteString(document.sum + "\n")
	if err == nil {
		_, err = f.Write(document.text)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func read(path string) ([]byte, error) {
	text, err := readBounded(path, policy.MaxSize+hex.EncodedLen(sha256.Size)+1)
	if err != nil {
		return nil, err
	}
	sum, document, ok := bytes.Cut(text, []byte("\n"))
	if !ok || string(sum) != withSum(document).sum {
		return nil, notWhole(path)
	}
	return document, nil
}
