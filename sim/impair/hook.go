package impair

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// now is the clock of wires.
var now = time.Now

// The match of a u32 filter (tc-u32(8)): 32 bits of the frame from the source's hardware address on, which lies 8 bytes before the IP header;
// the first of them, in network order, is where put is.
const (
	beforeIP = -8
	putMask  = put << 24
)

// Whether a filter takes what has been put back in, or what has not.
const (
	fresh   = 0
	putBack = putMask
)

// hook has the filters take packets off their way: first the one that leads back, then the other two.
func (w *Wire) hook() error {
	return w.control(func(c *netlink.Handle) error {
		for _, index := range []int{w.side, w.end.Index} {
			if err := c.QdiscAdd(clsact(index)); err != nil {
				return fmt.Errorf("traffic control (clsact) at %s: %w", w.end.Name, err)
			}
		}
		w.hooked = true
		for _, f := range []*netlink.U32{
			filter(w.side, netlink.HANDLE_MIN_INGRESS, putBack, redirect(w.end.Index, netlink.TCA_INGRESS_REDIR)),
			filter(w.end.Index, netlink.HANDLE_MIN_EGRESS, fresh, redirect(w.side, netlink.TCA_EGRESS_REDIR)),
			filter(w.end.Index, netlink.HANDLE_MIN_INGRESS, fresh, redirect(w.side, netlink.TCA_EGRESS_REDIR)),
		} {
			if err := c.FilterAdd(f); err != nil {
				return fmt.Errorf("traffic control (u32, mirred) at %s: %w", w.end.Name, err)
			}
		}
		return nil
	})
}

func clsact(index int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
}

// filter gives every packet that has, or has not, been put back in to an action.
func filter(index int, parent uint32, which uint32, action netlink.Action) *netlink.U32 {
	return &netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: parent, Priority: 1, Protocol: unix.ETH_P_ALL},
		Sel: &netlink.TcU32Sel{
			Flags: netlink.TC_U32_TERMINAL, Nkeys: 1,
			Keys: []netlink.TcU32Key{{Mask: putMask, Val: which, Off: beforeIP}},
		},
		Actions: []netlink.Action{action},
	}
}

func redirect(index int, how netlink.MirredAct) *netlink.MirredAction {
	a := netlink.NewMirredAction(index)
	a.MirredAction = how
	return a
}

// unhook lets packets go their way.
func (w *Wire) unhook() error {
	return w.control(func(c *netlink.Handle) error { return absent(c.QdiscDel(clsact(w.end.Index))) })
}

// remove deletes the side with its far end.
func (w *Wire) remove() error {
	return w.control(func(c *netlink.Handle) error {
		return absent(c.LinkDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: w.side}}))
	})
}

// absent forgives that what is to go is not there.
func absent(err error) error {
	for _, e := range []error{unix.ENOENT, unix.ENODEV, unix.EINVAL} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

// control works on the hooked end's node.
func (w *Wire) control(work func(*netlink.Handle) error) error {
	return w.end.Node.Do(func() error {
		c, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer c.Close()
		return work(c)
	})
}
