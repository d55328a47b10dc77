package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"drawbridge/sim/netns"
)

// sayLimit is how long a conversation of a stream may take: it is denied then. An enforcer that drops says nothing.
const sayLimit = time.Second

// sayWays is how often a conversation goes from one end to the other.
const sayWays = 6

// startup is PostgreSQL's StartupMessage (PostgreSQL documentation, section 54.7): a client without TLS begins with it.
var startup = func() []byte {
	const text = "user\x00drawbridge\x00database\x00drawbridge\x00\x00"
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(text)))
	b = binary.BigEndian.AppendUint32(b, 3<<16)
	return append(b, text...)
}()

// authentication begins the server's answer to a StartupMessage that it takes.
const authentication = 'R'

// converse makes the connections of one spec, one after the other, until the stream ends.
func (s *Stream) converse(i int) {
	for s.ctx.Err() == nil {
		if end := s.stop.Load(); end != 0 && s.rounds.Load() >= end {
			return
		}
		shot, err := s.say(i)
		if err != nil {
			s.fail(err)
			return
		}
		if shot != nil {
			s.mu.Lock()
			s.shots = append(s.shots, shot)
			s.mu.Unlock()
		}
	}
}

// say makes one connection. The shot is nil if the stream ended in the middle of it.
func (s *Stream) say(i int) (*Shot, error) {
	ctx, cancel := context.WithTimeout(s.ctx, sayLimit+sayWays*s.p.lab.Delay())
	defer cancel()
	t, d, err := s.p.prepare(s.specs[i].Spec)
	if err != nil {
		return nil, err
	}
	defer s.p.done(t)
	if s.p.lab.Lossy() {
		s.p.reg.add(t)
	}
	shot := &Shot{Spec: i, Began: time.Now()}
	conn, err := d.dial(ctx)
	if err == nil {
		if s.specs[i].Mode == TLS {
			_, err = open(ctx, conn)
		} else {
			err = saysPlaintext(ctx, conn)
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // thousands of connections: no end of them may wait
		}
		_ = conn.Close() // it may have been reset
	}
	shot.Ended, shot.Served = time.Now(), err == nil
	shot.Passed = shot.Served || s.p.lab.Journal().Received(t.port) > 0
	e, _ := t.snapshot()
	shot.Lost = e.Lost > 0
	if s.ctx.Err() != nil {
		return nil, nil
	}
	return shot, nil
}

func saysPlaintext(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(startup); err != nil {
		return err
	}
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		return err
	}
	if first[0] != authentication {
		return fmt.Errorf("answered with byte %d", first[0])
	}
	return nil
}

// synSender sends SYNs from one address of a namespace. What answers them is reset by the namespace's own kernel.
type synSender struct {
	fd     int
	source netip.Addr
	buf    gopacket.SerializeBuffer
}

func newSYNSender(ns *netns.Handle, source netip.Addr) (*synSender, error) {
	fd, err := ns.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("send SYNs from %s: %w", source, err)
	}
	return &synSender{fd: fd, source: source, buf: gopacket.NewSerializeBuffer()}, nil
}

func (s *synSender) send(port uint16, seq uint32, to netip.AddrPort) error {
	return s.write(s.source, &layers.TCP{SrcPort: layers.TCPPort(port), Seq: seq, SYN: true}, to)
}

// write sends one segment with its payload; the source need not be the namespace's own. The destination's port and the window are set here.
func (s *synSender) write(from netip.Addr, tcp *layers.TCP, to netip.AddrPort) error {
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: from.AsSlice(), DstIP: to.Addr().AsSlice()}
	tcp.DstPort, tcp.Window = layers.TCPPort(to.Port()), 65535
	err := errors.Join(tcp.SetNetworkLayerForChecksum(ip),
		gopacket.SerializeLayers(s.buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, tcp, gopacket.Payload(tcp.Payload)))
	if err != nil {
		return err
	}
	if err := unix.Sendto(s.fd, s.buf.Bytes(), 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}); err != nil {
		return fmt.Errorf("send from %s: %w", from, err)
	}
	return nil
}

func (s *synSender) close() error { return unix.Close(s.fd) }
