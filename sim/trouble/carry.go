package trouble

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"drawbridge/sim/netns"
	"drawbridge/topology/flow"

	"golang.org/x/sys/unix"
)

// conversation counts a connection's packets in each direction and keeps the one that is to be overtaken.
type conversation struct {
	c Case

	mu    sync.Mutex
	seen  [Down + 1]int
	queue [Down + 1][]func() // what is under way
	done  bool               // the accident happened
	late  func()             // sends the packet that was held back; nil: none is
	over  bool
}

func (f *conversation) happened() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done
}

func (f *conversation) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
}

// pass takes one packet and sends it on as the case wants it.
func (f *conversation) pass(way Way, send func()) {
	now := send
	send = func() { f.later(way, f.c.Delay+distance, now) }
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen[way]++
	overtaken := f.late
	if way != f.c.Way || f.seen[way] != f.c.Packet || f.c.Accident == 0 {
		send()
		if overtaken != nil && way == f.c.Way {
			f.late = nil
			overtaken()
		}
		return
	}
	f.done = true
	switch f.c.Accident {
	case Repeated:
		send()
		send()
	case Swapped:
		f.late = send
		time.AfterFunc(lateBy, f.release)
	}
}

// later delivers after a while, in the order in which it was called.
func (f *conversation) later(way Way, after time.Duration, deliver func()) {
	f.queue[way] = append(f.queue[way], deliver)
	time.AfterFunc(after, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.queue[way]) > 0 {
			f.queue[way][0]()
			f.queue[way] = f.queue[way][1:]
		}
	})
}

// release sends what was held back if nothing overtook it.
func (f *conversation) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.late != nil && !f.over {
		f.late()
	}
	f.late = nil
}

func (w *Wire) of(port uint16) *conversation {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flows[port]
}

// frameSize is longer than any frame of the lab.
const frameSize = 4096

const ethernetHeader, ethernetType = 14, 12

// carry takes packets off one end of the wire until it is closed.
func (w *Wire) carry(from *os.File, way Way) {
	to, head := w.far, w.farTo
	if way == Down {
		to, head = w.near, w.nearTo
	}
	buf := make([]byte, frameSize)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		src, dst, ok := ends(buf[:n])
		if !ok {
			continue
		}
		mine := src
		if way == Down {
			mine = dst
		}
		f := w.of(mine.Port())
		if f == nil {
			continue
		}
		frame := append(append([]byte(nil), head...), buf[ethernetType:n]...)
		checksum(frame[ethernetHeader:])
		f.pass(way, func() { _, _ = to.Write(frame) }) // a wire that is closed carries nothing
	}
}

// ends reads addresses and ports of a TCP segment in an Ethernet frame.
func ends(frame []byte) (src, dst netip.AddrPort, ok bool) {
	if len(frame) < ethernetHeader+20 {
		return src, dst, false
	}
	at, tcp := transport(frame[ethernetHeader:])
	if !tcp || len(at) < 20 {
		return src, dst, false
	}
	return netip.AddrPortFrom(netip.Addr{}, binary.BigEndian.Uint16(at)), netip.AddrPortFrom(netip.Addr{}, binary.BigEndian.Uint16(at[2:])), true
}

// transport returns the TCP segment of a datagram without extension headers: the lab's kernels write none.
func transport(ip []byte) ([]byte, bool) {
	switch {
	case ip[0]>>4 == 4 && ip[9] == byte(flow.TCP):
		total := int(binary.BigEndian.Uint16(ip[2:]))
		if head := int(ip[0]&15) * 4; head <= total && total <= len(ip) {
			return ip[head:total], true
		}
	case ip[0]>>4 == 6 && len(ip) >= 40 && ip[6] == byte(flow.TCP):
		if total := 40 + int(binary.BigEndian.Uint16(ip[4:])); total <= len(ip) {
			return ip[40:total], true
		}
	}
	return nil, false
}

// checksum writes the TCP checksum: on virtual links kernels leave that to hardware, which is not there.
func checksum(ip []byte) {
	tcp, ok := transport(ip)
	if !ok {
		return
	}
	pseudo := ip[8:40]
	if ip[0]>>4 == 4 {
		pseudo = ip[12:20]
	}
	sum := uint32(flow.TCP) + uint32(len(tcp))
	binary.BigEndian.PutUint16(tcp[16:], 0)
	for _, part := range [][]byte{pseudo, tcp} {
		for i := 0; i < len(part); i += 2 {
			word := uint32(part[i]) << 8
			if i+1 < len(part) {
				word |= uint32(part[i+1])
			}
			sum += word
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
}

// listenTo opens a packet socket on one interface, which sees what arrives there and not what is sent.
func listenTo(ns *netns.Handle, index int) (*os.File, error) {
	fd, err := ns.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "wire")
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: index})
	}
	if err != nil {
		_ = f.Close()
		return nil, os.NewSyscallError("packet socket", err)
	}
	return f, nil
}

// everything is ETH_P_ALL in network order, as packet(7) wants it.
var everything = binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))

func maxSegment(size int) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, size) })
		if err != nil {
			return err
		}
		return failed
	}
}

// hesitant is a connection whose client waits before its first byte, or writes in small pieces.
type hesitant struct {
	net.Conn
	ctx   context.Context
	piece int
	idle  time.Duration
	spoke bool
}

// Write implements net.Conn. TCP_NODELAY, which Go sets, makes every piece a segment.
func (h *hesitant) Write(b []byte) (int, error) {
	if h.idle > 0 && !h.spoke {
		wait := time.NewTimer(h.idle)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-h.ctx.Done():
			return 0, context.Cause(h.ctx)
		}
	}
	// A hello only: what comes after is TLS, whatever its size.
	hello := len(b) > 5 && b[0] == 0x16 && b[5] == 1
	h.spoke = true
	if h.piece == 0 || !hello {
		return h.Conn.Write(b)
	}
	written := 0
	for written < len(b) {
		n, err := h.Conn.Write(b[written:min(written+h.piece, len(b))])
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}
