//go:build !operator

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"drawbridge/cmd/drawbridge/internal/bench"
	"drawbridge/sim"
	"drawbridge/sim/netns"
	"drawbridge/sim/realserver"
	"drawbridge/topology"

	"golang.org/x/sys/unix"
)

// benchmark is a lab with real servers, and a proxy at each enforcement point.
type benchmark struct {
	*sim.Lab
	benchOptions
	programs bench.Programs
	progress io.Writer
	vantages map[string]*netns.Handle
	caFile   string
	proxies  []*proxy
}

// measure builds the lab, runs the rows and takes the lab down. It stands inside a cell.
func (p *program) measure(ctx context.Context, o benchOptions, rows []bench.Row, programs bench.Programs) (*bench.Report, error) {
	dir, err := mountScratch()
	if err != nil {
		return nil, err
	}
	b := &benchmark{benchOptions: o, programs: programs, progress: p.std.err}
	fmt.Fprintf(b.progress, "bench tls: %d rows, %d rounds of %d runs, %v each: about %v\n", len(rows), o.rounds, len(bench.Ways),
		o.length, time.Duration(len(rows)*o.rounds*len(bench.Ways))*o.length)
	if err := b.up(ctx, dir); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	report, err := b.compare(ctx, rows)
	return report, errors.Join(err, b.Close())
}

// Close ends everything.
func (b *benchmark) Close() error {
	var errs []error
	for _, x := range b.proxies {
		errs = append(errs, x.Close())
	}
	if b.Lab != nil {
		errs = append(errs, b.Lab.Close())
	}
	return errors.Join(errs...)
}

func (b *benchmark) up(ctx context.Context, dir string) (err error) {
	if b.Lab, err = sim.Up(ctx, bench.World(), sim.Options{}); err != nil {
		return err
	}
	installed, err := realserver.Find(dir)
	if err != nil {
		return err
	}
	installed.Quiet = true
	if err := b.StartRealServers(ctx, installed); err != nil {
		return err
	}
	b.caFile = filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(b.caFile, b.CAFile(), 0o600); err != nil {
		return err
	}
	b.vantages = map[string]*netns.Handle{}
	for _, name := range bench.Vantages { // of which a test says that the world has them
		vantage, _ := b.World().Vantage(name)
		b.vantages[name], _ = b.Node(vantage.Namespace)
	}
	if err := b.roomForConnections(); err != nil {
		return err
	}
	for _, point := range b.World().Points() {
		x, err := b.startProxy(ctx, point, dir)
		if err != nil {
			return fmt.Errorf("%s at %s: %w", bench.HAProxy, point.Name, err)
		}
		b.proxies = append(b.proxies, x)
	}
	return b.fill(ctx)
}

// connectionSettings give a node the ports that thousands of connections in a second need, each of which keeps its port for a minute
// (TIME-WAIT); a lab's nodes have few. They are the same for all ways.
var connectionSettings = map[string]string{"ip_local_port_range": "1024 65000", "tcp_tw_reuse": "1"}

func (b *benchmark) roomForConnections() error {
	for _, name := range b.Nodes() {
		node, _ := b.Node(name)
		for setting, value := range connectionSettings {
			path := "/proc/sys/net/ipv4/" + setting // of the thread's network namespace
			if err := node.Do(func() error { return os.WriteFile(path, []byte(value), 0) }); err != nil {
				return fmt.Errorf("node %s: %w", name, err)
			}
		}
	}
	return nil
}

// fill gives the PostgreSQL databases what pgbench reads.
func (b *benchmark) fill(ctx context.Context) error {
	for _, model := range []topology.Model{topology.Shared, topology.Dedicated} {
		r := bench.Row{Engine: topology.PostgreSQL, Model: model, TLS: true}
		e, err := b.endpoint(r)
		if err != nil {
			return err
		}
		if _, err := b.load(ctx, r, bench.PgBenchData(b.target(e.Addr))); err != nil {
			return err
		}
	}
	return nil
}

// endpoint returns the endpoint that a row is about.
func (b *benchmark) endpoint(r bench.Row) (topology.Endpoint, error) {
	for _, e := range b.World().Endpoints() {
		d, _ := b.World().Database(e.Database)
		speaks := e.TLS != topology.TLSNone
		if !r.TLS {
			speaks = e.TLS != topology.TLSOnly
		}
		if d.Engine == r.Engine && d.Model == r.Model && !d.Canary && e.Kind == topology.PublicRW && e.Addr.Addr().Is4() && speaks {
			return e, nil
		}
	}
	return topology.Endpoint{}, fmt.Errorf("%s: the world has no such endpoint", r)
}

func (b *benchmark) target(addr netip.AddrPort) bench.Target {
	return bench.Target{Addr: addr, CAFile: b.caFile, Clients: b.clients}
}

// loadLimit is for one run of a load generator, beyond what it is expected to take: none should come near it, and one that hangs
// must not do so for ever.
const loadLimit = time.Minute

