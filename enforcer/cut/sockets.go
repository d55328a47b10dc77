package cut

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/nlsocket"
)

// sock_diag (linux/sock_diag.h, linux/inet_diag.h).
const (
	sockDiagByFamily = 20 // SOCK_DIAG_BY_FAMILY
	sockDestroy      = 21 // SOCK_DESTROY

	diagRequestLen = 56 // struct inet_diag_req_v2
	diagMessageLen = 72 // struct inet_diag_msg
	diagIDLen      = 48 // struct inet_diag_sockid
	diagIDOffset   = 4  // in a message
	requestIDAt    = 8  // in a request
)

// tcpStates is the set of states in which a socket carries a connection (net/tcp_states.h): all but TIME_WAIT (6),
// CLOSE (7), LISTEN (10) and NEW_SYN_RECV (12), which is a connection that the client has not completed.
const tcpStates = 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11

// socket is a TCP socket of this host with a peer.
type socket struct {
	family        uint8
	local, remote netip.AddrPort
	id            [diagIDLen]byte // struct inet_diag_sockid, with the cookie of this very socket
}

// dumpSockets lists the connected TCP sockets of both families.
func dumpSockets(ctx context.Context, c *nlsocket.Socket) ([]socket, error) {
	var out []socket
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		replies, err := c.Ask(ctx, diagMessage(sockDiagByFamily, netlink.Dump, family, tcpStates, [diagIDLen]byte{}))
		if err != nil {
			return nil, fmt.Errorf("list sockets: %w", err)
		}
		for _, r := range replies {
			s, err := unmarshalSocket(r.Data)
			if err != nil {
				return nil, fmt.Errorf("list sockets: %w", err)
			}
			out = append(out, s)
		}
	}
	return out, nil
}

func diagMessage(msg uint16, flags netlink.HeaderFlags, family uint8, states uint32, id [diagIDLen]byte) netlink.Message {
	b := make([]byte, diagRequestLen)
	b[0], b[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], states)
	copy(b[requestIDAt:], id[:])
	return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(msg), Flags: netlink.Request | flags}, Data: b}
}

func unmarshalSocket(b []byte) (socket, error) {
	if len(b) < diagMessageLen {
		return socket{}, errShort
	}
	s := socket{family: b[0]}
	copy(s.id[:], b[diagIDOffset:])
	s.local = netip.AddrPortFrom(diagAddr(s.family, s.id[4:20]), binary.BigEndian.Uint16(s.id[0:]))
	s.remote = netip.AddrPortFrom(diagAddr(s.family, s.id[20:36]), binary.BigEndian.Uint16(s.id[2:]))
	return s, nil
}

// diagAddr reads an address; IPv4 in a socket of the other family is IPv4.
func diagAddr(family uint8, b []byte) netip.Addr {
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.AddrFrom16([16]byte(b)).Unmap()
}

// ErrNoSocketDestroy: the kernel was built without CONFIG_INET_DIAG_DESTROY.
var ErrNoSocketDestroy = errors.New("this kernel cannot destroy sockets (CONFIG_INET_DIAG_DESTROY is off)")

// destroySocket ends a socket; its peer is told by a RST. It is no error if the socket is gone already.
func destroySocket(ctx context.Context, c *nlsocket.Socket, s socket) error {
	_, err := c.Ask(ctx, diagMessage(sockDestroy, netlink.Acknowledge, s.family, 0, s.id))
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EOPNOTSUPP):
		return ErrNoSocketDestroy
	}
	return fmt.Errorf("destroy the socket of %v: %w", s.remote, err)
}
