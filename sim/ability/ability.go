// Package ability finds out what a kernel lets a lab do, by trying it in a namespace of its own.
package ability

import (
	"errors"
	"fmt"
	"os"

	"drawbridge/sim/netns"

	"github.com/mdlayher/netlink"
	rtnetlink "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Finding is one thing that is there or not. The zero value is not there.
type Finding struct {
	Name string `json:"name"`
	Has  bool   `json:"has"`
	// Affects says what suffers where it is not there.
	Affects string `json:"affects"`
	// Detail is why it is not there, or how much of it there is.
	Detail string `json:"detail,omitempty"`
}

// Find tries something.
func Find(name, affects string, try func() error) Finding {
	f := Finding{Name: name, Affects: affects}
	if err := try(); err != nil {
		f.Detail = err.Error()
		return f
	}
	f.Has = true
	return f
}

// Kernel tries what depends on how the kernel was built. The namespace should be fresh, and be thrown away.
func Kernel(ns *netns.Handle) []Finding {
	inside := func(try func() error) func() error { return func() error { return ns.Do(try) } }
	return []Finding{
		Find("connection tracking over netlink", "enforce status, plan and apply cannot name or end connections (D-11, X-04)", inside(conntrack)),
		Find("packets logged to user space (nflog)", "enforcers that log denials by nflog; no scenario of the suite", inside(nflog)),
		Find("Multipath TCP", "the attempts of evasion with Multipath TCP (X-08) are not played", inside(mptcp)),
		Find("TCP Fast Open", "the attempts of evasion with data in a SYN (X-08) are weaker", inside(fastOpen)),
		Find("netem", "delay and loss in nodes by tc(8); no scenario of the suite", inside(netem)),
		Find("VRF", "enforcers that separate their networks by VRF; no scenario of the suite", inside(vrf)),
		Find("packet sockets", "everything that sees packets: probes, captures, evasions", inside(packets)),
	}
}

// From linux/netfilter/nfnetlink.h and its parts.
const (
	subsystemConntrack = 1
	getConnections     = 1 // IPCTNL_MSG_CT_GET
	subsystemLog       = 4
	configureLog       = 1 // NFULNL_MSG_CONFIG
	logCommand         = 1 // NFULA_CFG_CMD
	logBind            = 1 // NFULNL_CFG_CMD_BIND
)

func conntrack() error {
	return netfilter(subsystemConntrack<<8|getConnections, netlink.Request|netlink.Dump, []byte{unix.AF_INET, 0, 0, 0})
}

func nflog() error {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: logCommand, Data: []byte{logBind}}})
	if err != nil {
		return err
	}
	const group = 1
	return netfilter(subsystemLog<<8|configureLog, netlink.Request|netlink.Acknowledge, append([]byte{0, 0, 0, group}, attrs...))
}

func netfilter(typ netlink.HeaderType, flags netlink.HeaderFlags, data []byte) (err error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	_, err = c.Execute(netlink.Message{Header: netlink.Header{Type: typ, Flags: flags}, Data: data})
	return err
}

func mptcp() error { return socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP) }

func packets() error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) }

func socket(domain, kind, protocol int) error {
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	return unix.Close(fd)
}

func fastOpen() error {
	_, err := os.Stat("/proc/sys/net/ipv4/tcp_fastopen")
	return err
}

func netem() error {
	lo, err := rtnetlink.LinkByName("lo")
	if err != nil {
		return err
	}
	attrs := rtnetlink.QdiscAttrs{LinkIndex: lo.Attrs().Index, Handle: rtnetlink.MakeHandle(1, 0), Parent: rtnetlink.HANDLE_ROOT}
	if err := rtnetlink.QdiscAdd(rtnetlink.NewNetem(attrs, rtnetlink.NetemQdiscAttrs{Latency: 1})); err != nil {
		return fmt.Errorf("sch_netem: %w", err)
	}
	return nil
}

func vrf() error {
	const anyTable = 100
	attrs := rtnetlink.NewLinkAttrs()
	attrs.Name = "vrf0"
	if err := rtnetlink.LinkAdd(&rtnetlink.Vrf{LinkAttrs: attrs, Table: anyTable}); err != nil {
		return fmt.Errorf("vrf: %w", err)
	}
	return nil
}
