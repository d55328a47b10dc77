package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"drawbridge/enforcer"
)

const (
	dryRunLook   = time.Second      // how often a dry run looks whether the policy's file has changed
	dryRunReport = 10 * time.Second // how often it tells what it would have denied
)

// dryRun lets a policy decide without consequences until it is told to stop.
func (p *program) dryRun(ctx context.Context, o runFlags, options enforcer.Options) (err error) {
	const verb = "enforce run --dry-run"
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var document []byte
	if options.Name, document, err = p.readPolicy(o.file); err != nil {
		return misuse(verb, err)
	}
	d, err := enforcer.OpenDryRun(ctx, options)
	if err != nil {
		return unable(verb, err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.Apply(ctx, document); err != nil {
		if errors.Is(err, enforcer.ErrRefused) {
			return misuse(verb, err)
		}
		return unable(verb, err)
	}
	fmt.Fprintln(p.std.out, "ready")
	told := map[string]uint64{}
	look, report := time.NewTicker(dryRunLook), time.NewTicker(dryRunReport)
	defer look.Stop()
	defer report.Stop()
	for {
		select {
		case <-ctx.Done():
			err := p.wouldDeny(context.WithoutCancel(ctx), d, told, o.jsonLog)
			if err == nil && len(told) == 0 && !o.jsonLog {
				err = p.print("enforce run --dry-run", "nobody would have been denied\n")
			}
			return err
		case <-look.C:
			if o.file == standardInput {
				continue // it has been read, and does not change
			}
			_, next, err := p.readPolicy(o.file)
			if err == nil && !bytes.Equal(next, document) {
				document = next
				err = d.Apply(ctx, document)
			}
			if err != nil {
				fmt.Fprintf(p.std.err, "warning: %v; the policy before goes on\n", err)
			}
		case <-report.C:
			if err := p.wouldDeny(ctx, d, told, o.jsonLog); err != nil {
				return err
			}
		}
	}
}

// wouldDeny tells what would have been denied since it was told last.
func (p *program) wouldDeny(ctx context.Context, d *enforcer.DryRun, told map[string]uint64, asJSON bool) error {
	denied, err := d.Denied(ctx)
	if err != nil {
		return unable("enforce run --dry-run", err)
	}
	for _, w := range denied {
		key := w.Source.String() + " " + w.To.String()
		if told[key] == w.Packets {
			continue
		}
		told[key] = w.Packets
		if asJSON {
			err = json.NewEncoder(p.std.out).Encode(w)
		} else {
			_, err = fmt.Fprintf(p.std.out, "%s would deny %s to %s (database %s), %d packets so far\n", w.LastAt.UTC().Format(time.RFC3339), w.Source, w.To, w.Database, w.Packets)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
