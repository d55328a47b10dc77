package sim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"drawbridge/sim/authority"
	"drawbridge/sim/endpoint"
	"drawbridge/sim/netns"
	"drawbridge/sim/realserver"
	"drawbridge/sim/stray"
	"drawbridge/sim/switchboard"
	"drawbridge/topology"

	"golang.org/x/sync/errgroup"
)

// ErrStarted is returned by StartServers when the servers run already.
var ErrStarted = errors.New("the servers of the lab are running already")

// errClosed is returned by StartServers for a lab that was closed.
var errClosed = errors.New("the lab is closed")

// services is everything in a lab that answers.
type services struct {
	installed *realserver.Installation // nil: every server is embedded
	authority *authority.Authority
	journal   *endpoint.Journal
	keys      keyLog
	mu        sync.Mutex
	servers   map[serverKey]*endpoint.Server
	real      map[string]*realserver.Server    // by the database's node
	stray     map[string]*stray.Listeners      // by gateway
	boards    map[serverKey]*switchboard.Board // by machine and port
}

// serverKey tells servers apart: a node has one per port.
type serverKey struct {
	node string // of the database, not of the fabric: several live on one shared host
	port uint16
}

// StartServers starts a server for each port of each database node, in the node's namespace, listening on all of its
// addresses, and the forgotten listeners of the gateways. They run until the lab is closed. If anything fails, none is left
// running.
func (l *Lab) StartServers(ctx context.Context) error { return l.startServers(ctx, nil) }

// StartRealServers is StartServers with the distribution's servers at the client ports of the engines that it has. Embedded
// remain the other engines, the ports that only a cluster's nodes use, and the canaries, which are the lab's own
// instruments.
//
// Nodes are servers of their own, as a fail-over in the lab moves an endpoint between them and asks for no data. Those of
// the replicated databases, which have to be PostgreSQL's, are one cluster instead: all but the first follow the first by
// streaming replication over TLS, at its own address.
func (l *Lab) StartRealServers(ctx context.Context, installed *realserver.Installation, replicated ...string) error {
	for _, name := range replicated {
		if d, ok := l.world.Database(name); !ok || d.Engine != topology.PostgreSQL {
			return fmt.Errorf("replicate %s: no such PostgreSQL database: %w", name, ErrUnknown)
		}
	}
	return l.startServers(ctx, installed, replicated...)
}

func (l *Lab) startServers(ctx context.Context, installed *realserver.Installation, replicated ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errClosed
	}
	if l.services != nil {
		return ErrStarted
	}
	s, err := newServices(l.world.Name())
	if err != nil {
		return err
	}
	s.installed = installed
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, d := range l.world.Databases() {
		if slices.Contains(replicated, d.Name) {
			g.Go(func() error { return s.startCluster(ctx, l.nodes, d) })
			continue
		}
		for _, n := range d.Nodes {
			g.Go(func() error { return s.startNode(ctx, l.nodes[n.Listener()], d, n, nil) })
		}
	}
	for _, gw := range l.world.Gateways() {
		if l.opts.WithoutStray {
			break
		}
		g.Go(func() error { return s.startStray(ctx, l.nodes[gw.Name], gw.Name, l.world) })
	}
	if err := g.Wait(); err != nil {
		return errors.Join(fmt.Errorf("start servers: %w", err), s.close())
	}
	l.services = s
	return nil
}

func newServices(world string) (*services, error) {
	a, err := authority.New("drawbridge lab "+world, time.Now)
	if err != nil {
		return nil, err
	}
	return &services{
		authority: a, journal: endpoint.NewJournal(),
		servers: make(map[serverKey]*endpoint.Server), real: make(map[string]*realserver.Server),
		stray: make(map[string]*stray.Listeners), boards: make(map[serverKey]*switchboard.Board),
	}, nil
}

// startCluster starts the nodes of a replicated database one after the other: each copies the first.
func (s *services) startCluster(ctx context.Context, nodes map[string]*netns.Handle, d topology.Database) error {
	var primary *realserver.Primary
	for _, n := range d.Nodes {
		if err := s.startNode(ctx, nodes[n.Listener()], d, n, primary); err != nil {
			return err
		}
		primary = realserver.PrimaryAt(netip.AddrPortFrom(d.Nodes[0].Addresses[0], d.Nodes[0].Port))
	}
	return nil
}

