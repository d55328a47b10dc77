package capture

import (
	"fmt"
	"io"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// Writer writes packets of any number of namespaces into one pcapng stream, each interface under its own name. It is
// not safe for use by several goroutines.
type Writer struct {
	out    io.Writer
	ng     *pcapgo.NgWriter
	ifaces map[string]int
}

// NewWriter returns a Writer on out. Nothing is written before the first packet.
func NewWriter(out io.Writer) *Writer { return &Writer{out: out, ifaces: make(map[string]int)} }

// Write adds a packet that was captured in the namespace of the named node.
func (w *Writer) Write(node string, p Packet) error {
	id, err := w.iface(node + "/" + p.Iface)
	if err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	ci := gopacket.CaptureInfo{Timestamp: p.At, CaptureLength: len(p.Raw), Length: p.Length, InterfaceIndex: id}
	if err := w.ng.WritePacket(ci, p.Raw); err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	return nil
}

func (w *Writer) iface(name string) (int, error) {
	if id, known := w.ifaces[name]; known {
		return id, nil
	}
	intf := pcapgo.DefaultNgInterface
	intf.Name, intf.LinkType, intf.SnapLength = name, layers.LinkTypeEthernet, 0
	if w.ng == nil {
		ng, err := pcapgo.NewNgWriterInterface(w.out, intf, pcapgo.DefaultNgWriterOptions)
		if err != nil {
			return 0, err
		}
		w.ng, w.ifaces[name] = ng, 0
		return 0, nil
	}
	id, err := w.ng.AddInterface(intf)
	if err == nil {
		w.ifaces[name] = id
	}
	return id, err
}

// Flush hands everything on to the underlying writer.
func (w *Writer) Flush() error {
	if w.ng == nil {
		return nil
	}
	if err := w.ng.Flush(); err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	return nil
}
