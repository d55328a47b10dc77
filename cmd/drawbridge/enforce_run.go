package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"drawbridge/enforcer/daemon"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
)

// runFlags are the flags of enforce run and enforce boot.
type runFlags struct {
	enforceFlags
	state, socket, audit string
	listen               string
	noOwner, jsonLog     bool
	dry                  bool
	await                bool // for the first policy
}

func (p *program) enforceRunCommand() *cobra.Command {
	var o runFlags
	c := &cobra.Command{
		Use:   "run",
		Short: "Keep a policy in force: follow its file, and let nobody else change the rules",
		Long: `Brings the policy into force and follows its file: whenever that is replaced or written to, and on SIGHUP, the change comes
into force within milliseconds, as one transaction. A policy that is refused changes nothing; the last good one stays, and
the log and the status say why.

The tables belong to this process (kernel 6.9): other programs cannot change them, and "nft flush ruleset" passes them
over. On older kernels and with --no-owner, what others change is mended at once and logged with the culprit's name. When
this process ends, by whatever means, everything stays in force, and the next start takes it over.

There is one in each network namespace: a second one does not start (exit code 3).

A directory as --policy holds parts of one document in *.json files, whose lists of databases are put together.`,
		Example: `  drawbridge enforce run --policy /etc/drawbridge/policy.json --state /var/lib/drawbridge
  drawbridge enforce run --policy /etc/drawbridge/policy.d --socket /run/drawbridge.sock
  drawbridge enforce run --policy /etc/drawbridge/policy.json --listen 127.0.0.1:9469
  drawbridge enforce run --policy /etc/drawbridge/policy.json --dry-run
  curl --unix-socket /run/drawbridge.sock http://localhost/metrics`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return p.enforceRun(c.Context(), o) },
	}
	c.Flags().StringVar(&o.file, "policy", "", "policy `path`, a file or a directory (required)")
	o.addMask(c)
	c.Flags().StringVar(&o.state, "state", "", "`directory` for the last good policy (default: it is not kept)")
	c.Flags().StringVar(&o.socket, "socket", "", "`path` of a local socket that answers /status, /healthz, /readyz and /metrics over HTTP; one that was left behind is replaced, nothing else")
	c.Flags().StringVar(&o.listen, "listen", "", "`address:port` that answers /metrics, /healthz and /readyz over HTTP, to whoever reaches it; Prometheus wants one")
	c.Flags().StringVar(&o.audit, "audit", "", "`file` to which changes and tampering are appended, as JSON lines; renamed, it is made anew")
	c.Flags().BoolVar(&o.noOwner, "no-owner", false, "leave the tables to anybody, and mend them")
	c.Flags().BoolVar(&o.dry, "dry-run", false, "enforce nothing: say every 10 s, and at the end, whom of the real traffic the policy would deny")
	c.Flags().BoolVar(&o.jsonLog, "log-json", false, "log JSON to standard error")
	return c
}

func (p *program) enforceRun(ctx context.Context, o runFlags) error {
	const verb = "enforce run"
	options, err := o.options(verb)
	if err != nil {
		return err
	}
	if o.file == "" {
		return misusef(verb+": --policy", "name the policy's file or directory")
	}
	if o.file == standardInput && !o.dry {
		return misusef(verb+": --policy", "standard input cannot be followed; name a file or a directory, or bring it into force once with drawbridge enforce apply")
	}
	var listen netip.AddrPort
	if o.listen != "" {
		if listen, err = daemon.ParseListen(o.listen); err != nil {
			return misuse(verb+": --listen", err)
		}
	}
	if o.dry {
		return p.dryRun(ctx, o, options)
	}
	reload := make(chan struct{}, 1)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for range hup {
			select {
			case reload <- struct{}{}:
			default: // one is waiting already
			}
		}
	}()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err = daemon.Run(ctx, daemon.Options{
		Policy: o.file, Snapshots: daemon.Snapshots{Dir: o.state}, Socket: o.socket, Listen: listen, Audit: o.audit, NoOwner: o.noOwner,
		Enforcer: options, Reload: reload, Await: o.await, Log: p.logger(o.jsonLog), Alive: watchdog(), Ready: func() {
			fmt.Fprintln(p.std.out, "ready")
			_, _ = sd.SdNotify(false, sd.SdNotifyReady) // nobody listens unless systemd started this
		},
	})
	switch {
	case errors.Is(err, daemon.ErrSocketTaken):
		return misuse(verb+": --socket", err)
	case err != nil:
		return unable(verb, err)
	}
	return nil
}

// watchdog tells the service manager that the loop is alive, if it wants to know (WatchdogSec=); nil if not.
func watchdog() func() {
	if every, err := sd.SdWatchdogEnabled(false); err != nil || every == 0 {
		return nil
	}
	return func() { _, _ = sd.SdNotify(false, sd.SdNotifyWatchdog) } // without it the service is started anew
}

func (p *program) logger(asJSON bool) *slog.Logger {
	if asJSON {
		return slog.New(slog.NewJSONHandler(p.std.err, nil))
	}
	return slog.New(slog.NewTextHandler(p.std.err, nil))
}
