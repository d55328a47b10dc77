package impair

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"drawbridge/sim/link"
	"drawbridge/sim/netns"

	"golang.org/x/sys/unix"
)

// End is the end of a link at which a wire is laid.
type End struct {
	Node  *netns.Handle // stays the caller's
	Name  string        // of the interface
	Index int
	MAC   net.HardwareAddr
}

// Loss is a frame that a wire has dropped, from the Ethernet header on.
type Loss struct {
	Frame []byte // valid until the observer returns
	// Out: it was on its way from the hooked end to the other one.
	Out bool
}

// Wire is an impaired link. It is safe for use by several goroutines.
//
//	hooked end's node                                    the wires' namespace
//	stack ── egress filter of the interface ──┐
//	                                          ├─► side, where this process listens ═══ far
//	cable ── ingress filter ──────────────────┘
//
//	this process ── far ═══ side ── its ingress filter ──► the interface, as if it came in there
//	this process ── the interface itself, past its egress filter ──► cable
//
// What leaves by the side is heard as it is sent, so that no queue of the kernel's is between: a processor queues a thousand packets for
// all interfaces of a machine (net.core.netdev_max_backlog), and drops what is more without telling whose it was.
//
// What is put back in has a bit in its source's hardware address that no interface of a lab has, and by which the ingress filter tells it
// from what comes off the cable.
type Wire struct {
	end     End
	side    int // index of the interface beside the hooked one
	number  uint64
	heard   *os.File // at the side: everything that leaves by it
	far     *os.File // in the wires' namespace: puts back what came in
	direct  *os.File // at the hooked interface
	in, out *lane
	readers sync.WaitGroup
	closing atomic.Bool

	mu     sync.Mutex
	now    Impairment
	failed error
	closed bool
	// What there is of it, for Close: a wire that could not be laid may be the second at its end.
	paired, hooked bool
}

// numbers tell the wires of a process apart: their far ends are in one namespace.
var numbers atomic.Uint32

// firstSide is added to an interface's index: beyond those that a lab gives out.
const firstSide = 1 << 20

// Lay lays a wire at an end of a link. yard is a namespace of its own for the far ends of wires; it stays the caller's. number makes the
// decisions of the wire, together with the seed: the same for the same link in every lab. lost is called for every packet that the wire
// drops, before anything else happens on that direction; nil: nobody wants to know. Close takes the wire up again.
func Lay(yard *netns.Handle, end End, number uint64, i Impairment, lost func(Loss)) (_ *Wire, err error) {
	if err := i.Check(); err != nil {
		return nil, err
	}
	w := &Wire{end: end, side: firstSide + end.Index, number: number, now: i}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("lay a wire at %s: %w", end.Name, err), w.Close())
		}
	}()
	if w.in, err = w.lane(false, lost); err != nil {
		return nil, err
	}
	if w.out, err = w.lane(true, lost); err != nil {
		return nil, err
	}
	if err := w.open(yard); err != nil {
		return nil, err
	}
	for _, run := range []func(){w.read, w.in.run, w.out.run} {
		w.readers.Go(run)
	}
	return w, w.hook()
}

// lane makes a direction.
func (w *Wire) lane(out bool, lost func(Loss)) (*lane, error) {
	wake, err := newKernelAlarm()
	if err != nil {
		return nil, err
	}
	l := &lane{wake: wake, now: now, schedule: w.scheduleOf(w.now, out), send: w.sendIn, lost: func(f frame) {
		if lost != nil {
			lost(Loss{Frame: f[vnetHeader:], Out: out})
		}
	}}
	if out {
		l.send = w.sendOut
	}
	return l, nil
}

// scheduleOf numbers the directions of all wires of a lab.
func (w *Wire) scheduleOf(i Impairment, out bool) *schedule {
	number := 2 * w.number
	if out {
		number++
	}
	return newSchedule(i, number)
}

