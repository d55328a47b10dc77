package realserver

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"drawbridge/sim/endpoint"
)

// postgresPrefix begins every line: process, and client with its port, or [local].
const postgresPrefix = "%p %r|"

var (
	postgresLine = regexp.MustCompile(`^(\d+) ([^|]*)\|([A-Z0-9]+):  (.*)$`)
	// postgresClient is %r: 198.51.100.9(40001).
	postgresClient    = regexp.MustCompile(`^([0-9a-f.:]+)(?:%[^(]*)?\((\d+)\)$`)
	postgresStatement = regexp.MustCompile(`^(?:statement|execute [^:]*|received replication command): (.*)$`)
	// postgresExit begins with "server process", from PostgreSQL 18 on with the kind of process.
	postgresExit = regexp.MustCompile(`^[a-z ]+ \(PID (\d+)\) (.*)$`)
)

// postgresLog reads PostgreSQL's log.
type postgresLog struct {
	ledger *ledger
	ready  func() // called once
	spoken bool
	last   string          // the process whose line was the last, for lines that continue it
	inside map[string]bool // the clients that were let in
	failed map[string]bool // those whose TLS handshake failed
}

func newPostgresLog(l *ledger, ready func()) *postgresLog {
	return &postgresLog{ledger: l, ready: ready, inside: map[string]bool{}, failed: map[string]bool{}}
}

func (p *postgresLog) take(line string) {
	p.ledger.arrived(line)
	m := postgresLine.FindStringSubmatch(line)
	if m == nil {
		if text, ok := strings.CutPrefix(line, "\t"); ok && p.last != "" {
			p.ledger.said(p.last, endpoint.Query, text) // of a statement of several lines, each is an event
		}
		return
	}
	pid, client, level, message := m[1], m[2], m[3], m[4]
	p.last = ""
	if client == "" {
		p.server(message)
		return
	}
	p.client(pid, client, level, message)
}

// server takes what the server says of itself.
func (p *postgresLog) server(message string) {
	if !p.spoken && strings.HasPrefix(message, "database system is ready to accept") {
		p.spoken = true
		p.ready()
	}
	if m := postgresExit.FindStringSubmatch(message); m != nil {
		delete(p.inside, m[1])
		delete(p.failed, m[1])
		p.ledger.closed(m[1], "the server's process "+m[2])
	}
}

// client takes what a process says of its client.
func (p *postgresLog) client(pid, client, level, message string) {
	if strings.HasPrefix(message, "connection received: ") {
		if remote, ok := parsePostgresClient(client); ok {
			p.ledger.accepted(pid, remote, true)
		} else {
			p.ledger.disown(pid)
		}
		return
	}
	statement := postgresStatement.FindStringSubmatch(message)
	switch {
	case statement != nil:
		p.last = pid
		p.ledger.said(pid, endpoint.Query, statement[1])
	case strings.HasPrefix(message, "could not accept SSL connection"):
		p.failed[pid] = true
		if notTLS(message) {
			p.ledger.said(pid, endpoint.Bytes, message)
		}
	case strings.HasPrefix(message, "failed to send SSL negotiation response"):
		p.failed[pid] = true // the client was gone, and had said no more than that it wants TLS
	case strings.HasPrefix(message, "SSL connection from "): // which PostgreSQL 15 says of failed handshakes, too
		if !p.failed[pid] {
			p.ledger.secured(pid)
		}
	case strings.Contains(message, "connection authorized: "): // "replication connection authorized" too
		p.inside[pid] = true
		p.ledger.said(pid, endpoint.Query, message) // a startup packet, carried out
	case strings.HasPrefix(message, "processing cancel request"):
		p.ledger.said(pid, endpoint.Query, message)
	case p.inside[pid] || level != "LOG" && level != "FATAL" || postgresSilent(message):
	case level == "FATAL":
		p.ledger.said(pid, endpoint.Refused, message)
	default:
		p.ledger.said(pid, endpoint.Bytes, message)
	}
}

// notTLS tells whether a handshake failed because what the client sent was no TLS, in OpenSSL's words.
func notTLS(message string) bool {
	return strings.Contains(message, "wrong version number") || strings.Contains(message, "http request") ||
		strings.Contains(message, "https proxy request")
}

// postgresSilent tells messages that say nothing of what a client said before it was let in: that it has gone, or took too
// long.
func postgresSilent(message string) bool {
	for _, start := range []string{
		"could not receive data from client", "could not send data to client",
		"connection to client lost", "canceling authentication due to timeout", "terminating connection", "the database system is",
		"connection authenticated", "disconnection",
	} {
		if strings.HasPrefix(message, start) {
			return true
		}
	}
	return false
}

func parsePostgresClient(s string) (netip.AddrPort, bool) {
	m := postgresClient.FindStringSubmatch(s)
	if m == nil {
		return netip.AddrPort{}, false
	}
	addr, err := netip.ParseAddr(m[1])
	port, portErr := strconv.ParseUint(m[2], 10, 16)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), err == nil && portErr == nil
}
