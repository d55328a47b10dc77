package daemon

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"drawbridge/enforcer"
	"drawbridge/enforcer/policy"
)

// Snapshots keeps the last documents that came into force, so that they can be brought back without their source. The zero
// value keeps none.
type Snapshots struct {
	// Dir is where they are; it is made if it is missing. Empty: none are kept.
	Dir string
}

// A document is kept twice, in files of their own: a policy older than the last one may open what was revoked since.
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

// Save writes a document, twice, one after the other, and both to disk. Whenever the machine stops, each copy is the old or the
// new document, or can be told from a whole one by its checksum, and not both are damaged by that.
func (s Snapshots) Save(document []byte) error {
	if err := s.quick(withSum(document)); err != nil {
		return err
	}
	return s.secure()
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

// write writes what a snapshot's file holds: the checksum in the first line, so that one rename replaces both.
func (d summed) write(to io.Writer) error {
	if _, err := io.WriteString(to, d.sum+"\n"); err != nil {
		return err
	}
	_, err := to.Write(d.text)
	return err
}

// quick writes one copy, which outlives the process from then on, but perhaps not the machine.
func (s Snapshots) quick(document summed) error {
	if s.Dir == "" {
		return nil
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := replace(filepath.Join(s.Dir, snapshotName), document.write, nil); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// secure sees to it that what quick wrote last is on disk, and then makes the other copy of it. It reads the file, so that nobody has to
// keep the document in memory for as long as the disk takes.
func (s Snapshots) secure() error {
	if s.Dir == "" {
		return nil
	}
	first, err := os.Open(filepath.Join(s.Dir, snapshotName))
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	defer first.Close()
	// Both go to disk one right after the other, before the copy takes its place: a file system with a journal writes that once for both.
	both := func(f *os.File) error { return errors.Join(f.Sync(), first.Sync()) }
	if err := replace(filepath.Join(s.Dir, copyName), func(to io.Writer) error { return copyWhole(to, first) }, both); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// copyWhole copies a snapshot's file. The error says so if it is not whole.
func copyWhole(to io.Writer, from *os.File) error {
	text := bufio.NewReader(from)
	sum, err := text.ReadString('\n')
	if err != nil {
		return fmt.Errorf("%s: %w", from.Name(), err)
	}
	if _, err := io.WriteString(to, sum); err != nil {
		return err
	}
	found := sha256.New()
	if _, err := io.Copy(io.MultiWriter(to, found), text); err != nil {
		return err
	}
	if sum != hex.EncodeToString(found.Sum(nil))+"\n" {
		return notWhole(from.Name())
	}
	return nil
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
		if err := replace(filepath.Join(s.Dir, name), protected.write, (*os.File).Sync); err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
	}
	return nil
}

// LoadProtected returns what the last good policy protected. The error wraps ErrNoSnapshot if that is not known.
func (s Snapshots) LoadProtected() ([]enforcer.Target, error) {
	text, err := s.load(protectedName, protectedCopyName)
	if err != nil {
		return nil, err
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

// Load returns the latest document that is whole. The error wraps ErrNoSnapshot if none is.
func (s Snapshots) Load() ([]byte, error) { return s.load(snapshotName, copyName) }

func (s Snapshots) load(names ...string) ([]byte, error) {
	if s.Dir == "" {
		return nil, ErrNoSnapshot
	}
	var errs []error
	for _, name := range names {
		document, err := read(filepath.Join(s.Dir, name))
		if err == nil {
			return document, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("%w in %s: %w", ErrNoSnapshot, s.Dir, errors.Join(errs...))
}

// asidePrefix begins the names of files that are not finished.
const asidePrefix = ".new-"

// replace has a file written aside, brought to disk, and renames it. Without toDisk it need not outlive the machine.
func replace(path string, write func(io.Writer) error, toDisk func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), asidePrefix+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it is gone once it was renamed
	err = write(f)
	if err == nil && toDisk != nil {
		err = toDisk(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil || toDisk == nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
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
