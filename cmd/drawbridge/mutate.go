//go:build !operator

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"drawbridge/features/mutant"

	"github.com/spf13/cobra"
)

// mutateCommand is the driver's door of the mutants. It is hidden: conform --mutant knocks there.
func (p *program) mutateCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "mutate MUTANT CALL",
		Short:  "One of the deliberately wrong enforcers that test the suite, behind the driver protocol",
		Hidden: true,
		Args:   exactly("MUTANT", "CALL"),
		RunE:   func(c *cobra.Command, args []string) error { return p.mutate(c.Context(), args[0], args[1]) },
	}
}

func (p *program) mutate(ctx context.Context, name, verb string) error {
	m, err := mutant.Find(name)
	if err != nil {
		return misuse("mutate", err)
	}
	in, err := io.ReadAll(p.std.in)
	if err != nil {
		return unable("mutate", err)
	}
	a := m.Call(mutant.Door{
		Next:  func(verb string, in []byte) mutant.Answer { return enforceHere(ctx, verb, in, p.env) },
		Later: func() error { return startLater(name) },
	}, verb, in)
	if _, err := p.std.err.Write(a.Stderr); err != nil {
		return unable("mutate", err)
	}
	if _, err := p.std.out.Write(a.Stdout); err != nil {
		return unable("mutate", err)
	}
	if a.Status != 0 {
		return &quiet{a.Status}
	}
	return nil
}

// enforceHere runs the reference enforcer in this process.
func enforceHere(ctx context.Context, verb string, in []byte, env environment) mutant.Answer {
	var out, stderr bytes.Buffer
	status := run(ctx, []string{"enforce", verb}, streams{in: bytes.NewReader(in), out: &out, err: &stderr}, env)
	return mutant.Answer{Status: status, Stdout: out.Bytes(), Stderr: stderr.Bytes()}
}

// startLater starts a process in a session of its own, as docs/DRIVERS.md demands of what is to outlive its call.
func startLater(name string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(self, "mutate", name, mutant.Later)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}
