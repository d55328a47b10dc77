package realserver

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Taken returns how many bytes of a client's the server has taken off its socket so far: what its own log may not tell as
// long as it waits for more. The figure is its kernel's: bytes received (tcp_info, RFC 4898's
// tcpEStatsAppHCThruOctetsReceived) less those still queued. open is false if the server holds no such connection, or has
// not accepted it yet.
func (s *Server) Taken(remote netip.AddrPort) (n uint64, open bool, err error) {
	family := uint8(unix.AF_INET)
	if remote.Addr().Is6() {
		family = unix.AF_INET6
	}
	err = s.cfg.Node.Do(func() error {
		// Redis listens for both families on one socket each, as PostgreSQL and MariaDB do: no client is mapped into IPv6.
		sockets, err := netlink.SocketDiagTCPInfo(family)
		if err != nil {
			return fmt.Errorf("list sockets: %w", err)
		}
		for _, socket := range sockets {
			id := socket.InetDiagMsg.ID
			addr, _ := netip.AddrFromSlice(id.Destination) // none for what is no address
			ours := id.SourcePort == s.cfg.Port || id.SourcePort == s.cfg.PlainPort
			if !ours || addr.Unmap() != remote.Addr() || id.DestinationPort != remote.Port() || socket.InetDiagMsg.INode == 0 {
				continue // inode 0: in the queue of those that the server has not accepted, or ended
			}
			open = true
			if socket.TCPInfo != nil {
				n += socket.TCPInfo.Bytes_received - uint64(socket.InetDiagMsg.RQueue)
			}
		}
		return nil
	})
	if err != nil {
		return 0, false, s.because("taken", err)
	}
	return n, open, nil
}
