package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"drawbridge/sim/netns"

	"golang.org/x/sys/unix"
)

// The ring is TPACKET_V2 (Documentation/networking/packet_mmap.rst): version 3 hands packets over by the block, up to
// several timer ticks late, and a socket's own queue is bounded by net.core.rmem_max, which a user namespace cannot
// raise.
const (
	frameSize = 2048
	blockSize = 64 * frameSize
	// blockCount gives room for 16,384 packets: dozens of connections at once, in and out, for the time that a busy machine may keep
	// the reader from running. With 2,048 one run in twenty lost packets beside other work on two cores, and with 8,192 one in ten where
	// that was six times as much as there were cores. It takes 32 MiB.
	blockCount = 256
	// leastBlocks is what a tap among very many gets: 256 packets. Each sees few connections at a time then.
	leastBlocks = 4

	// MaxFrame is the length, Ethernet header included, up to which packets are captured whole: a frame less
	// the ring's own headers. The lab's links carry at most 1,514 bytes.
	MaxFrame = frameSize - 128

	// tpacket2HeaderLen is TPACKET_ALIGN(sizeof(struct tpacket2_hdr)); a struct sockaddr_ll follows.
	tpacket2HeaderLen = 32
)

// frame is one packet as the ring holds it.
type frame struct {
	at       time.Time
	index    int // of the interface
	outgoing bool
	length   int // on the wire
	raw      []byte
}

// ring is a packet socket and its shared memory. Only one goroutine may call next.
type ring struct {
	file   *os.File
	memory []byte
	slot   int
	frames int // how many packets there is room for
}

func openRing(h *netns.Handle, blocks int) (_ *ring, err error) {
	fd, err := h.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0) // protocol 0: nothing is received before the ring is there
	if err != nil {
		return nil, err
	}
	r := &ring{file: os.NewFile(uintptr(fd), "packet"), frames: blocks * blockSize / frameSize}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return nil, os.NewSyscallError("setsockopt PACKET_VERSION", err)
	}
	req := unix.TpacketReq{Block_size: blockSize, Block_nr: uint32(blocks), Frame_size: frameSize, Frame_nr: uint32(r.frames)}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return nil, os.NewSyscallError("setsockopt PACKET_RX_RING", err)
	}
	r.memory, err = unix.Mmap(fd, 0, blockSize*blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)) // htons
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	return r, nil
}

// close gives up the memory before the file: whichever comes last waits in the kernel until every processor is done with the ring, and
// package unix lets one caller at a time into munmap(2).
func (r *ring) close() (err error) {
	if r.memory != nil {
		err = unix.Munmap(r.memory)
		r.memory = nil
	}
	return errors.Join(err, r.file.Close())
}

// wait blocks until a packet is there. It returns os.ErrClosed or os.ErrDeadlineExceeded once the file is closed or told to stop.
func (r *ring) wait() error {
	raw, err := r.file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(uintptr) bool { return r.ready() })
}

func (r *ring) header() []byte { return r.memory[r.slot*frameSize:][:frameSize] }

// status is the ownership word that the kernel and this process hand to each other.
func (r *ring) status() *uint32 { return (*uint32)(unsafe.Pointer(&r.header()[0])) }

func (r *ring) ready() bool { return atomic.LoadUint32(r.status())&unix.TP_STATUS_USER != 0 }

// next copies the packet that is due out of the ring and gives its place back. It must be ready.
func (r *ring) next() (frame, error) {
	b := r.header()
	hdr := (*unix.Tpacket2Hdr)(unsafe.Pointer(&b[0]))
	sll := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&b[tpacket2HeaderLen]))
	start, end := int(hdr.Mac), int(hdr.Mac)+int(hdr.Snaplen)
	if end > len(b) {
		return frame{}, fmt.Errorf("frame of %d bytes at %d reaches out of its %d", hdr.Snaplen, start, len(b))
	}
	f := frame{
		at:       time.Unix(int64(hdr.Sec), int64(hdr.Nsec)),
		index:    int(sll.Ifindex),
		outgoing: sll.Pkttype == unix.PACKET_OUTGOING,
		length:   int(hdr.Len),
		raw:      append([]byte(nil), b[start:end]...),
	}
	atomic.StoreUint32(r.status(), unix.TP_STATUS_KERNEL)
	r.slot = (r.slot + 1) % r.frames
	return f, nil
}

// drops returns how many packets the kernel could not place since the last call (packet(7), PACKET_STATISTICS).
func (r *ring) drops() (uint32, error) {
	raw, err := r.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var stats *unix.TpacketStats
	var inner error
	err = raw.Control(func(fd uintptr) {
		stats, inner = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	})
	if err = errors.Join(err, inner); err != nil {
		return 0, os.NewSyscallError("getsockopt PACKET_STATISTICS", err)
	}
	return stats.Drops, nil
}
