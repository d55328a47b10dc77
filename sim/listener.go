package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// listenerQuery asks for the listening TCP sockets of one family (struct inet_diag_req_v2, include/uapi/linux/inet_diag.h; sock_diag(7)).
// /proc/net/tcp has them too, but walks the whole machine's table of connections for each namespace.
type listenerQuery struct{ family uint8 }

// Layout of inet_diag_req_v2, and of inet_diag_msg, which begins with the family, the state, two bytes of timers, the source's port, the
// destination's port and the source's address.
const (
	diagQueryLen  = 56
	diagAnswerLen = 72
	diagPort      = 4
	diagSource    = 8
	// tcpListen is TCP_LISTEN (include/net/tcp_states.h).
	tcpListen = 10
)

// Len is the query's length in bytes.
func (q listenerQuery) Len() int { return diagQueryLen }

// Serialize writes it in the machine's byte order.
func (q listenerQuery) Serialize() []byte {
	b := make([]byte, diagQueryLen)
	b[0], b[1] = q.family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], 1<<tcpListen)
	return b
}

// listeners lists where TCP sockets of a family listen in the calling thread's namespace; none where the kernel has no IPv6.
func listeners(family uint8) ([]netip.AddrPort, error) {
	request := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	request.AddData(listenerQuery{family})
	answers, err := request.Execute(unix.NETLINK_INET_DIAG, 0)
	if errors.Is(err, unix.ENOENT) && family == unix.AF_INET6 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list listening sockets: %w", err)
	}
	var all []netip.AddrPort
	for _, a := range answers {
		at, err := parseListener(a)
		if err != nil {
			return nil, fmt.Errorf("list listening sockets: %w", err)
		}
		all = append(all, at)
	}
	return all, nil
}

// Listens reports whether a TCP socket of a node would be asked about a connection to an address: one that listens there, or at every address.
func (l *Lab) Listens(node string, at netip.AddrPort) (listens bool, err error) {
	h, ok := l.nodes[node]
	if !ok {
		return false, fmt.Errorf("who listens at %s of %s: %w", at, node, ErrUnknown)
	}
	err = h.Do(func() error {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			all, err := listeners(family)
			if err != nil {
				return err
			}
			listens = listens || slices.ContainsFunc(all, func(s netip.AddrPort) bool {
				return s.Port() == at.Port() && (s.Addr().IsUnspecified() || s.Addr().Unmap() == at.Addr().Unmap())
			})
		}
		return nil
	})
	return listens, err
}

func parseListener(answer []byte) (netip.AddrPort, error) {
	if len(answer) < diagAnswerLen {
		return netip.AddrPort{}, fmt.Errorf("an answer of %d bytes: %w", len(answer), errTruncated)
	}
	length := 4
	if answer[0] == unix.AF_INET6 {
		length = 16
	}
	addr, _ := netip.AddrFromSlice(answer[diagSource : diagSource+length])
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(answer[diagPort:])), nil
}

var errTruncated = errors.New("truncated")
