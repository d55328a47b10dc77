package suite

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"

	"drawbridge/sim"
)

// fabricTable belongs to the lab.
const fabricTable = "drawbridge_fabric"

func (l *simulated) Tamper(ctx context.Context, point string, how Tampering) error {
	if how == FlushRuleset {
		_, err := l.nft(ctx, point, "flush", "ruleset")
		return err
	}
	listed, err := l.nft(ctx, point, "-j", "list", "sets")
	if err != nil {
		return err
	}
	var sets struct {
		Nftables []struct {
			Set *struct{ Family, Table, Name string }
		}
	}
	if err := json.Unmarshal(listed, &sets); err != nil {
		return fmt.Errorf("nft list sets at %s: %w", point, err)
	}
	for _, s := range sets.Nftables {
		if s.Set == nil || s.Set.Table == fabricTable {
			continue
		}
		if _, err := l.nft(ctx, point, "flush", "set", s.Set.Family, s.Set.Table, s.Set.Name); err != nil && !errors.As(err, new(*exec.ExitError)) {
			return err // that the kernel refused it is as good as an answer
		}
	}
	return nil
}

// nft runs nft(8) at a point.
func (l *simulated) nft(ctx context.Context, point string, args ...string) ([]byte, error) {
	ns, ok := l.lab.Node(point)
	if !ok {
		return nil, fmt.Errorf("%s: %w", point, sim.ErrUnknown)
	}
	path, err := exec.LookPath("nft")
	if err != nil {
		return nil, fmt.Errorf("tamper with the rules as another program would: %w; install nftables", err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := ns.Start(cmd); err != nil {
		return nil, fmt.Errorf("nft at %s: %w", point, err)
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("nft %v at %s: %w: %s", args, point, err, stderr.String())
	}
	return out.Bytes(), nil
}
