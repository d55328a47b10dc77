package realserver

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"drawbridge/sim/endpoint"
)

var (
	// mariadbGeneral is a line of the general query log; the time stands there once a second.
	mariadbGeneral = regexp.MustCompile(`^(?:\d{6} [ \d]\d:\d\d:\d\d)?\t+ *(\d+) ([A-Z][A-Za-z ]*?)\t(.*)$`)
	mariadbLogin   = regexp.MustCompile(`^(\S*)@(\S+) .*using (.*)$`)
	// mariadbError is a line of the error log with the thread that it is about.
	mariadbError = regexp.MustCompile(`^\d{4}-\d\d-\d\d +\d+:\d\d:\d\d (\d+) \[(\w+)\] (.*)$`)
)

// mariadbLog reads MariaDB's two logs, each from a goroutine of its own.
type mariadbLog struct {
	ledger *ledger
	ready  func() // called once
	spoken bool
	last   string // thread of the last line of the general log
}

func newMariadbLog(l *ledger, ready func()) *mariadbLog { return &mariadbLog{ledger: l, ready: ready} }

func (g *mariadbLog) takeGeneral(line string) {
	g.ledger.arrived(line)
	m := mariadbGeneral.FindStringSubmatch(line)
	if m == nil {
		if g.last != "" { // of a statement of several lines, each is an event
			g.ledger.said(g.last, endpoint.Query, line)
		}
		return
	}
	thread, command, text := m[1], m[2], m[3]
	g.last = thread
	switch command {
	case "Connect":
		g.login(thread, text)
	case "Quit":
		g.last = ""
		g.ledger.closed(thread, "quit")
	default:
		g.ledger.said(thread, endpoint.Query, text)
	}
}

// login takes "user@host on schema using SSL/TLS", or why the server refused.
func (g *mariadbLog) login(thread, text string) {
	m := mariadbLogin.FindStringSubmatch(text)
	if m == nil {
		g.ledger.said(thread, endpoint.Refused, text)
		return
	}
	host, by := m[2], m[3]
	if host == "localhost" {
		g.ledger.disown(thread)
		return
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		g.ledger.from(thread, addr.Unmap())
	}
	if strings.HasPrefix(by, "SSL") {
		g.ledger.secured(thread)
	}
	g.ledger.said(thread, endpoint.Query, text)
}

func (g *mariadbLog) takeError(line string) {
	if !g.spoken && strings.Contains(line, ": ready for connections.") {
		g.spoken = true
		g.ready()
		return
	}
	m := mariadbError.FindStringSubmatch(line)
	if m == nil || m[1] == "0" {
		return
	}
	thread, level, message := m[1], m[2], m[3]
	switch {
	case strings.HasPrefix(message, "Aborted connection "):
		g.ledger.closed(thread, message)
	case strings.Contains(message, "Got an error writing communication packets"): // the client was gone: nothing of it was read
		g.ledger.closed(thread, message)
	case level == "ERROR":
		g.ledger.said(thread, endpoint.Bytes, message)
	}
}

// greetingThread reads the number of the thread out of a server's greeting (protocol version 10: packet header of 4 bytes,
// version, the server's name up to a zero byte, thread).
func greetingThread(packet []byte) (string, bool) {
	const header, version = 4, 10
	if len(packet) < header+1 || packet[header-1] != 0 || packet[header] != version {
		return "", false
	}
	_, rest, found := bytes.Cut(packet[header+1:], []byte{0})
	if !found || len(rest) < 4 {
		return "", false
	}
	return strconv.FormatUint(uint64(binary.LittleEndian.Uint32(rest)), 10), true
}

// greeted: the server's greeting to a client names the thread that serves it.
func (l *ledger) greeted(thread string, remote, local netip.AddrPort) {
	l.change(thread, func(c *conversation) {
		if c.known || c.own {
			return
		}
		c.remote, c.local = remote, local
		l.begin(c)
		l.release(c)
	})
}

// from notes a client's address as long as its port is not known. Loopback is not captured: its connections are known by
// address alone.
func (l *ledger) from(thread string, addr netip.Addr) {
	l.change(thread, func(c *conversation) {
		if c.known || c.own {
			return
		}
		c.remote = netip.AddrPortFrom(addr, 0)
		if addr.IsLoopback() {
			l.release(c)
		}
	})
}

func (l *ledger) remoteOf(thread string) (remote netip.AddrPort) {
	l.change(thread, func(c *conversation) { remote = c.remote })
	return remote
}
