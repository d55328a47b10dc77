package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"drawbridge/enforcer"
)

// entry is a line of the audit log.
type entry struct {
	At        time.Time         `json:"at"`
	What      string            `json:"what"` // applied, refused, tampered, expired, clock, and what begins with break-glass
	Why       string            `json:"why,omitempty"`
	Error     string            `json:"error,omitempty"`
	ProcessID uint32            `json:"pid,omitempty"`
	Program   string            `json:"program,omitempty"`
	Receipt   *enforcer.Receipt `json:"receipt,omitempty"`
	// BreakGlass is what was opened or ended, with who asked for that.
	BreakGlass *BreakGlass `json:"break_glass,omitempty"`
}

// audit is an append-only log of JSON lines. A nil audit takes everything and keeps nothing. A line is in the file when append
// returns, and on disk soon after: a disk may take longer than a change may, so that syncing is the keeper's affair. It follows its path: where
// that is another file or none, since somebody has renamed or deleted it, a new one is opened or made.
type audit struct {
	path string

	mu      sync.Mutex
	file    *os.File
	left    []*os.File // that it was before, and that are not on disk yet
	trouble bool       // the path could not be followed
}

// openAudit opens the log at a path; nil for none.
func openAudit(path string) (*audit, error) {
	if path == "" {
		return nil, nil
	}
	f, err := openLog(path)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return &audit{path: path, file: f}, nil
}

// openLog opens what lines can be appended to. It does not wait for whoever is to read them.
func openLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o640)
	if errors.Is(err, syscall.ENXIO) { // a socket, or a FIFO that nobody reads
		return nil, notRegular(path)
	}
	return f, err
}

// sync brings what was appended to disk. It is not called by two at once.
func (a *audit) sync() error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	f, left := a.file, a.left
	a.left = nil
	a.mu.Unlock()
	errs := []error{f.Sync()}
	for _, old := range left {
		errs = append(errs, old.Sync(), old.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	return nil
}

// follow sees to it that lines go to what is at the path now. Where that cannot be, they go on into the file that was there; the error tells,
// once.
func (a *audit) follow() error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.followLocked()
}

func (a *audit) followLocked() error {
	if a.inPlace() {
		a.trouble = false
		return nil
	}
	next, err := openLog(a.path)
	if err != nil {
		told := a.trouble
		a.trouble = true
		if told {
			return nil
		}
		return fmt.Errorf("lines go on into the file that was at %s before: %w", a.path, err)
	}
	a.left = append(a.left, a.file)
	a.file, a.trouble = next, false
	return nil
}

// inPlace tells whether the file is the one at the path.
func (a *audit) inPlace() bool {
	there, err := os.Stat(a.path)
	if err != nil {
		return false
	}
	have, err := a.file.Stat()
	return err == nil && os.SameFile(have, there)
}

func (a *audit) append(e entry) error {
	if a == nil {
		return nil
	}
	e.At = time.Now().UTC()
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	followed := a.followLocked()
	_ = a.file.SetWriteDeadline(time.Now().Add(answerWithin)) // of a FIFO; others have none
	_, err = a.file.Write(append(line, '\n'))                 // one write: lines do not mix, whoever else appends
	return errors.Join(followed, err)
}

func (a *audit) close() error {
	if a == nil {
		return nil
	}
	return errors.Join(a.sync(), a.file.Close())
}
