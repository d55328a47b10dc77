package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"drawbridge/enforcer"
	"drawbridge/enforcer/daemon"
	"drawbridge/enforcer/policy"

	"github.com/spf13/cobra"
)

// The files of a resident enforcer, in the working directory of its point.
const (
	residentPolicy = "policy.json"
	residentSocket = "socket"
	residentState  = "state"
)

// enforceResidentCommand is the driver of the reference enforcer's long-running form.
func (p *program) enforceResidentCommand() *cobra.Command {
	leaf := func(use, short string, run func(context.Context) error) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Example: "  drawbridge enforce resident " + use, Args: exactly(),
			RunE: func(c *cobra.Command, _ []string) error { return run(c.Context()) },
		}
	}
	return group(&cobra.Command{
		Use:   "resident",
		Short: "The reference enforcer as a long-running program, behind the driver protocol",
		Long: `The driver of drawbridge enforce run (docs/DRIVERS.md, features.run). Its policy, socket and state are files in the working
directory; apply puts the policy there and answers once the program has brought it into force.`,
		Example: "  drawbridge enforce resident describe",
	},
		leaf("describe", "Say what this enforcer is and can do", func(context.Context) error {
			about := enforcer.Describe(currentVersion())
			about.Features.Run = true
			return json.NewEncoder(p.std.out).Encode(about)
		}),
		leaf("run", "Keep in force what apply hands over, until SIGTERM", func(ctx context.Context) error {
			return p.enforceRun(ctx, runFlags{
				enforceFlags: enforceFlags{file: residentPolicy, mask: defaultMask}, state: residentState, socket: residentSocket, await: true,
			})
		}),
		leaf("apply", "Hand a policy to the running program and wait until it is in force", p.residentApply),
		leaf("reset", "Take everything out of force that was ever applied here, once nothing runs any more", func(ctx context.Context) error {
			err := errors.Join(os.RemoveAll(residentPolicy), os.RemoveAll(residentState), enforcer.Reset(ctx))
			if err != nil {
				return unable("enforce resident reset", err)
			}
			return nil
		}),
	)
}

func (p *program) residentApply(ctx context.Context) error {
	const verb = "enforce resident apply"
	name, document, err := p.readPolicy("")
	if err != nil {
		return misuse(verb, err)
	}
	if _, err := policy.Parse(name, document); err != nil {
		return misuse(verb, fmt.Errorf("%w: %w", enforcer.ErrRefused, err))
	}
	var before daemon.Status
	if err := residentAsk(ctx, "/status", &before); err != nil {
		return unable(verb, err)
	}
	next := residentPolicy + ".new"
	if err := errors.Join(os.WriteFile(next, document, 0o600), os.Rename(next, residentPolicy)); err != nil {
		return unable(verb, err)
	}
	var status daemon.Status
	where := fmt.Sprintf("/status/%x?after=%d", sha256.Sum256(document), before.Read)
	switch err := residentAsk(ctx, where, &status); {
	case err != nil:
		return unable(verb, err)
	case status.Refused != "" || status.Receipt == nil:
		return unable(verb, errors.New("the running program refused it: "+status.Refused))
	}
	p.warn(status.Receipt.Warnings)
	if err := json.NewEncoder(p.std.out).Encode(status.Receipt); err != nil {
		return unable(verb, err)
	}
	return nil
}

// residentAsk asks the running program for something over its socket.
func residentAsk(ctx context.Context, where string, answer any) error {
	return askDaemon(ctx, residentSocket, where, answer)
}
