package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// ErrListen: the address at which metrics were to be served cannot be used.
var ErrListen = errors.New("metrics cannot be served there")

// maxScrapers bounds how many ask for metrics at a time: whoever reaches the address may be anybody.
const maxScrapers = 16

// openMetrics listens for who asks for metrics, in the network namespace of the calling thread. The machine need not have the address yet.
func (d *daemon) openMetrics(ctx context.Context) error {
	if !d.Listen.IsValid() {
		return nil
	}
	network := "tcp6"
	if d.Listen.Addr().Is4() {
		network = "tcp4" // net takes 0.0.0.0 for all of both families otherwise
	}
	l, err := (&net.ListenConfig{Control: freebind}).Listen(ctx, network, d.Listen.String())
	if err != nil {
		return fmt.Errorf("%w: %w; name another address or port", ErrListen, err)
	}
	d.metrics = netutil.LimitListener(l, maxScrapers)
	if !d.Listen.Addr().Unmap().IsLoopback() {
		d.Log.Warn("whoever reaches this address can read the metrics: neither a password nor encryption keeps anybody out", "listen", l.Addr())
	}
	return nil
}

// freebind lets a socket have an address that the machine has not (ip(7), ipv6(7)): interfaces may come up later.
func freebind(network, _ string, raw syscall.RawConn) (err error) {
	level, option := unix.SOL_IP, unix.IP_FREEBIND
	if network == "tcp6" {
		level, option = unix.SOL_IPV6, unix.IPV6_FREEBIND
	}
	failed := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) })
	return errors.Join(failed, err)
}

// serveMetrics answers who asks for metrics until ctx ends, as one of a group.
func (d *daemon) serveMetrics(ctx context.Context, g *errgroup.Group) {
	if d.metrics == nil {
		return
	}
	server := &http.Server{
		Handler: d.state.publicHandler(), ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second,
		MaxHeaderBytes: maxRequest,
	}
	g.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	g.Go(func() error {
		if err := server.Serve(d.metrics); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("metrics: %w", err)
		}
		return nil
	})
}

// publicHandler answers /healthz, /readyz and /metrics, and says nothing of what the policy holds: whoever asks may be anybody.
func (s *state) publicHandler() *http.ServeMux {
	mux := http.NewServeMux()
	s.handleHealth(mux, func(Status) string {
		return "the policy that was read last is not in force; the log and /status at the socket say why"
	})
	return mux
}

// ParseListen reads an address and port at which metrics are served. The address is written out, so that nobody serves them to everybody by
// leaving it out, or wherever a name may lead.
func ParseListen(text string) (netip.AddrPort, error) {
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %q is not ADDRESS:PORT; for this machine alone say 127.0.0.1:9469 or [::1]:9469", ErrListen, text)
	}
	return at, nil
}
