package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
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
// returns, and on disk soon after: a disk may take longer than a change may, so that syncing is the keeper's affair.
type audit struct{ file *os.File }

// sync brings what was appended to disk.
func (a *audit) sync() error {
	if a == nil {
		return nil
	}
	if err := a.file.Sync(); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	return nil
}

func openAudit(path string) (*audit, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return &audit{file: f}, nil
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
	_, err = a.file.Write(append(line, '\n')) // one write: lines do not mix, whoever else appends
	return err
}

func (a *audit) close() error {
	if a == nil {
		return nil
	}
	return errors.Join(a.file.Sync(), a.file.Close())
}