// load runs a row's load generator at its vantage and returns what it prints.
func (b *benchmark) load(ctx context.Context, r bench.Row, args []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, loadLimit+b.length)
	defer cancel()
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, b.programs[r.Program()], args...)
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &complaints, bench.Environment()
	err := b.vantages[r.Vantage()].Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", r.Program(), errors.Join(err, ctx.Err()), strings.TrimSpace(complaints.String()))
	}
	return out.String(), nil
}

// sample runs a row's load once.
func (b *benchmark) sample(ctx context.Context, r bench.Row, addr netip.AddrPort, n int) (s bench.Sample, err error) {
	before, err := bench.ReadUsage("/proc")
	if err != nil {
		return s, err
	}
	began := time.Now()
	out, err := b.load(ctx, r, r.Arguments(b.target(addr), n))
	if err != nil {
		return s, err
	}
	s.N, s.Elapsed = n, time.Since(began)
	after, err := bench.ReadUsage("/proc")
	if err != nil {
		return s, err
	}
	s.Used = after.Since(before)
	s.Outcome, err = r.Parse(out, b.clients, n)
	return s, err
}

// Runs that tell how much work fills a run: the first warms up, and its rate is for the length of the second.
const (
	warmUp     = 10 // transactions of each client
	trialShare = 4  // the second takes this part of a run's length
)

// calibrate returns how many transactions take about the length of a run without firewall.
func (b *benchmark) calibrate(ctx context.Context, r bench.Row, addr netip.AddrPort) (int, error) {
	n := warmUp * b.clients
	for _, length := range []time.Duration{b.length / trialShare, b.length} {
		s, err := b.sample(ctx, r, addr, n)
		if err != nil {
			return 0, err
		}
		each := int(s.PerSecond * length.Seconds() / float64(b.clients))
		n = max(each, 1) * b.clients
	}
	return n, nil
}

// compare measures all rows.
func (b *benchmark) compare(ctx context.Context, rows []bench.Row) (*bench.Report, error) {
	report, err := b.describe(ctx)
	if err != nil {
		return nil, err
	}
	for i, r := range rows {
		fmt.Fprintf(b.progress, "bench tls: %2d of %d: %-40s ", i+1, len(rows), r)
		result, err := b.row(ctx, r)
		if err != nil {
			fmt.Fprintln(b.progress)
			return nil, fmt.Errorf("%s: %w", r, err)
		}
		fmt.Fprintf(b.progress, "gate %.3f, HAProxy %.3f of %.0f %s/s\n", result.GateRatio.Median, result.ProxyRatio.Median,
			result.Direct.PerSecond.Median, result.Unit)
		report.Results = append(report.Results, result)
	}
	report.Conclude()
	return report, nil
}

// row measures one row, round by round.
func (b *benchmark) row(ctx context.Context, r bench.Row) (result bench.Result, err error) {
	e, err := b.endpoint(r)
	if err != nil {
		return result, err
	}
	if err := b.stand(ctx, bench.Direct, r); err != nil {
		return result, err
	}
	n, err := b.calibrate(ctx, r, e.Addr)
	if err != nil {
		return result, err
	}
	samples := map[bench.Way][]bench.Sample{}
	for range b.rounds {
		for _, w := range bench.Ways {
			s, err := b.by(ctx, w, r, e, n)
			if err != nil {
				return result, fmt.Errorf("%s: %w", w, err)
			}
			samples[w] = append(samples[w], s)
		}
	}
	return bench.NewResult(r, samples, runtime.NumCPU()), nil
}

// describe says what is being compared with what, and on which machine.
func (b *benchmark) describe(ctx context.Context) (*bench.Report, error) {
	m, err := thisMachine()
	if err != nil {
		return nil, err
	}
	report := &bench.Report{
		Kernel: m.Kernel, Processor: m.Processor, Processors: m.Processors,
		Programs: map[string]string{}, Rounds: b.rounds, Seconds: b.length.Seconds(), Clients: b.clients,
	}
	for program, path := range b.programs {
		flag := "--version"
		if program == bench.HAProxy {
			flag = "-v"
		}
		out, err := exec.CommandContext(ctx, path, flag).Output()
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", program, flag, err)
		}
		first, _, _ := strings.Cut(string(out), "\n")
		report.Programs[program] = strings.TrimSpace(first)
	}
	for _, d := range b.World().Databases() {
		if server := b.RealServer(d.Nodes[0].Name); server != nil {
			report.Programs[string(d.Engine)] = server.Program()
		}
	}
	return report, nil
}

// thisMachine says where something is measured.
func thisMachine() (m bench.Machine, err error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return m, os.NewSyscallError("uname", err)
	}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, err
	}
	return bench.Machine{Kernel: unix.ByteSliceToString(name.Release[:]), Processor: bench.ProcessorName(string(info)), Processors: runtime.NumCPU()}, nil
}