func (s *services) startNode(
	ctx context.Context, h *netns.Handle, d topology.Database, n topology.Node, follow *realserver.Primary,
) error {
	cert, config, err := s.certify(d, n)
	if err != nil {
		return err
	}
	real := s.installed != nil && !d.Canary && realserver.Plays(d.Engine)
	if real {
		if err := s.startReal(ctx, h, d, n, cert, follow); err != nil {
			return fmt.Errorf("database %s: %w", d.Name, err)
		}
	}
	for _, port := range d.Listeners(n) {
		if real && port.Client {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		listener, err := s.listen(ctx, h, n, port.Port)
		if err != nil {
			return fmt.Errorf("database %s, node %s: %w", d.Name, n.Name, err)
		}
		server, err := endpoint.Serve(listener, endpoint.Config{
			Engine: d.Engine, Cluster: !port.Client, Transport: transportOf(port.TLS), TLS: config,
			Database: d.Name, Node: n.Name, Journal: s.journal,
		})
		if err != nil {
			return fmt.Errorf("database %s, node %s, port %d: %w", d.Name, n.Name, port.Port, err)
		}
		s.mu.Lock()
		s.servers[serverKey{n.Name, port.Port}] = server
		s.mu.Unlock()
	}
	return nil
}

// certify issues a node's certificate. Where nodes share a machine there are thousands of them, of which few are ever talked to: theirs is
// issued with the first handshake, and the one that is returned is empty.
func (s *services) certify(d topology.Database, n topology.Node) (tls.Certificate, *tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, KeyLogWriter: &s.keys}
	issue := func() (tls.Certificate, error) { return s.authority.Issue(namesOf(d, n), addressesOf(d, n)) }
	if n.Machine != "" {
		once := sync.OnceValues(issue)
		config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, err := once()
			return &cert, err
		}
		return tls.Certificate{}, config, nil
	}
	cert, err := issue()
	config.Certificates = []tls.Certificate{cert}
	return cert, config, err
}

