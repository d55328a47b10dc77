//go:build !operator

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"drawbridge/cmd/drawbridge/internal/bench"
	"drawbridge/enforcer"
	"drawbridge/features/driver"
	"drawbridge/features/platform"
	"drawbridge/sim/netns"
	"drawbridge/topology"
)

// by runs a row's load by one way.
func (b *benchmark) by(ctx context.Context, w bench.Way, r bench.Row, e topology.Endpoint, n int) (s bench.Sample, err error) {
	if err := b.stand(ctx, w, r); err != nil {
		return s, err
	}
	addr := e.Addr
	if w == bench.Proxy {
		addr = netip.AddrPortFrom(addr.Addr(), addr.Port()+bench.ProxyOffset)
	}
	if s, err = b.sample(ctx, r, addr, n); err != nil || w != bench.Gate {
		return s, err
	}
	return s, b.witnessed(ctx, r, e, n)
}

// stand puts at every point what a way has there. The proxies always run: nobody talks to them unless it is their turn.
func (b *benchmark) stand(ctx context.Context, w bench.Way, r bench.Row) error {
	for _, point := range b.World().Points() {
		node, _ := b.Node(point.Name)
		act := func() error { return enforcer.Reset(ctx) }
		if w == bench.Gate {
			document, err := b.policy(point.Name, r)
			if err != nil {
				return err
			}
			act = func() error {
				_, err := enforcer.Apply(ctx, document, enforcer.Options{Name: point.Name})
				return err
			}
		}
		if err := node.Do(act); err != nil {
			return fmt.Errorf("%s: %w", point.Name, err)
		}
	}
	return nil
}

// ruleCount is how many rules a dedicated database has, of which one lets the client in.
const ruleCount = 30

// policy is that of a row at a point: Force TLS for all, or for none, and everything else in force.
func (b *benchmark) policy(point string, r bench.Row) ([]byte, error) {
	state := platform.Start(b.World())
	var rules []platform.Rule
	for i := range ruleCount - 1 {
		rules = append(rules, platform.Rule{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{11, 0, byte(i), 0}), 24)})
	}
	for _, h := range b.World().Internet() {
		for _, network := range h.Networks {
			if network.Addr().Is4() { // loads are
				rules = append(rules, platform.Rule{CIDR: network})
			}
		}
	}
	force := platform.Off // which is for the region's apps alone, where a database is shared
	if r.TLS {
		force = platform.On
	}
	for _, d := range b.World().Databases() {
		if d.Model == topology.Dedicated {
			state.Set(d.Name, platform.Settings{ForceTLS: force, Rules: rules})
		} else {
			state.Set(d.Name, platform.Settings{ForceTLS: force, InternetAccessibility: force})
		}
	}
	document, err := driver.Build(state, point)
	if err != nil {
		return nil, err
	}
	return json.Marshal(document)
}

// errPastTheGate: a load did not go through what it is said to have gone through.
var errPastTheGate = errors.New("the enforcer has not counted the connections of the load")

// witnessed asks the enforcer whether it saw the connections of the load that has just ended: what is measured must have gone
// through it. Ports that never speak TLS are not counted.
func (b *benchmark) witnessed(ctx context.Context, r bench.Row, e topology.Endpoint, n int) error {
	if e.TLS == topology.TLSNone {
		return nil
	}
	node, _ := b.Node(e.Point)
	var status enforcer.Status
	err := node.Do(func() (err error) { status, err = enforcer.ReadStatus(ctx, enforcer.Options{}); return err })
	if err != nil {
		return err
	}
	want := uint64(b.clients)
	if r.New {
		want = uint64(n)
	}
	var seen uint64
	for _, d := range status.Databases {
		if d.Name == e.Database && r.TLS {
			seen = d.TLS
		} else if d.Name == e.Database {
			seen = d.Plaintext
		}
	}
	if seen < want {
		return fmt.Errorf("%w: %d of %d", errPastTheGate, seen, want)
	}
	return nil
}

// proxy is a running HAProxy.
type proxy struct {
	cmd  *exec.Cmd
	says bytes.Buffer
}

// startProxy starts HAProxy at a point, with a port for each client port of IPv4. The ports are open before it runs, so that nobody
// has to wait for it: who comes first waits in the queue.
func (b *benchmark) startProxy(ctx context.Context, point topology.Point, dir string) (*proxy, error) {
	node, _ := b.Node(point.Name)
	x := &proxy{}
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close() // the process has its own
		}
	}()
	var forwards []bench.Forward
	for _, e := range b.World().Endpoints() {
		if e.Point != point.Name || e.Kind != topology.PublicRW || !e.Addr.Addr().Is4() {
			continue
		}
		f, err := listenFile(ctx, node, netip.AddrPortFrom(e.Addr.Addr(), e.Addr.Port()+bench.ProxyOffset))
		if err != nil {
			return nil, err
		}
		files = append(files, f)
		const firstInherited = 3 // os/exec: ExtraFiles follow the standard streams
		forwards = append(forwards, bench.Forward{FD: firstInherited + len(forwards), To: b.behind(point, e)})
	}
	config := filepath.Join(dir, point.Name+".haproxy")
	if err := os.WriteFile(config, []byte(bench.ProxySettings(forwards)), 0o600); err != nil {
		return nil, err
	}
	x.cmd = exec.Command(b.programs[bench.HAProxy], "-db", "-f", config)
	x.cmd.Stdout, x.cmd.Stderr, x.cmd.Env, x.cmd.ExtraFiles = &x.says, &x.says, bench.Environment(), files
	return x, node.Start(x.cmd)
}

// behind is where the proxy at a point finds the server of an endpoint: on the point itself, or at its node.
func (b *benchmark) behind(point topology.Point, e topology.Endpoint) netip.AddrPort {
	d, _ := b.World().Database(e.Database)
	port := d.Nodes[0].Port
	if e.TLS == topology.TLSNone {
		port = d.Nodes[0].PlainPort
	}
	if point.Model == topology.Shared {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	}
	for _, a := range d.Nodes[0].Addresses {
		if a.Is4() {
			return netip.AddrPortFrom(a, port)
		}
	}
	return netip.AddrPort{} // HAProxy refuses the configuration
}

func listenFile(ctx context.Context, node *netns.Handle, at netip.AddrPort) (*os.File, error) {
	l, err := node.Listen(ctx, at)
	if err != nil {
		return nil, err
	}
	defer l.Close() // the file is a duplicate
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("listen at %s: %T is no TCP listener", at, l)
	}
	return tcp.File()
}

// Close ends the proxy. Its error says if it had ended by itself, and what it said.
func (x *proxy) Close() error {
	killed := x.cmd.Process.Kill()
	err := x.cmd.Wait()
	if killed != nil {
		return fmt.Errorf("%s ended by itself: %w: %s", bench.HAProxy, errors.Join(killed, err), strings.TrimSpace(x.says.String()))
	}
	return nil
}