// open makes the pair of interfaces beside the hooked one, and the sockets.
func (w *Wire) open(yard *netns.Handle) (err error) {
	number := int(numbers.Add(1))
	far := link.Device{Namespace: yard.Fd(), Name: fmt.Sprintf("far%d", number), Index: firstSide + number, MAC: farMAC}
	// What comes in by the side must be for the node itself (eth_type_trans), so it has the hooked interface's own address.
	side := link.Device{Namespace: w.end.Node.Fd(), Name: "wire-" + w.end.Name, Index: w.side, MAC: w.end.MAC}
	if err := pair(w.end.Node, side, yard, far); err != nil {
		return err
	}
	w.paired = true
	if w.heard, err = listen(w.end.Node, side.Index); err != nil {
		return err
	}
	if w.far, err = speak(yard, far.Index); err != nil {
		return err
	}
	w.direct, err = speak(w.end.Node, w.end.Index)
	return err
}

// farMAC is of all far ends: nothing is ever addressed to them.
var farMAC = net.HardwareAddr{0x02, 0xdb, 0xfd, 0, 0, 1}

// pair creates two interfaces that are up and have nothing else.
func pair(a *netns.Handle, side link.Device, z *netns.Handle, far link.Device) (err error) {
	ca, err := link.Open(a)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ca.Close()) }()
	cz, err := link.Open(z)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cz.Close()) }()
	var create, there, here, settle link.Batch
	create.Veth(side, far)
	there.Up(far.Index)
	here.Up(side.Index)
	here.Settle(side.Index)
	settle.Settle(far.Index)
	if err := ca.Run(&create); err != nil {
		return err
	}
	return errors.Join(hush(a, side.Name), hush(z, far.Name), cz.Run(&there), ca.Run(&here), cz.Run(&settle))
}

// hush keeps the kernel from speaking IPv6 at an interface of its own accord: multicast reports would pass for packets of the link.
func hush(ns *netns.Handle, iface string) error {
	return ns.Do(func() error {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+iface+"/disable_ipv6", []byte("1"), 0)
		if errors.Is(err, os.ErrNotExist) {
			return nil // a kernel without IPv6
		}
		return err
	})
}

// vnetHeader is the length of struct virtio_net_hdr (linux/virtio_net.h), which the kernel puts before every frame: it says what of a
// packet's checksum is still to be written. Passed on as it is, checksums stay right, and wrong ones wrong.
const vnetHeader = 10

// Offsets in an Ethernet frame, and the bit that marks what is put back in: it says nothing to anybody (IEEE 802 section 8.4 has two others).
const (
	sourceMAC  = vnetHeader + 6
	hardwareTo = vnetHeader
	macLength  = 6
	put        = 0x04
)

// read takes everything that leaves by the side, until it is closed.
func (w *Wire) read() {
	buf := make([]byte, 1<<16+vnetHeader)
	for {
		n, err := w.heard.Read(buf)
		if w.closing.Load() {
			return
		}
		if err != nil {
			w.fail(err)
			return
		}
		if n < sourceMAC+macLength {
			continue
		}
		f := frame(buf[:n])
		if f[sourceMAC]&put != 0 {
			continue // on its way back in by the side
		}
		l := w.in
		if string(f[sourceMAC:sourceMAC+macLength]) == string(w.end.MAC) {
			l = w.out
		}
		if f[hardwareTo]&group != 0 {
			w.fail(l.send(f))
			continue
		}
		l.take(f)
	}
}

// group is the bit of an address that stands for several (IEEE 802 section 8.2). What goes to one is the kernels' own talk (multicast
// listener reports), which comes at random times: it passes as it is, so that the decisions for all other packets are repeatable.
const group = 0x01

// sendIn puts a frame in at the hooked interface.
func (w *Wire) sendIn(f frame) error {
	f[sourceMAC] |= put
	_, err := w.far.Write(f)
	return gone(err)
}

