//go:build !operator

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"drawbridge/cmd/drawbridge/internal/bench"
	"drawbridge/features/suite"
)

// deniedLimit is how long one waits for a connection that does not come, where nothing but time tells.
const deniedLimit = time.Second

// suite runs the whole suite once, and compares what a denial takes with a time-out.
func (b *comparer) suite(ctx context.Context) error {
	fmt.Fprintf(b.progress, "bench: %-66s ", "the whole suite, once")
	report, err := conformOnce(ctx)
	if err != nil {
		fmt.Fprintln(b.progress)
		return err
	}
	fmt.Fprintf(b.progress, "%.1fs\n", report.Seconds)
	timeout, err := b.timeOut(ctx)
	if err != nil {
		return err
	}
	denials := report.Denials.Count
	known := func(v float64) func(context.Context) (bench.Values, error) {
		return func(context.Context) (bench.Values, error) { return bench.Values{"": v}, nil }
	}
	once := b.plan
	once.Rounds = 1
	for _, t := range []bench.Task{
		{Group: "Suite", Name: fmt.Sprintf("a denied probe, median of %s", bench.Thousands(denials)), Metrics: []bench.Metric{{Unit: "ms"}}, Contenders: []bench.Contender{
			{Name: byEnforcer, Kind: bench.Ours, Run: known(report.Denials.P50)},
			{Name: "a connect that nobody answers, with a time-out of 1 s", Kind: bench.Peer, Run: known(millis(timeout))},
		}},
		{Group: "Suite", Name: fmt.Sprintf("the whole suite, %d scenarios", len(report.Scenarios)), Metrics: []bench.Metric{{Unit: "s"}}, Contenders: []bench.Contender{
			{Name: byEnforcer, Kind: bench.Ours, Run: known(report.Seconds)},
			{Name: "its denials alone, by that time-out, one after the other (computed)", Kind: bench.Peer, Run: known(float64(denials) * timeout.Seconds())},
		}},
	} {
		if err := b.measure(ctx, once, t); err != nil {
			return err
		}
	}
	return nil
}

// conformOnce judges the reference enforcer, in another process, as anybody would.
func conformOnce(ctx context.Context) (*suite.Report, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "conform", "--json", "--report", "")
	cmd.Stderr = os.Stderr
	out, ended := cmd.Output()
	var report suite.Report
	if err := json.Unmarshal(out, &report); err != nil {
		return nil, fmt.Errorf("conform: %w", errors.Join(ended, err))
	}
	if ended != nil {
		return nil, fmt.Errorf("conform: %w: %s", ended, wrongIn(&report))
	}
	if report.Denials.Count == 0 || report.Seconds <= 0 {
		return nil, errors.New("conform: its report tells of no denial")
	}
	return &report, nil
}

// wrongIn names what did not pass.
func wrongIn(report *suite.Report) string {
	wrong := []string{report.Error}
	for _, s := range report.Scenarios {
		if s.Result != suite.Passed {
			wrong = append(wrong, fmt.Sprintf("%s: %s: %s", s.Name, s.Result, s.Error))
		}
	}
	return strings.TrimSpace(strings.Join(wrong, "\n"))
}

// timeOut connects to where nobody answers, and returns how long it took to give up.
func (b *comparer) timeOut(ctx context.Context) (time.Duration, error) {
	var r road
	defer func() { _ = r.Close() }() // nothing is left to be measured
	if err := r.build(bench.Gateway{Databases: 1}); err != nil {
		return 0, err
	}
	nobody := netip.MustParseAddrPort("192.0.2.1:5432") // the server's end is no router, and drops it
	ctx, cancel := context.WithTimeout(ctx, deniedLimit)
	defer cancel()
	began := time.Now()
	c, err := r.client.Dial(ctx, netip.AddrPort{}, nobody)
	took := time.Since(began)
	if err == nil {
		return 0, errors.Join(errors.New("a connection to nobody was answered"), c.Close())
	}
	if ctx.Err() == nil {
		return 0, fmt.Errorf("a connection to nobody was refused: %w", err)
	}
	return took, nil
}
