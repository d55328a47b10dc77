package nat

import (
	"errors"
	"fmt"
	"net/netip"

	"drawbridge/sim/fabric"
	"drawbridge/sim/netns"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forgetDestinations deletes the namespace's connection entries that were translated in one of these ways. The next packet of
// such a connection is translated anew.
func forgetDestinations(h *netns.Handle, list []fabric.DestinationNAT) error {
	var filters [2][]netlink.CustomConntrackFilter
	for _, d := range list {
		filter := &netlink.ConntrackFilter{}
		err := errors.Join(
			filter.AddProtocol(unix.IPPROTO_TCP),
			filter.AddIP(netlink.ConntrackOrigDstIP, d.From.Addr().AsSlice()),
			filter.AddPort(netlink.ConntrackOrigDstPort, d.From.Port()),
			filter.AddIP(netlink.ConntrackReplySrcIP, d.To.Addr().AsSlice()),
		)
		if err != nil {
			return fmt.Errorf("conntrack filter for %s: %w", d.From, err)
		}
		f := familyOf(d.From.Addr())
		filters[f] = append(filters[f], filter)
	}
	return forget(h, filters)
}

// forgetSource deletes the namespace's entries of connections that left as the given address.
func forgetSource(h *netns.Handle, outside netip.Addr) error {
	filter := &netlink.ConntrackFilter{}
	if err := filter.AddIP(netlink.ConntrackReplyDstIP, outside.AsSlice()); err != nil {
		return fmt.Errorf("conntrack filter for %s: %w", outside, err)
	}
	var filters [2][]netlink.CustomConntrackFilter
	filters[familyOf(outside)] = []netlink.CustomConntrackFilter{filter}
	return forget(h, filters)
}

func forget(h *netns.Handle, filters [2][]netlink.CustomConntrackFilter) error {
	return h.Do(func() error {
		conn, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return fmt.Errorf("conntrack socket: %w", err)
		}
		defer conn.Close()
		for _, f := range []family{v4, v6} {
			if len(filters[f]) == 0 {
				continue
			}
			if _, err := conn.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(f.inet()), filters[f]...); err != nil {
				return fmt.Errorf("delete connection entries: %w", err)
			}
		}
		return nil
	})
}

func (f family) inet() uint8 { return [...]uint8{unix.AF_INET, unix.AF_INET6}[f] }