// sendOut sends a frame from the hooked interface.
func (w *Wire) sendOut(f frame) error {
	_, err := w.direct.Write(f)
	return gone(err)
}

// gone forgives that a link was cut: what was under way is lost with it, as on any cable.
func gone(err error) error {
	for _, e := range []error{unix.ENETDOWN, unix.ENXIO, unix.ENODEV, os.ErrClosed} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

func (w *Wire) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed == nil {
		w.failed = err
	}
}

// Change has another impairment hold for all packets from now on. Those under way arrive when they would have.
func (w *Wire) Change(i Impairment) error {
	if err := i.Check(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = i
	w.in.change(w.scheduleOf(i, false))
	w.out.change(w.scheduleOf(i, true))
	return nil
}

// Impairment returns what holds now.
func (w *Wire) Impairment() Impairment {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// Counts returns what became of the packets from the hooked end, and of those towards it.
func (w *Wire) Counts() (out, in Counts) {
	out, _ = w.out.state()
	in, _ = w.in.state()
	return out, in
}

// ErrLost is what Err wraps once a packet got lost that the wire knows nothing of.
var ErrLost = errors.New("the wire lost packets against its will")

// Err returns an error once the wire did not do what it should: nothing is to be concluded from what is missing since.
func (w *Wire) Err() error {
	w.mu.Lock()
	closed := w.closed
	w.mu.Unlock()
	var err error
	for _, l := range []*lane{w.in, w.out} {
		_, failed := l.state()
		err = errors.Join(err, failed)
	}
	if !closed {
		w.fail(drops(w.heard))
	}
	err = errors.Join(err, w.failure())
	if err != nil {
		return fmt.Errorf("wire at %s: %w", w.end.Name, err)
	}
	return nil
}

func (w *Wire) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// drops returns ErrLost if the kernel had no room for packets since it was asked last.
func drops(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var stats *unix.TpacketStats
	var failed error
	if err := raw.Control(func(fd uintptr) {
		stats, failed = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	}); err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	if stats.Drops > 0 {
		return fmt.Errorf("%w: %d of them", ErrLost, stats.Drops)
	}
	return nil
}

// Close has the link be as it was. What is under way arrives at once. Closing twice does nothing.
func (w *Wire) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	w.mu.Unlock()
	var errs []error
	if w.hooked {
		errs = append(errs, w.unhook())
	}
	w.closing.Store(true)
	for _, l := range []*lane{w.in, w.out} {
		if l != nil {
			errs = append(errs, l.wake.close())
			if w.direct != nil {
				l.flush()
			}
		}
	}
	for _, f := range []*os.File{w.heard, w.far, w.direct} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	w.readers.Wait()
	if w.paired {
		errs = append(errs, w.remove())
	}
	return errors.Join(errs...)
}

// listen opens a packet socket that reads whatever comes and goes by an interface.
func listen(ns *netns.Handle, index int) (*os.File, error) {
	f, err := packetSocket(ns, index, everything, [][3]int{{unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer}})
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			// In a user namespace it is refused, and net.core.rmem_max is the limit: some five hundred packets. Err tells if that was too little.
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
		})
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// speak opens a packet socket that sends from an interface, past the queue and the filters of its traffic control, and reads nothing.
func speak(ns *netns.Handle, index int) (*os.File, error) { return packetSocket(ns, index, 0, nil) }

// receiveBuffer is room for what comes while this process waits for a processor: at 2 KiB for a packet, some eight thousand.
const receiveBuffer = 16 << 20

// everything is ETH_P_ALL in network order, as packet(7) wants it.
var everything = binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))

func packetSocket(ns *netns.Handle, index int, protocol uint16, options [][3]int) (*os.File, error) {
	fd, err := ns.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0) // no protocol: it hears nothing before it is bound
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "wire")
	for _, o := range append(options, [3]int{unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1}, [3]int{unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1}) {
		if err == nil {
			err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, o[0], o[1], o[2]))
		}
	}
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: index}))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
