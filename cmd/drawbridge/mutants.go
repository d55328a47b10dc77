//go:build !operator

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"drawbridge/features/mutant"
	"drawbridge/features/suite"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// mutantsReport is the file of the score in a report directory.
const mutantsReport = "mutants.json"

// mutantWait bounds one mutant's run; the longest takes a minute on a busy machine.
const mutantWait = 5 * time.Minute

// judgeMutants has every mutant judged in a run of its own, as many at once as there are processors.
func (p *program) judgeMutants(ctx context.Context, o conformOptions) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	self, err := os.Executable()
	if err != nil {
		return unable("conform --mutants", fmt.Errorf("find this program: %w", err))
	}
	if _, err := exec.LookPath("nft"); err != nil {
		return unable("conform --mutants", fmt.Errorf("some mutants are made of nft(8): %w", err))
	}
	began := time.Now()
	all := mutant.All()
	score := mutant.Score{Trials: make([]mutant.Trial, len(all))}
	var mu sync.Mutex
	done := 0
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, m := range all {
		group.Go(func() error {
			trial, digest, err := tryMutant(ctx, self, m, o.all)
			mu.Lock()
			defer mu.Unlock()
			if digest != "" {
				score.Suite = digest
			}
			score.Trials[i] = trial
			done++
			fmt.Fprintf(p.std.err, "%3d/%d %s: %s, %.1f s\n", done, len(all), m.Name, trial.Verdict, trial.Seconds)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return unable("conform --mutants", err)
	}
	score.Seconds = time.Since(began).Seconds()
	score.Count()
	if err := errors.Join(writeScore(o.report, &score), score.Write(p.std.out)); err != nil {
		return unable("conform --mutants", err)
	}
	judged := p.judgeAfterwards(ctx, o)
	switch {
	case score.OK:
		return judged
	case score.Unjudged > 0 && onlyUnjudged(score):
		return &quiet{exitUnjudged}
	}
	return errNotConformant
}

// judgeAfterwards judges the enforcer itself, so that the score stands in a report. Without one there is nowhere for it to stand.
func (p *program) judgeAfterwards(ctx context.Context, o conformOptions) error {
	if o.report == "" {
		return nil
	}
	fmt.Fprintln(p.std.out)
	return p.inCell(ctx)
}

// onlyUnjudged reports whether nothing else is wrong than that mutants could not be judged.
func onlyUnjudged(s mutant.Score) bool {
	for _, t := range s.Trials {
		if !t.OK() && t.Verdict != mutant.Unjudged {
			return false
		}
	}
	return true
}

// tryMutant judges one mutant. The error is that of the attempt to do so.
func tryMutant(ctx context.Context, self string, m mutant.Mutant, all bool) (trial mutant.Trial, digest string, err error) {
	args := []string{"conform", "--json", "--report=", "--mutant", m.Name}
	if !all && !m.Full {
		args = append(args, "--tags", m.Tags)
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, mutantWait)
	defer cancel()
	var out, said bytes.Buffer
	cmd := exec.CommandContext(limited, self, args...)
	cmd.Stdout, cmd.Stderr = &out, &said
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) } // so that it takes its lab down
	_ = cmd.Run()                                                         // the report says it
	if ctx.Err() != nil {
		return mutant.Trial{}, "", ctx.Err()
	}
	var report suite.Report
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		trial = m.Judge(mutant.Run{Error: fmt.Sprintf("no report (%v): %s", err, said.String())})
	} else {
		trial, digest = m.Judge(runOf(&report)), report.Suite.Digest
	}
	trial.Seconds = time.Since(began).Seconds()
	return trial, digest, nil
}

func runOf(r *suite.Report) mutant.Run {
	run := mutant.Run{Result: r.Result.String(), Error: r.Error, Executed: r.Counts.Executed, Unjudged: r.Counts.Unjudged}
	for _, s := range r.Statements {
		if s.Result == suite.Failed {
			run.Failed = append(run.Failed, s.ID)
		}
	}
	for _, s := range r.Scenarios {
		if s.Result == suite.Failed {
			run.Killers = append(run.Killers, s.Name)
		}
	}
	return run
}

// readScore reads the score of the mutants that were judged before; nil if none were.
func readScore(o conformOptions) (*mutant.Score, error) {
	if !o.mutants {
		return nil, nil
	}
	text, err := os.ReadFile(filepath.Join(o.report, mutantsReport))
	if err != nil {
		return nil, fmt.Errorf("score of the mutants: %w", err)
	}
	var s mutant.Score
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("score of the mutants: %w", err)
	}
	return &s, nil
}

func writeScore(dir string, s *mutant.Score) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, mutantsReport), append(text, '\n'), 0o644)
}
