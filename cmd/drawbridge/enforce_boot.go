package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"drawbridge/enforcer"
	"drawbridge/enforcer/daemon"

	"github.com/spf13/cobra"
)

// bootFlags are the flags of enforce boot.
type bootFlags struct {
	enforceFlags
	state string
	deny  []string
}

func (p *program) enforceBootCommand() *cobra.Command {
	var o bootFlags
	c := &cobra.Command{
		Use:   "boot",
		Short: "Bring the last good policy into force before the network is up, or else deny all that it protected",
		Long: `Brings into force, and ends, the first of these that is there and whole:

  1. the policy that enforce run kept in the state directory, or the second copy of it;
  2. the policy of --policy, a file or a directory of parts as of enforce run;
  3. a denial of everything that the last good policy protected, of which enforce run keeps a list beside it, and of what
     --deny names. Nobody gets in there but from loopback, until enforce run has a policy.

Exit code 0 if one of them is in force; what was passed over is told on standard error. Exit code 3 if none is: then nothing is
denied, and the network must not come up (drawbridge-boot.service is required by network-pre.target).`,
		Example: `  drawbridge enforce boot --state /var/lib/drawbridge
  drawbridge enforce boot --state /var/lib/drawbridge --policy /etc/drawbridge/policy.json --deny 203.0.113.7 --deny 192.0.2.1:5432`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return p.enforceBoot(c.Context(), o) },
	}
	o.addMask(c)
	c.Flags().StringVar(&o.state, "state", "", "`directory` of the last good policy (required)")
	c.Flags().StringVar(&o.file, "policy", "", policyWords+", if there is no last good one")
	c.Flags().StringArrayVar(&o.deny, "deny", nil, "`address` or address:port to deny if there is no policy at all (may be repeated)")
	return c
}

func (p *program) enforceBoot(ctx context.Context, o bootFlags) error {
	const verb = "enforce boot"
	collectLate()
	options, err := o.options(verb)
	if err != nil {
		return err
	}
	if o.state == "" {
		return misusef(verb+": --state", "name the directory")
	}
	var denied []enforcer.Target
	for _, text := range o.deny {
		target, err := enforcer.ParseTarget(text)
		if err != nil {
			return misuse(verb+": --deny", err)
		}
		denied = append(denied, target)
	}
	snapshots := daemon.Snapshots{Dir: o.state}
	var failed []error
	for _, source := range []struct {
		name string
		read func() ([]byte, error)
		boot func(context.Context, []byte, enforcer.Options) (enforcer.Receipt, error)
	}{{o.state, snapshots.Load, enforcer.BootKept}, {o.file, func() ([]byte, error) {
		_, document, err := p.readPolicy(o.file)
		return document, err
	}, enforcer.Boot}} {
		if source.name == "" {
			continue
		}
		document, err := source.read()
		if err == nil {
			options.Name = source.name
			_, err = source.boot(ctx, document, options)
		}
		if err == nil || errors.Is(err, enforcer.ErrNotCut) || errors.Is(err, enforcer.ErrBlind) {
			p.passedOver(failed, err)
			return nil
		}
		failed = append(failed, err)
	}
	return p.bootDenying(ctx, verb, snapshots, denied, failed)
}

// bootDenying denies what the last good policy protected.
func (p *program) bootDenying(ctx context.Context, verb string, snapshots daemon.Snapshots, denied []enforcer.Target, failed []error) error {
	protected, err := snapshots.LoadProtected()
	if err != nil && !errors.Is(err, os.ErrNotExist) { // that nothing was kept has been said of the policy
		failed = append(failed, fmt.Errorf("what the last policy protected: %w", err))
	}
	denied = append(protected, denied...)
	if err := enforcer.BootDenying(ctx, denied, enforcer.Options{}); err != nil {
		return unable(verb, notBooted(verb, append(failed, err)))
	}
	p.passedOver(failed)
	fmt.Fprintf(p.std.err, "warning: no policy is in force; %d protected addresses are denied until there is one\n", len(denied))
	return nil
}

// errNotBooted: boot found nothing that it could bring into force.
var errNotBooted = errors.New("no policy could be brought into force and nothing denied, so the network must not come up")

// notBooted says what was tried and why it failed, each reason once, and what to do.
func notBooted(verb string, failed []error) error {
	out := []error{errNotBooted}
	said := map[string]bool{}
	for _, err := range failed {
		if err = reasoned(verb, err); !said[err.Error()] {
			out = append(out, err)
		}
		said[err.Error()] = true
	}
	return errors.Join(append(out, errBootWayOut)...)
}

// errBootWayOut ends what boot says when it could do nothing.
var errBootWayOut = errors.New("way out: put a policy at the path of --policy, and ask `drawbridge enforce plan --policy PATH` whether it is one; " +
	"or name addresses to deny until there is one, with --deny (in the unit: DRAWBRIDGE_BOOT_FLAGS); then start drawbridge-boot.service again")

// passedOver tells what could not be used.
func (p *program) passedOver(failed []error, more ...error) {
	for _, err := range append(failed, more...) {
		if err != nil {
			fmt.Fprintf(p.std.err, "warning: %v\n", err)
		}
	}
}
