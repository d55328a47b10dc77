package capture

import (
	"encoding/binary"
	"errors"
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

// Declare writes an interface of a node that packets may come from, so that a reader of a stream knows of it before the first does.
func (w *Writer) Declare(node, iface string) error {
	if _, err := w.iface(node + "/" + iface); err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	return nil
}

// Write adds a packet that was captured in the namespace of the named node, with comments for whoever reads it.
func (w *Writer) Write(node string, p Packet, comments ...string) error {
	id, err := w.iface(node + "/" + p.Iface)
	if err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	ci := gopacket.CaptureInfo{Timestamp: p.At, CaptureLength: len(p.Raw), Length: p.Length, InterfaceIndex: id}
	if err := w.ng.WritePacketWithOptions(ci, p.Raw, pcapgo.NgPacketOptions{Comments: comments}); err != nil {
		return fmt.Errorf("pcapng: %w", err)
	}
	return nil
}

// Decryption Secrets Block (draft-ietf-opsawg-pcapng, section 4.7), which the library has no words for.
const (
	blockSecrets = 0x0000000a
	secretsTLS   = 0x544c534b // TLS key log, the format of NSS
	blockAlign   = 4
	// secretsFixed: type, length, kind of secrets, their length, and the length again.
	secretsFixed = 5 * 4
)

// Secrets adds lines of a TLS key log (draft-ietf-tls-keylogfile). A reader can decrypt the packets that come behind it. An interface
// has to be declared before.
func (w *Writer) Secrets(keyLog []byte) error {
	if w.ng == nil {
		return errors.New("pcapng: secrets before the first interface")
	}
	if err := w.Flush(); err != nil { // to the end of the block before: this one is written past the library
		return err
	}
	padded := (len(keyLog) + blockAlign - 1) / blockAlign * blockAlign
	total := uint32(secretsFixed + padded)
	b := binary.LittleEndian.AppendUint32(nil, blockSecrets)
	b = binary.LittleEndian.AppendUint32(b, total)
	b = binary.LittleEndian.AppendUint32(b, secretsTLS)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(keyLog)))
	b = append(append(b, keyLog...), make([]byte, padded-len(keyLog))...)
	b = binary.LittleEndian.AppendUint32(b, total)
	if _, err := w.out.Write(b); err != nil {
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
