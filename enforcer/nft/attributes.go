package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// encoder appends netlink attributes (linux/netlink.h: struct nlattr), in the byte order of nf_tables. Nothing is copied on
// the way: a table of a thousand databases has some hundred thousand attributes, and the library's encoder makes several
// allocations for each. The first error sticks.
type encoder struct {
	data []byte
	err  error
}

func (e *encoder) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

// open begins an attribute, and close ends it where the data end by then.
func (e *encoder) open(kind uint16) (at int) {
	at = len(e.data)
	e.data = binary.NativeEndian.AppendUint16(e.data, 0)
	e.data = binary.NativeEndian.AppendUint16(e.data, kind)
	return at
}

func (e *encoder) close(at int) {
	length := len(e.data) - at
	if length > math.MaxUint16 {
		e.fail(fmt.Errorf("an attribute of %d bytes", length))
		return
	}
	binary.NativeEndian.PutUint16(e.data[at:], uint16(length))
	for len(e.data)%unix.NLA_ALIGNTO != 0 { // of the message's header too, which is as aligned
		e.data = append(e.data, 0)
	}
}

// nested writes an attribute that holds those that fn writes.
func (e *encoder) nested(kind uint16, fn func()) {
	at := e.open(kind | unix.NLA_F_NESTED)
	fn()
	e.close(at)
}

func (e *encoder) bytes(kind uint16, value []byte) {
	at := e.open(kind)
	e.data = append(e.data, value...)
	e.close(at)
}

// string writes a string with the NUL behind it that nf_tables expects.
func (e *encoder) string(kind uint16, value string) {
	at := e.open(kind)
	e.data = append(append(e.data, value...), 0)
	e.close(at)
}

func (e *encoder) uint8(kind uint16, value uint8) {
	at := e.open(kind)
	e.data = append(e.data, value)
	e.close(at)
}

func (e *encoder) uint32(kind uint16, value uint32) {
	at := e.open(kind)
	e.data = binary.BigEndian.AppendUint32(e.data, value)
	e.close(at)
}

func (e *encoder) uint64(kind uint16, value uint64) {
	at := e.open(kind)
	e.data = binary.BigEndian.AppendUint64(e.data, value)
	e.close(at)
}

// attribute is one of a list. Its value is part of the list.
type attribute struct {
	kind  uint16
	value []byte
}

// attributeKind takes the flags off a kind (NLA_TYPE_MASK).
const attributeKind = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)

// each calls fn for the attributes of a list, one after the other, up to the first error.
func each(list []byte, fn func(attribute) error) error {
	for len(list) > 0 {
		if len(list) < unix.NLA_HDRLEN {
			return foreign("malformed attributes: %d bytes left", len(list))
		}
		length := int(binary.NativeEndian.Uint16(list))
		if length < unix.NLA_HDRLEN || length > len(list) {
			return foreign("malformed attributes: one of %d bytes where %d are left", length, len(list))
		}
		a := attribute{kind: binary.NativeEndian.Uint16(list[2:]) & attributeKind, value: list[unix.NLA_HDRLEN:length:length]}
		if err := fn(a); err != nil {
			return err
		}
		list = list[min((length+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(list)):]
	}
	return nil
}

func (a attribute) uint32() (uint32, error) {
	if len(a.value) != 4 {
		return 0, foreign("malformed attributes: %d bytes of a number of 4", len(a.value))
	}
	return binary.BigEndian.Uint32(a.value), nil
}

func (a attribute) uint64() (uint64, error) {
	if len(a.value) != 8 {
		return 0, foreign("malformed attributes: %d bytes of a number of 8", len(a.value))
	}
	return binary.BigEndian.Uint64(a.value), nil
}

// string is a copy without the NULs behind it.
func (a attribute) string() string { return string(bytes.TrimRight(a.value, "\x00")) }
