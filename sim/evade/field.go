// Package evade attacks Force TLS (SPEC X-08): a TCP client made by hand, packet by packet, tries to get plaintext to a
// database's server past whatever is in force in between.
//
// An attempt plays its packets and reports what became of them: what the server's application read, what was seen on the
// wire behind the enforcement point, and what the client was told. It never learns what is expected of it: with nothing in
// force the same attempt has to get its bytes through, or it tries nothing.
package evade

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"drawbridge/sim"
	"drawbridge/sim/capture"
	"drawbridge/sim/netns"
	"drawbridge/topology"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// patience bounds every wait for an event that should come.
const patience = 3 * time.Second

// answerPatience bounds the wait for what a server may have to say, once it is known to have been asked: it may be held
// back. A TLS server's first words take a few milliseconds of a processor.
const answerPatience = 500 * time.Millisecond

// parallel is how many attempts run at once: enough to hide their waits, few enough that two processors keep up.
const parallel = 24

// ErrField says that an attempt cannot be made as asked: a vantage or an endpoint that the lab does not have.
var ErrField = errors.New("no such attempt")

// Recorder is the server's side of the evidence: an embedded server's journal, or a real server's log. It is safe for
// concurrent use.
type Recorder interface {
	// Read returns what the server's application read in each connection from a source port, in the order in which they
	// were accepted: the beginning of each, as much as is kept.
	Read(port uint16) [][]byte
	// Received counts the bytes that the application read in all connections from a source port.
	Received(port uint16) uint64
	// Wait asks done whenever the application has read more from a source port, and returns once it says so, or with the
	// context's error.
	Wait(ctx context.Context, port uint16, done func() bool) error
	// Forget drops what is known of a source port, which is about to be used again.
	Forget(port uint16)
}

// Field is where attempts are played: from one vantage of a lab, against any of its endpoints. It is safe for concurrent use.
type Field struct {
	lab      *sim.Lab
	from     topology.Vantage
	ns       *netns.Handle
	recorder Recorder
	radio    radio
	canary   map[canaryKey]netip.AddrPort

	mu    sync.Mutex
	taps  map[string]*capture.Tap // by node: the vantage and the enforcement points
	ports []uint16                // of its clients, which are looked up by them until Close
}

type canaryKey struct {
	point string
	is4   bool
}

// identification of datagrams is handed out once for all fields of the process, since a lab has many fields: half a datagram of one
// attempt waits at its destination for 30 s, and would swallow a fragment of the same number.
var identification atomic.Uint32

// Open prepares attempts from a vantage whose addresses are its own alone: an Internet host. Close releases what it holds.
func Open(lab *sim.Lab, from string, recorder Recorder) (*Field, error) {
	f := &Field{lab: lab, recorder: recorder, taps: map[string]*capture.Tap{}, canary: map[canaryKey]netip.AddrPort{}}
	for _, v := range lab.World().Vantages() {
		if v.Name == from {
			f.from = v
		}
	}
	var ok bool
	if f.ns, ok = lab.Node(f.from.Namespace); !ok || f.from.Name == "" {
		return nil, fmt.Errorf("%w: the world has no vantage %q", ErrField, from)
	}
	for _, e := range lab.World().Endpoints() {
		if d, _ := lab.World().Database(e.Database); d.Canary {
			f.canary[canaryKey{e.Point, e.Addr.Addr().Is4()}] = e.Addr
		}
	}
	var err error
	if f.radio, err = openRadio(f.ns); err != nil {
		return nil, fmt.Errorf("attempts from %s: %w", from, err)
	}
	if _, err := f.tap(f.from.Namespace); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close releases everything, the attempts' ports included: what the recorder knows has to be read before. Its error says if a capture lost packets, which makes what was concluded from it worthless.
func (f *Field) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	errs := []error{f.radio.close()}
	for _, t := range f.taps {
		errs = append(errs, t.Close())
	}
	f.taps = map[string]*capture.Tap{}
	f.lab.Ports().Evasions.Give(f.ports...)
	f.ports = nil
	return errors.Join(errs...)
}

// Err returns an error once a capture lost packets.
func (f *Field) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, t := range f.taps {
		errs = append(errs, t.Err())
	}
	return errors.Join(errs...)
}

