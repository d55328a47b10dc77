package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"

	"drawbridge/sim/netns"
	"drawbridge/topology/flow"

	"golang.org/x/sys/unix"
)

// arm opens the listener at the gateway and prepares the sending for the packet's protocol.
func (s *shot) arm(ctx context.Context, from, at *netns.Handle) error {
	remote := netip.AddrPortFrom(s.spec.To, s.spec.Port)
	switch s.spec.Proto {
	case flow.TCP:
		return s.armTCP(ctx, from, at, remote)
	case flow.UDP:
		return s.armUDP(ctx, from, at, remote)
	case flow.SCTP:
		return s.armSCTP(from, at, remote)
	case flow.ICMP, flow.ICMPv6:
		return s.armEcho(from)
	}
	return fmt.Errorf("%w: no probe speaks %s", ErrSpec, s.spec.Proto)
}

func (s *shot) armTCP(ctx context.Context, from, at *netns.Handle, remote netip.AddrPort) error {
	l, err := at.Listen(ctx, remote)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, func() { _ = l.Close() })
	s.receive(func() (netip.AddrPort, error) {
		conn, err := l.Accept()
		if err != nil {
			return netip.AddrPort{}, err
		}
		defer conn.Close()
		return conn.RemoteAddr().(*net.TCPAddr).AddrPort(), nil
	})
	dialCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.closers = append(s.closers, stop)
	s.send = func(context.Context) error {
		go func() {
			// Whether it was delivered is the listener's word; the client only keeps trying until the probe is over.
			if conn, err := from.Dial(dialCtx, s.local, remote); err == nil {
				_ = conn.Close()
			}
		}()
		return nil
	}
	return nil
}

func (s *shot) armUDP(ctx context.Context, from, at *netns.Handle, remote netip.AddrPort) error {
	l, err := at.ListenPacket(ctx, remote)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, func() { _ = l.Close() })
	s.receive(func() (netip.AddrPort, error) {
		_, source, err := l.ReadFromUDPAddrPort(make([]byte, 64))
		return source, err
	})
	s.send = func(ctx context.Context) error {
		conn, err := from.ListenPacket(ctx, s.local)
		if err != nil {
			return err
		}
		_, err = conn.WriteToUDPAddrPort([]byte(markerText), remote)
		return errors.Join(err, conn.Close())
	}
	return nil
}

// armSCTP speaks raw IP on both ends: the kernel may have no SCTP of its own.
func (s *shot) armSCTP(from, at *netns.Handle, remote netip.AddrPort) error {
	l, err := rawConn(at, s.spec.To, int(flow.SCTP))
	if err != nil {
		return err
	}
	s.closers = append(s.closers, func() { _ = l.Close() })
	s.receive(func() (netip.AddrPort, error) {
		buf := make([]byte, 128)
		n, source, err := l.ReadFromIP(buf)
		if err != nil || n < 2 {
			return netip.AddrPort{}, err
		}
		addr, _ := netip.AddrFromSlice(source.IP)
		return netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(buf)), nil
	})
	s.send = func(context.Context) error {
		return sendRaw(from, s.local.Addr(), s.spec.To, int(flow.SCTP), sctpInit(s.local.Port(), remote.Port()))
	}
	return nil
}

// armEcho has no listener: the gateway's kernel answers, and the tap sees it.
func (s *shot) armEcho(from *netns.Handle) error {
	s.received = make(chan struct{})
	s.send = func(context.Context) error {
		return sendRaw(from, s.local.Addr(), s.spec.To, int(s.spec.Proto), echoRequest(s.spec.Proto, s.local.Port()))
	}
	return nil
}

// receive runs next until it reports this probe's own source, or fails because the listener was closed.
func (s *shot) receive(next func() (netip.AddrPort, error)) {
	received := make(chan struct{})
	s.received = received
	go func() {
		for {
			source, err := next()
			if err != nil {
				return
			}
			if netip.AddrPortFrom(source.Addr().Unmap(), source.Port()) == s.local {
				close(received)
				return
			}
		}
	}()
}

// rawConn opens a raw IP socket bound to an address of the namespace.
func rawConn(h *netns.Handle, addr netip.Addr, proto int) (*net.IPConn, error) {
	domain, sa := rawAddress(addr)
	fd, err := h.Socket(domain, unix.SOCK_RAW, proto)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "raw")
	defer file.Close() // net.FilePacketConn works on a duplicate
	if err := unix.Bind(fd, sa); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	conn, err := net.FilePacketConn(file)
	if err != nil {
		return nil, err
	}
	return conn.(*net.IPConn), nil
}

func rawAddress(addr netip.Addr) (domain int, sa unix.Sockaddr) {
	if addr.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Addr: addr.As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Addr: addr.As16()}
}

func sendRaw(h *netns.Handle, from, to netip.Addr, proto int, payload []byte) error {
	conn, err := rawConn(h, from, proto)
	if err != nil {
		return err
	}
	_, err = conn.WriteToIP(payload, &net.IPAddr{IP: to.AsSlice()})
	return errors.Join(err, conn.Close())
}

// echoRequest builds an ICMP (RFC 792) or ICMPv6 (RFC 4443 section 4.1) echo request; the kernel computes the checksum of
// the latter.
func echoRequest(proto flow.Protocol, id uint16) []byte {
	b := make([]byte, 8)
	b[0] = 8
	if proto == flow.ICMPv6 {
		b[0] = 128
	}
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], 1)
	if proto == flow.ICMP {
		binary.BigEndian.PutUint16(b[2:], internetChecksum(b))
	}
	return b
}

// internetChecksum is RFC 1071's, for an even number of bytes.
func internetChecksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// sctpInit builds an SCTP packet with one INIT chunk (RFC 9260 sections 3.1 and 3.3.2).
func sctpInit(src, dst uint16) []byte {
	const header, chunk = 12, 20
	b := make([]byte, header+chunk)
	binary.BigEndian.PutUint16(b[0:], src)
	binary.BigEndian.PutUint16(b[2:], dst)
	b[header] = 1 // INIT
	binary.BigEndian.PutUint16(b[header+2:], chunk)
	binary.BigEndian.PutUint32(b[header+4:], 1)     // initiate tag
	binary.BigEndian.PutUint32(b[header+8:], 1<<16) // advertised receiver window
	binary.BigEndian.PutUint16(b[header+12:], 1)    // outbound streams
	binary.BigEndian.PutUint16(b[header+14:], 1)    // inbound streams
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}
