package realserver

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"drawbridge/sim/endpoint"
)

var (
	// redisLine: process and role, time, level, message.
	redisLine    = regexp.MustCompile(`^\d+:\w \d+ \w+ \d+ [\d:.]+ ([.*#-]) (.*)$`)
	redisVersion = regexp.MustCompile(`^Redis version=([^,]+),`)
	// redisMonitor: time, database, client, command.
	redisMonitor = regexp.MustCompile(`^[\d.]+ \[\d+ (\S+)\] (.*)$`)
)

// redisLog reads Redis's log.
type redisLog struct {
	ledger  *ledger
	ready   func() // called once
	nudge   func() // the list of clients has more to tell
	tlsPort uint16
	version string
	spoken  bool
}

func (g *redisLog) take(line string) {
	m := redisLine.FindStringSubmatch(line)
	if m == nil {
		return
	}
	message := m[2]
	if v := redisVersion.FindStringSubmatch(message); v != nil {
		g.version = v[1]
	}
	accepted, isAccepted := strings.CutPrefix(message, "Accepted ")
	closed, isClosed := strings.CutPrefix(message, "Client closed connection ")
	switch {
	case !g.spoken && strings.HasPrefix(message, "Ready to accept connections"):
		g.spoken = true
		g.ready()
	case isAccepted:
		if remote, err := netip.ParseAddrPort(bracketed(accepted)); err == nil {
			g.ledger.accepted(unmapped(remote).String(), unmapped(remote), false)
			g.nudge()
		}
	case isClosed:
		g.closed(parseRedisClient(closed))
	default: // an error in reading from, writing to or accepting a client ends it, and does not say which
		g.nudge()
	}
}

// closed takes the description of a client that has gone. Its last command may have been rejected, and then MONITOR did not
// show it; bytes that were no command yet are still in its buffer.
func (g *redisLog) closed(c redisClient) {
	if !c.remote.IsValid() {
		return
	}
	key := c.remote.String()
	g.ledger.identify(key, c.remote, c.local, c.local.Port() == g.tlsPort)
	if c.user == "default" && c.command != "" && c.command != "NULL" {
		g.ledger.said(key, endpoint.Query, strings.ToUpper(c.command))
	}
	if c.unread > 0 {
		g.ledger.said(key, endpoint.Bytes, strconv.Itoa(c.unread)+" bytes of an unfinished command")
	}
	g.ledger.closed(key, "the client closed the connection")
}

// takeMonitor takes a line of MONITOR.
func takeMonitor(l *ledger, line string) {
	m := redisMonitor.FindStringSubmatch(line)
	if m == nil {
		return
	}
	if remote, err := netip.ParseAddrPort(bracketed(m[1])); err == nil {
		l.said(unmapped(remote).String(), endpoint.Query, m[2])
	}
}

// redisClient is how Redis describes a client.
type redisClient struct {
	remote, local netip.AddrPort
	command, user string
	unread        int // bytes in its query buffer
}

// parseRedisClient reads "id=4 addr=127.0.0.1:43078 laddr=127.0.0.1:6379 ... qbuf=0 ... cmd=ping user=default ...".
func parseRedisClient(text string) redisClient {
	var c redisClient
	for _, field := range strings.Fields(text) {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "addr":
			remote, _ := netip.ParseAddrPort(bracketed(value)) // a socket file is no client of the network
			c.remote = unmapped(remote)
		case "laddr":
			local, _ := netip.ParseAddrPort(bracketed(value))
			c.local = unmapped(local)
		case "cmd":
			c.command = value
		case "user":
			c.user = value
		case "qbuf":
			c.unread, _ = strconv.Atoi(value)
		}
	}
	return c
}

// bracketed puts the brackets round an IPv6 address that Redis leaves out in some places.
func bracketed(s string) string {
	at := strings.LastIndexByte(s, ':')
	if at < 0 || strings.Count(s, ":") == 1 || strings.HasPrefix(s, "[") {
		return s
	}
	return "[" + s[:at] + "]" + s[at:]
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