func (f *Field) tap(node string) (*capture.Tap, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t, ok := f.taps[node]; ok {
		return t, nil
	}
	t, err := f.lab.Tap(node)
	if err == nil {
		f.taps[node] = t
	}
	return t, err
}

// port is a port for a client, which nobody else gets before Close.
func (f *Field) port() (uint16, error) {
	port, err := f.lab.Ports().Evasions.Take()
	if err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ports = append(f.ports, port)
	f.recorder.Forget(port)
	return port, nil
}

// address is the vantage's own address of the family of to.
func (f *Field) address(to netip.Addr) (netip.Addr, error) {
	for _, a := range f.from.Addresses {
		if a.Is4() == to.Is4() {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%w: %s has no address of the family of %s", ErrField, f.from.Name, to)
}

// radio sends frames out of a node's only link.
type radio struct {
	file  *os.File
	index int
	head  []byte // Ethernet addresses
}

// uplink is the name of the only link of a host.
const uplink = "eth0"

// Uplink returns the index and the hardware address of a host's only link, and the address at its other end.
func Uplink(ns *netns.Handle) (index int, own, peer net.HardwareAddr, err error) {
	err = ns.Do(func() error {
		l, err := netlink.LinkByName(uplink)
		if err != nil {
			return fmt.Errorf("link %s: %w", uplink, err)
		}
		neighbours, err := netlink.NeighList(l.Attrs().Index, unix.AF_INET)
		if err != nil || len(neighbours) == 0 {
			return fmt.Errorf("link %s: nobody is known at its other end (%w)", uplink, err)
		}
		index, own, peer = l.Attrs().Index, l.Attrs().HardwareAddr, neighbours[0].HardwareAddr
		return nil
	})
	return index, own, peer, err
}

func openRadio(ns *netns.Handle) (radio, error) {
	index, own, peer, err := Uplink(ns)
	if err != nil {
		return radio{}, err
	}
	r := radio{index: index, head: append(append([]byte(nil), peer...), own...)}
	fd, err := ns.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0) // protocol 0: it receives nothing
	if err != nil {
		return r, err
	}
	r.file = os.NewFile(uintptr(fd), "packet")
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: r.index}); err != nil {
		return r, errors.Join(os.NewSyscallError("bind", err), r.close())
	}
	return r, nil
}

// send puts one IP datagram on the wire.
func (r radio) send(datagram []byte) error {
	kind := uint16(unix.ETH_P_IP)
	if datagram[0]>>4 == 6 {
		kind = unix.ETH_P_IPV6
	}
	_, err := r.file.Write(append(binary.BigEndian.AppendUint16(r.head[:ethernetTypes:ethernetTypes], kind), datagram...))
	return err
}

func (r radio) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// Silence keeps the node's own kernel from answering for a port: a socket listens there, and its filter lets nothing in.
// It holds for that address and port alone, and is gone with the socket.
func Silence(ns *netns.Handle, at netip.AddrPort) (*os.File, error) {
	domain := unix.AF_INET6
	var address unix.Sockaddr = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	if at.Addr().Is4() {
		domain, address = unix.AF_INET, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	fd, err := ns.Socket(domain, unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		return nil, err
	}
	nothing, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err == nil {
		filter := []unix.SockFilter{{Code: nothing[0].Op, K: nothing[0].K}}
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &filter[0]})
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, address)
	}
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("silence port %d: %w", at.Port(), err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "silence"), nil
}

// resolve says which capture shows a client's packets at the enforcement point, and by which interfaces they leave it
// towards the database.
func (f *Field) resolve(to topology.Endpoint) (*capture.Tap, map[string]bool, error) {
	for _, p := range f.lab.World().Points() {
		if p.Name != to.Point {
			continue
		}
		inside := map[string]bool{}
		for _, i := range p.Interfaces {
			if i.Zone == topology.ZoneCluster {
				inside[i.Name] = true
			}
		}
		t, err := f.tap(p.Name)
		return t, inside, err
	}
	return nil, nil, fmt.Errorf("%w: %s is at no enforcement point of this world", ErrField, to.Database)
}
