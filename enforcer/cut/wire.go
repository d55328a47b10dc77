package cut

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// wire sends crafted segments past netfilter and hears what comes back. It lives as long as one cut.
type wire struct {
	fd     int
	routes *netlink.Handle
	hops   map[netip.Addr]hop
	buffer [snapLen]byte
}

const (
	// snapLen is how much of a packet is looked at: the longest IPv4 header and the TCP header.
	snapLen = 60 + tcpHeaderLen
	// wireBuffer holds the answers of some thousand connections that are cut at once.
	wireBuffer = 4 << 20
)

// hop is where packets to an address leave.
type hop struct {
	address unix.SockaddrLinklayer
}

// openWire opens the packet socket in the namespace of the calling thread. It is bound only after its filter is set, so
// that it never holds anything else than what is asked for.
func openWire() (*wire, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	w := &wire{fd: fd, hops: map[netip.Addr]hop{}}
	if err := w.listen(); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	if w.routes, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, errors.Join(fmt.Errorf("open a routing socket: %w", err), unix.Close(fd))
	}
	return w, nil
}

func (w *wire) close() error {
	w.routes.Close()
	return unix.Close(w.fd)
}

func (w *wire) listen() error {
	filter, err := bpf.Assemble(acknowledgements())
	if err != nil {
		return fmt.Errorf("assemble the packet filter: %w", err)
	}
	program := make([]unix.SockFilter, 0, len(filter))
	for _, i := range filter {
		program = append(program, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	if err := unix.SetsockoptSockFprog(w.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}); err != nil {
		return fmt.Errorf("filter the packet socket: %w", err)
	}
	// Without CAP_NET_ADMIN outside, the kernel grants net.core.rmem_max.
	if err := unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, wireBuffer); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("size the packet socket's buffer: %w", err)
	}
	if err := unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL)}); err != nil {
		return fmt.Errorf("bind the packet socket: %w", err)
	}
	return nil
}

func networkOrder(v uint16) uint16 { return v<<8 | v>>8 }

// acknowledgements is a filter for incoming TCP segments, not fragments, that acknowledge something and neither open nor
// abort a connection. Offsets are from the IP header; IPv6 extension headers are passed over, like in unmarshalSegment.
func acknowledgements() []bpf.Instruction {
	const drop, take = 255, 254
	p := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: drop},
		bpf.LoadExtension{Num: bpf.ExtProto},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipFalse: 6},
		bpf.LoadAbsolute{Off: ipv4ProtocolAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: drop},
		bpf.LoadAbsolute{Off: ipv4FragmentAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: fragmentMask, SkipTrue: drop},
		bpf.LoadMemShift{Off: 0},
		bpf.Jump{Skip: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: drop},
		bpf.LoadAbsolute{Off: ipv6NextAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: drop},
		bpf.LoadConstant{Dst: bpf.RegX, Val: ipv6HeaderLen},
		bpf.LoadIndirect{Off: tcpFlagsAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: flagSYN | flagRST, SkipTrue: drop},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: flagACK, SkipTrue: take, SkipFalse: drop},
		bpf.RetConstant{Val: snapLen},
		bpf.RetConstant{Val: 0},
	}
	return resolve(p, len(p)-2, len(p)-1)
}

// resolve turns the marks 254 and 255 in jumps into distances to the instructions take and drop.
func resolve(p []bpf.Instruction, take, drop int) []bpf.Instruction {
	distance := func(from int, skip uint8) uint8 {
		switch skip {
		case 254:
			return uint8(take - from - 1)
		case 255:
			return uint8(drop - from - 1)
		}
		return skip
	}
	for i, instruction := range p {
		if j, ok := instruction.(bpf.JumpIf); ok {
			j.SkipTrue, j.SkipFalse = distance(i, j.SkipTrue), distance(i, j.SkipFalse)
			p[i] = j
		}
	}
	return p
}