// listen opens a port of a node: at every address of its namespace, or where it shares a machine, at its own.
func (s *services) listen(ctx context.Context, h *netns.Handle, n topology.Node, port uint16) (net.Listener, error) {
	everywhere := netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	if n.Machine == "" {
		return h.Listen(ctx, everywhere)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := serverKey{n.Machine, port}
	if s.boards[at] == nil {
		socket, err := h.Listen(ctx, everywhere)
		if err != nil {
			return nil, err
		}
		s.boards[at] = switchboard.New(socket)
	}
	return s.boards[at].Listen(n.Addresses...)
}

// errMachine: a real server listens at all addresses of its namespace.
var errMachine = errors.New("a real server cannot share a machine")

func (s *services) startReal(
	ctx context.Context, h *netns.Handle, d topology.Database, n topology.Node, cert tls.Certificate, follow *realserver.Primary,
) error {
	if n.Machine != "" {
		return fmt.Errorf("node %s on %s: %w", n.Name, n.Machine, errMachine)
	}
	server, err := s.installed.Start(ctx, realserver.Config{
		Engine: d.Engine, Node: h, Port: n.Port, PlainPort: n.PlainPort, Certificate: cert,
		Database: d.Name, Name: n.Name, Journal: s.journal, Standby: follow,
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.real[n.Name] = server
	return nil
}

// namesOf returns every name by which a client may call the node: its own, and the database's.
func namesOf(d topology.Database, n topology.Node) []string {
	names := []string{n.Name, d.Name, d.Domain()}
	if private := d.PrivateDomain(); private != "" {
		names = append(names, private)
	}
	return names
}

// addressesOf returns every address at which a client may believe to talk to the node: its own, and, as any node may become
// the primary, those of the database.
func addressesOf(d topology.Database, n topology.Node) []netip.Addr {
	addrs := slices.Concat(n.Addresses, d.Addresses)
	if d.Peering != nil {
		addrs = append(addrs, d.Peering.Address...)
	}
	return addrs
}

// transportOf translates the driver protocol's word. An unknown one becomes the transport that no server accepts.
func transportOf(t topology.PortTLS) endpoint.Transport {
	switch t {
	case topology.TLSInBand:
		return endpoint.InBand
	case topology.TLSEither:
		return endpoint.Either
	case topology.TLSOnly:
		return endpoint.TLSOnly
	case topology.TLSNone:
		return endpoint.PlainOnly
	}
	return 0
}

// strayAt returns at which addresses of a gateway somebody forgot listeners, and their UDP ports: the databases' own.
func strayAt(w *topology.World, gateway string) (addrs []netip.Addr, ports []uint16) {
	for _, d := range w.Databases() {
		if d.Gateway != gateway {
			continue
		}
		addrs = append(addrs, d.Addresses...)
		if d.Peering != nil {
			addrs = append(addrs, d.Peering.Address...)
		}
		if !slices.Contains(ports, d.Port) {
			ports = append(ports, d.Port)
		}
	}
	return addrs, ports
}

func (s *services) startStray(ctx context.Context, h *netns.Handle, gateway string, w *topology.World) error {
	addrs, ports := strayAt(w, gateway)
	listeners, err := stray.Listen(ctx, h, addrs, ports)
	if err != nil {
		return fmt.Errorf("gateway %s: %w", gateway, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stray[gateway] = listeners
	return nil
}

// close ends everything, at once, and waits for it.
func (s *services) close() error {
	if s == nil {
		return nil
	}
	var closers []io.Closer
	for _, c := range s.servers {
		closers = append(closers, c)
	}
	for _, c := range s.real {
		closers = append(closers, c)
	}
	for _, c := range s.stray {
		closers = append(closers, c)
	}
	errs := make([]error, len(closers))
	var wg sync.WaitGroup
	for i, c := range closers {
		wg.Go(func() { errs[i] = c.Close() })
	}
	wg.Wait()
	for _, b := range s.boards { // whose end would be an error to the servers
		errs = append(errs, b.Close())
	}
	return errors.Join(errs...)
}

// Server returns the server of a database node at a port; nil if there is none, or the servers were not started.
func (l *Lab) Server(node string, port uint16) *endpoint.Server {
	if s := l.running(); s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.servers[serverKey{node, port}]
	}
	return nil
}

// RealServer returns the real server of a database node; nil if its server is embedded, there is none, or none was started.
func (l *Lab) RealServer(node string) *realserver.Server {
	if s := l.running(); s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.real[node]
	}
	return nil
}

// SyncJournal returns once the journal holds whatever the servers of a database had seen before the call. Embedded servers
// write it as they see it; real ones write logs, which arrive later.
func (l *Lab) SyncJournal(ctx context.Context, database string) error {
	d, ok := l.world.Database(database)
	if !ok {
		return fmt.Errorf("database %q: %w", database, ErrUnknown)
	}
	var g errgroup.Group
	for _, n := range d.Nodes {
		if server := l.RealServer(n.Name); server != nil {
			g.Go(func() error { return server.Sync(ctx) })
		}
	}
	return g.Wait()
}

// Journal returns what all servers of the lab record in; nil if they were not started.
func (l *Lab) Journal() *endpoint.Journal {
	if s := l.running(); s != nil {
		return s.journal
	}
	return nil
}

// CA returns the certificate authority of all servers of the lab, and nothing else; it is empty if they were not started.
// Certificates hold for the names of the node and of its database and for every address of either.
func (l *Lab) CA() *x509.CertPool {
	if s := l.running(); s != nil {
		return s.authority.Pool()
	}
	return x509.NewCertPool()
}

// CAFile returns the same certificate authority for programs that read it from a file, in PEM; nil if the servers were not
// started.
func (l *Lab) CAFile() []byte {
	if s := l.running(); s != nil {
		return s.authority.PEM()
	}
	return nil
}

// Stray returns the forgotten listeners (SPEC X-02) of a gateway; nil for any other node, or if the servers were not started.
func (l *Lab) Stray(point string) *stray.Listeners {
	if s := l.running(); s != nil {
		return s.stray[point]
	}
	return nil
}

// running returns the services; nil before they were started.
func (l *Lab) running() *services {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.services
}