var (
	// errUnreachable: there is no route, or nobody knows the link-layer address of the next hop.
	errUnreachable = errors.New("unreachable")
	// errHere: the address is this host's own. What has no socket here has no open half either.
	errHere = errors.New("address of this host")
)

// hopTo finds where packets to an address leave. It does not resolve unknown neighbours: over an established connection,
// packets went there lately.
func (w *wire) hopTo(to netip.Addr) (hop, error) {
	if h, ok := w.hops[to]; ok {
		return h, nil
	}
	routes, err := w.routes.RouteGet(to.AsSlice())
	if err != nil || len(routes) == 0 {
		return hop{}, fmt.Errorf("route to %v: %w: %w", to, errUnreachable, err)
	}
	if routes[0].Type == unix.RTN_LOCAL {
		return hop{}, fmt.Errorf("route to %v: %w", to, errHere)
	}
	next := net.IP(to.AsSlice())
	if routes[0].Gw != nil {
		next = routes[0].Gw
	} else if via, ok := routes[0].Via.(*netlink.Via); ok {
		next = via.Addr
	}
	h, err := w.linkTo(routes[0].LinkIndex, next)
	if err != nil {
		return hop{}, fmt.Errorf("route to %v: %w", to, err)
	}
	h.address.Protocol = networkOrder(unix.ETH_P_IPV6)
	if to.Is4() {
		h.address.Protocol = networkOrder(unix.ETH_P_IP)
	}
	w.hops[to] = h
	return h, nil
}

// linkTo finds the link-layer address of a neighbour. Links without such addresses need none.
func (w *wire) linkTo(index int, next net.IP) (hop, error) {
	h := hop{unix.SockaddrLinklayer{Ifindex: index}}
	link, err := w.routes.LinkByIndex(index)
	if err != nil {
		return hop{}, fmt.Errorf("interface %d: %w", index, err)
	}
	if len(link.Attrs().HardwareAddr) == 0 {
		return h, nil
	}
	neighbours, err := w.routes.NeighList(index, 0)
	if err != nil {
		return hop{}, fmt.Errorf("neighbours of interface %d: %w", index, err)
	}
	for _, n := range neighbours {
		if n.IP.Equal(next) && len(n.HardwareAddr) > 0 && len(n.HardwareAddr) <= len(h.address.Addr) {
			h.address.Halen = uint8(copy(h.address.Addr[:], n.HardwareAddr))
			return h, nil
		}
	}
	return hop{}, fmt.Errorf("neighbour %v: %w", next, errUnreachable)
}

// send sends a segment towards its destination.
func (w *wire) send(s segment) error {
	h, err := w.hopTo(s.dst.Addr())
	if err != nil {
		return err
	}
	if err := unix.Sendto(w.fd, s.marshal(), 0, &h.address); err != nil {
		if errors.Is(err, unix.ENOBUFS) { // a queue on the way is full, as in a flood (packet(7))
			err = errCongested
		}
		return fmt.Errorf("send to %v: %w", s.dst, err)
	}
	return nil
}

// receive waits for the next segment until the deadline; ok is false when that has come.
func (w *wire) receive(deadline time.Time) (s segment, ok bool, err error) {
	for {
		n, _, err := unix.Recvfrom(w.fd, w.buffer[:], 0)
		if err == nil {
			if s, ok := unmarshalSegment(w.buffer[:n]); ok {
				return s, true, nil
			}
			continue
		}
		if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) {
			continue // ENETDOWN: some interface went down, others go on
		}
		if !errors.Is(err, unix.EAGAIN) {
			return s, false, os.NewSyscallError("recvfrom", err)
		}
		left := time.Until(deadline)
		if left <= 0 {
			return s, false, nil
		}
		timeout := unix.NsecToTimespec(left.Nanoseconds())
		if _, err := unix.Ppoll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, &timeout, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return s, false, os.NewSyscallError("ppoll", err)
		}
	}
}
