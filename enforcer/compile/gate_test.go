package compile_test

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/ruleset"
)

// Bytes of the protocols, as they stand on the wire.
var (
	hello      = unhex("160301 0200 01 0001fc 0303 00112233445566778899")
	hello7     = hello[:7]
	helloSSL3  = unhex("160300 0200 01 0001fc 0300 0011")
	serverHi   = unhex("160303 007a 02 000076 0303 8899aabbccddeeff")
	alert      = unhex("150303 0002 0228")
	warned     = append(unhex("150303 0002 0170"), serverHi...)
	pgSSL      = unhex("00000008 04d2162f")
	pgGSS      = unhex("00000008 04d21630")
	pgCancel   = unhex("00000010 04d2162e 00000001 00000002")
	pgStartup  = append(unhex("00000023 00030000"), "user\x00postgres\x00"...)
	myGreeting = append(unhex("4a000000 0a"), "8.0.36"...)
	mySSL      = append(unhex("20000001 0daa0800 00000001 2d"), make([]byte, 23)...)
	myNoSSL    = append(unhex("20000001 0da20000 00000001 2d"), make([]byte, 23)...)
	myLogin790 = append(unhex("160300 01 8da60f00 00000001 2d"), make([]byte, 23)...)
	myOK       = unhex("07000002 00000002000000")
	mongoCmd   = unhex("160301 00 00010000 00000000 dd070000 00000000")
	mongoReply = unhex("160303 00 00020000 00030300 dd070000 00000000")
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// conversation plays packets of one connection against the gate and the witness.
type conversation struct {
	*walker
	client, server netip.AddrPort
	mark           compile.Mark
}

// afterConntrack is conntrack's priority.
const afterConntrack = -200

// Sequence numbers: the client's first byte has first.
const first = 1000

func (c *conversation) class() compile.Class { return c.mark.Class(c.walker.mark) }

// up sends a packet of the client through the gate.
func (c *conversation) up(seq uint32, flags byte, data []byte) outcome {
	return c.hookFrom(ruleset.HookPrerouting, afterConntrack, packet{proto: 6, src: c.client, dst: c.server, iif: "reg0", flags: flags, seq: seq, payload: data, state: stateEstablished})
}

// down sends a packet of the server through the witness.
func (c *conversation) down(ackSeq uint32, flags byte, data []byte) outcome {
	return c.hook(ruleset.HookPostrouting, packet{proto: 6, src: c.server, dst: c.client, oif: "reg0", flags: flags, ack: ackSeq, payload: data, state: stateEstablished, reply: true})
}

// gateDocument is one shared host with a database of every way to TLS.
func gateDocument(force bool, unknown string) []byte {
	var databases []string
	for i, d := range []struct{ engine, tls string }{{"postgresql", "in-band"}, {"mysql", "in-band"}, {"mongodb", "either"}, {"redis", "only"}} {
		databases = append(databases, fmt.Sprintf(`{"name": %[1]q, "model": "shared", "engine": %[1]q, "force_tls": %[3]t, "unknown_connections": %[5]q,
			"endpoints": [{"kind": "public-rw", "address": "10.9.0.1", "port": %[4]d, "family": "ipv4", "tls": %[2]q}],
			"nodes": [
				{"name": "a", "here": true, "addresses": ["10.9.0.1", "fd09::1"], "ports": [{"port": %[4]d, "tls": %[2]q}]},
				{"name": "b", "here": false, "addresses": ["10.9.0.3"], "ports": [{"port": %[4]d, "tls": %[2]q}]}],
			"cluster_ports": [{"port": %[4]d, "shared": true}]}`, d.engine, d.tls, force, 5001+i, unknown))
	}
	return []byte(`{"version": 1, "point": {"name": "h", "model": "shared"}, "interfaces": [{"name": "reg0", "zone": "regional"}],
		"region": {"name": "r", "networks": ["10.9.0.0/24", "fd09::/64"]}, "databases": [` + strings.Join(databases, ",") + `]}`)
}

var gatePorts = map[string]uint16{"pg": 5001, "mysql": 5002, "mongo": 5003, "redis": 5004}

func converse(t *testing.T, engine string, force bool, unknown string) *conversation {
	t.Helper()
	m, err := compile.NewMark(compile.DefaultMarkMask)
	require.NoError(t, err)
	return &conversation{
		walker: walk(compiled(t, "gate", gateDocument(force, unknown))), mark: m,
		client: netip.MustParseAddrPort("10.9.0.2:40000"), server: netip.AddrPortFrom(netip.MustParseAddr("10.9.0.1"), gatePorts[engine]),
	}
}

// begin completes the TCP handshake.
func (c *conversation) begin(t *testing.T) *conversation {
	t.Helper()
	require.Equal(t, accepted, c.up(first-1, syn, nil))
	require.Equal(t, accepted, c.down(first, syn|ack, nil))
	require.Equal(t, accepted, c.up(first, ack, nil))
	require.Equal(t, compile.ClassBegun, c.class())
	return c
}

// force turns Force TLS on or off, without a change to the connection.
func (c *conversation) force(t *testing.T, on bool) {
	t.Helper()
	table := walk(compiled(t, "gate", gateDocument(on, "cut")))
	table.mark, table.dynamic = c.walker.mark, c.dynamic
	c.walker = table
}

// line is one packet: up or down at a distance from first, what is in it, and what must come of it. For a packet of
// the server at is its acknowledgement.
type line struct {
	way  string
	at   int
	data []byte
	want outcome
	now  compile.Class
}

const (
	ungated    = 8
	classBegun = compile.ClassBegun
)

func n(b []byte) int { return len(b) }

func cat(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// Classes, as short as the tables below need them.
const (
	R, P, T, H, K = compile.ClassRefused, compile.ClassPlaintext, compile.ClassTLS, compile.ClassHello, compile.ClassAcknowledged
	Q, A, G       = compile.ClassRequested, compile.ClassAnswered, compile.ClassGSS
	on, off       = true, false
)

// dialogue is one connection, from its first byte on.
type dialogue struct {
	name   string
	engine string
	force  bool
	lines  []line
}

func playAll(t *testing.T, all []dialogue) {
	for _, d := range all {
		t.Run(d.name, func(t *testing.T) { converse(t, d.engine, d.force, "cut").begin(t).play(t, d.lines) })
	}
}

func TestGate(t *testing.T) {
	playAll(t, []dialogue{
		{"tls", "redis", on, []line{{"up", 0, hello, accepted, H}, {"down", n(hello), nil, accepted, K}, {"up", n(hello), []byte("more"), accepted, K}, {"down", n(hello), serverHi, accepted, T}, {"up", 99, []byte("any"), accepted, T}, {"down", 99, []byte("any"), accepted, T}}},
		{"tls, acknowledged with the answer", "redis", on, []line{{"up", 0, hello, accepted, H}, {"down", n(hello), serverHi, accepted, T}}},
		{"tls in small segments", "redis", on, []line{{"up", 0, hello7, accepted, H}, {"up", 7, hello[7:], dropped, H}, {"down", 7, nil, accepted, K}, {"up", 7, hello[7:], accepted, K}, {"down", n(hello), serverHi, accepted, T}}},
		{"tls, second segment first", "redis", on, []line{{"up", 7, hello[7:], dropped, classBegun}, {"up", 0, hello, accepted, H}, {"up", 0, hello, accepted, H}, {"down", n(hello), serverHi, accepted, T}}},
		{"tls, repeated after the acknowledgement", "redis", on, []line{{"up", 0, hello, accepted, H}, {"down", n(hello), nil, accepted, K}, {"up", 0, hello, accepted, K}}},
		{"six bytes tell nothing", "redis", on, []line{{"up", 0, hello[:6], rejected, R}}},
		{"SSL 3", "redis", on, []line{{"up", 0, helloSSL3, rejected, R}}},
		{"alert", "redis", on, []line{{"up", 0, hello, accepted, H}, {"down", n(hello), alert, accepted, K}}},
		{"warning and ServerHello", "redis", on, []line{{"up", 0, hello, accepted, H}, {"down", n(hello), warned, accepted, T}}},
		{"plaintext", "redis", on, []line{{"up", 0, []byte("PING\r\n"), rejected, R}, {"up", 0, hello, rejected, R}, {"up", 0, nil, rejected, R}}},
		{"two bytes of a record are not TLS", "redis", on, []line{{"up", 0, []byte("\x16\x03\r\nPING\r\n"), rejected, R}}},
		{"hello that the server discards, then plaintext", "redis", on, []line{{"up", 0, hello, accepted, H}, {"down", 0, nil, accepted, H}, {"up", 0, []byte("PING\r\n"), rejected, R}}},
		{"hello that the server discards, then plaintext around it", "redis", on, []line{{"up", 0, hello, accepted, H}, {"up", -1, []byte("xPING\r\n"), dropped, H}, {"up", 1, []byte("ING\r\n"), dropped, H}}},
		{"a server that answers in plaintext", "redis", on, []line{{"up", 0, hello, accepted, H}, {"down", n(hello), []byte("-ERR unknown command\r\n"), dropped, R}}},
		{"hello that the server discards, forgotten", "redis", on, []line{{"up", 0, hello, accepted, H}, {"expire", 0, nil, "", 0}, {"down", 0, nil, accepted, R}, {"up", 0, []byte("PING\r\n"), rejected, R}}},
		{"pg request that the server discards, forgotten", "pg", on, []line{{"up", 0, pgSSL, accepted, Q}, {"expire", 0, nil, "", 0}, {"down", 0, nil, accepted, R}, {"up", 0, pgStartup, rejected, R}}},
		{"pg gss that the server discards, forgotten", "pg", on, []line{{"up", 0, pgGSS, accepted, G}, {"expire", 0, nil, "", 0}, {"down", 0, nil, accepted, R}, {"up", 0, pgStartup, rejected, R}}},
		{"mysql request that the server discards, forgotten", "mysql", on, []line{{"up", 0, mySSL, accepted, Q}, {"expire", 0, nil, "", 0}, {"down", 0, nil, accepted, R}, {"up", 0, myLogin790, rejected, R}}},
		{"a lock that is forgotten before the first byte", "redis", on, []line{{"expire", 0, nil, "", 0}, {"up", 0, hello, dropped, classBegun}, {"down", 0, nil, accepted, R}}},
		{"a client that leaves without a word", "redis", on, []line{{"fin", 0, nil, accepted, classBegun}, {"up", 0, hello, dropped, classBegun}}},
		{"no version of TLS", "redis", on, []line{{"up", 0, cat(hello7, []byte("\r\nPING\r\n")), rejected, R}}},
		{"watched, hello that the server discards, forgotten", "redis", off, []line{{"up", 0, hello, accepted, H | ungated}, {"expire", 0, nil, "", 0}, {"down", 0, nil, accepted, P}}},
		{"repeated SYN-ACK", "redis", on, []line{{"up", 0, hello, accepted, H}, {"synack", 0, nil, accepted, H}, {"down", n(hello), serverHi, accepted, T}}},
		{"the same ports again", "redis", on, []line{{"up", 0, hello, accepted, H}, {"down", n(hello), serverHi, accepted, T}, {"synack", 5000, nil, accepted, classBegun}, {"up", 5000, []byte("PING"), rejected, R}}},
		{"the same ports and numbers again", "redis", on, []line{{"up", 0, hello, accepted, H}, {"down", n(hello), serverHi, accepted, T}, {"synack", 0, nil, accepted, classBegun}, {"up", 0, []byte("PING"), rejected, R}}},
		{"a SYN with data", "redis", on, []line{{"syn", -1, []byte("PING"), dropped, classBegun}}},
		{"data that was never tested is taken", "redis", on, []line{{"down", 5, []byte("+OK"), dropped, R}, {"up", 5, []byte("x"), rejected, R}}},

		{"mongo tls", "mongo", on, []line{{"up", 0, hello, accepted, H}, {"down", n(hello), serverHi, accepted, T}}},
		{"mongo command that begins like a record", "mongo", on, []line{{"up", 0, mongoCmd, rejected, R}}},
		{"mongo answer that begins like a record", "mongo", on, []line{{"up", 0, hello, accepted, H}, {"down", n(hello), mongoReply, dropped, R}}},

		{"pg tls", "pg", on, []line{{"up", 0, pgSSL, accepted, Q}, {"up", 0, pgSSL, accepted, Q}, {"down", 8, nil, accepted, Q}, {"down", 8, []byte("S"), accepted, A}, {"up", 8, hello, accepted, H}, {"down", 8, nil, accepted, H}, {"down", 8 + n(hello), serverHi, accepted, T}}},
		{"pg direct tls", "pg", on, []line{{"up", 0, hello, accepted, H}, {"down", n(hello), serverHi, accepted, T}}},
		{"pg startup", "pg", on, []line{{"up", 0, pgStartup, rejected, R}}},
		{"pg ninth byte", "pg", on, []line{{"up", 0, cat(pgSSL, []byte("x")), rejected, R}}},
		{"pg seven bytes", "pg", on, []line{{"up", 0, pgSSL[:7], rejected, R}}},
		{"pg cancel", "pg", on, []line{{"up", 0, pgCancel, rejected, R}}},
		{"pg without tls", "pg", on, []line{{"up", 0, pgSSL, accepted, Q}, {"down", 8, []byte("N"), accepted, R}, {"up", 8, pgStartup, rejected, R}}},
		{"pg error", "pg", on, []line{{"up", 0, pgSSL, accepted, Q}, {"down", 8, []byte("E\x00\x00\x00\x20SFATAL"), accepted, R}, {"down", 8, []byte("more"), dropped, R}}},
		{"pg startup behind the request", "pg", on, []line{{"up", 0, pgSSL, accepted, Q}, {"up", 8, pgStartup, dropped, Q}, {"up", 8, hello, dropped, Q}}},
		{"pg startup after the answer", "pg", on, []line{{"up", 0, pgSSL, accepted, Q}, {"down", 8, []byte("S"), accepted, A}, {"up", 8, pgStartup, rejected, R}}},
		{"pg hello in place of a request", "pg", on, []line{{"up", 0, pgSSL, accepted, Q}, {"up", 0, hello, rejected, R}}},
		{"pg gss refused, then tls", "pg", on, []line{{"up", 0, pgGSS, accepted, G}, {"down", 8, []byte("N"), accepted, G}, {"up", 8, pgSSL, accepted, Q}, {"down", 16, []byte("S"), accepted, A}, {"up", 16, hello, accepted, H}, {"down", 16 + n(hello), serverHi, accepted, T}}},
		{"pg gss refused, then startup", "pg", on, []line{{"up", 0, pgGSS, accepted, G}, {"down", 8, []byte("N"), accepted, G}, {"up", 8, pgStartup, rejected, R}}},
		{"pg gss refused, then a hello across it", "pg", on, []line{{"up", 0, pgGSS, accepted, G}, {"down", 8, []byte("N"), accepted, G}, {"up", 0, cat(hello7, pgStartup), rejected, R}}},
		{"pg gss granted", "pg", on, []line{{"up", 0, pgGSS, accepted, G}, {"down", 8, []byte("G"), accepted, R}, {"up", 8, []byte("token"), rejected, R}}},

		{"mysql tls", "mysql", on, []line{{"down", 0, myGreeting, accepted, classBegun}, {"up", 0, mySSL, accepted, Q}, {"down", 36, nil, accepted, A}, {"up", 36, hello, accepted, H}, {"down", 36 + n(hello), serverHi, accepted, T}}},
		{"mysql request and hello in one", "mysql", on, []line{{"down", 0, myGreeting, accepted, classBegun}, {"up", 0, cat(mySSL, hello), accepted, H}, {"up", 0, cat(mySSL, hello), accepted, H}, {"down", 36 + n(hello), serverHi, accepted, T}}},
		{"mysql repeated together", "mysql", on, []line{{"up", 0, mySSL, accepted, Q}, {"up", 36, hello, dropped, Q}, {"up", 0, cat(mySSL, hello), accepted, H}}},
		{"mysql login", "mysql", on, []line{{"up", 0, myNoSSL, rejected, R}}},
		{"mysql login that begins like a record", "mysql", on, []line{{"up", 0, myLogin790, rejected, R}}},
		{"mysql hello at once", "mysql", on, []line{{"up", 0, hello, rejected, R}}},
		{"mysql request and login", "mysql", on, []line{{"up", 0, cat(mySSL, myNoSSL), rejected, R}}},
		{"mysql login after the request", "mysql", on, []line{{"up", 0, mySSL, accepted, Q}, {"up", 36, myNoSSL, dropped, Q}, {"down", 36, nil, accepted, A}, {"up", 36, myNoSSL, rejected, R}}},
		{"mysql request cut short", "mysql", on, []line{{"up", 0, mySSL[:35], rejected, R}}},
		{"mysql plaintext answer", "mysql", on, []line{{"up", 0, mySSL, accepted, Q}, {"down", 36, myOK, dropped, R}}},
	})
}

// TestGateWatches: where Force TLS is off, nothing is stopped, and what a connection is said to speak is what it speaks.
func TestGateWatches(t *testing.T) {
	playAll(t, []dialogue{
		{"watched tls", "redis", off, []line{{"up", 0, hello, accepted, H | ungated}, {"up", n(hello), []byte("more"), accepted, H | ungated}, {"down", n(hello), nil, accepted, K | ungated}, {"down", n(hello), serverHi, accepted, T}}},
		{"watched plaintext", "redis", off, []line{{"up", 0, []byte("PING"), accepted, P}, {"down", 4, []byte("+PONG"), accepted, P}, {"up", 4, hello, accepted, P}}},
		{"watched, out of order", "redis", off, []line{{"up", 7, hello[7:], accepted, classBegun | ungated}, {"up", 0, hello7, accepted, H | ungated}, {"down", n(hello), serverHi, accepted, T}}},
		{"watched, hello discarded and plaintext around it", "redis", off, []line{{"up", 0, hello, accepted, H | ungated}, {"up", -1, []byte("xPING\r\n"), accepted, H | ungated}, {"down", 6, []byte("+PONG"), accepted, P}}},
		{"watched, taken untested", "redis", off, []line{{"up", -1, []byte("xPING\r\n"), accepted, classBegun | ungated}, {"down", 6, nil, accepted, P}, {"up", 0, hello, accepted, P}}},
		{"watched pg", "pg", off, []line{{"up", 0, pgSSL, accepted, Q | ungated}, {"down", 8, []byte("S"), accepted, A}, {"up", 8, hello, accepted, H | ungated}, {"down", 8 + n(hello), serverHi, accepted, T}}},
		{"watched pg without tls", "pg", off, []line{{"up", 0, pgSSL, accepted, Q | ungated}, {"down", 8, []byte("N"), accepted, P}, {"up", 8, pgStartup, accepted, P}}},
		{"watched mysql", "mysql", off, []line{{"down", 0, myGreeting, accepted, classBegun}, {"up", 0, mySSL, accepted, Q | ungated}, {"up", 36, hello, accepted, Q | ungated}, {"down", 36, nil, accepted, A | ungated}, {"up", 36, hello, accepted, H | ungated}, {"down", 36 + n(hello), serverHi, accepted, T}}},
		{"watched mysql, request discarded", "mysql", off, []line{{"up", 0, mySSL, accepted, Q | ungated}, {"up", -1, cat([]byte("x"), myNoSSL), accepted, Q | ungated}, {"down", 36, nil, accepted, A | ungated}, {"down", 36, myOK, accepted, P}}},
		{"watched mongo answer that begins like a record", "mongo", off, []line{{"up", 0, hello, accepted, H | ungated}, {"down", 40, mongoReply, accepted, P}}},

		{"pg request, then a longer one in its place", "pg", on, []line{{"up", 0, pgSSL, accepted, Q}, {"down", 8, []byte("S"), accepted, A}, {"up", 0, cat(hello[:8], pgStartup), dropped, A}, {"up", 8, hello, accepted, H}}},
		{"pg gss refused, then across both", "pg", on, []line{{"up", 0, pgGSS, accepted, G}, {"down", 8, []byte("N"), accepted, G}, {"up", 8, pgSSL, accepted, Q}, {"down", 16, []byte("S"), accepted, A}, {"up", 8, cat(hello[:8], pgStartup), dropped, A}, {"up", 0, cat(hello[:16], pgStartup), dropped, A}}},
		{"the same ports again, and the place of before", "redis", on, []line{{"syn", 79, nil, accepted, classBegun}, {"synack", 80, nil, accepted, classBegun}, {"up", 0, cat(hello, []byte("PING")), dropped, classBegun}, {"up", 80, hello, accepted, H}}},
		{"plaintext queued before it is on", "pg", off, []line{{"up", 8, pgStartup, accepted, classBegun | ungated}, {"on", 0, nil, "", 0}, {"up", 0, pgSSL, dropped, classBegun | ungated}}},
		{"on cuts plaintext", "redis", off, []line{{"up", 0, []byte("PING"), accepted, P}, {"on", 0, nil, "", 0}, {"down", 4, []byte("+PONG"), dropped, P}, {"down", 4, nil, accepted, P}, {"up", 4, []byte("PING"), rejected, R}}},
		{"on leaves tls alone", "redis", off, []line{{"up", 0, hello, accepted, H | ungated}, {"down", n(hello), serverHi, accepted, T}, {"on", 0, nil, "", 0}, {"up", 50, []byte("x"), accepted, T}, {"down", 50, []byte("x"), accepted, T}}},
		{"on in front of the first byte", "redis", off, []line{{"on", 0, nil, "", 0}, {"up", 0, hello, accepted, H}, {"down", n(hello), serverHi, accepted, T}}},
		{"on in the middle of a handshake", "redis", off, []line{{"up", 0, hello, accepted, H | ungated}, {"on", 0, nil, "", 0}, {"up", n(hello), []byte("x"), dropped, H | ungated}, {"down", n(hello), serverHi, accepted, T}}},
		{"on, and plaintext in place of the hello", "redis", off, []line{{"up", 0, hello, accepted, H | ungated}, {"on", 0, nil, "", 0}, {"up", 0, []byte("PING"), dropped, H | ungated}}},
		{"on, and a startup in place of the request", "pg", off, []line{{"up", 0, pgSSL, accepted, Q | ungated}, {"on", 0, nil, "", 0}, {"up", 0, pgStartup, dropped, Q | ungated}}},
		{"on in the middle of a trick", "redis", off, []line{{"up", 0, hello, accepted, H | ungated}, {"up", -1, []byte("xPIN"), accepted, H | ungated}, {"down", 3, nil, accepted, K | ungated}, {"on", 0, nil, "", 0}, {"up", 3, []byte("G\r\n"), dropped, K | ungated}, {"down", 3, []byte("+PONG"), dropped, R}}},
		{"on in the middle of a pg handshake", "pg", off, []line{{"up", 0, pgSSL, accepted, Q | ungated}, {"on", 0, nil, "", 0}, {"down", 8, []byte("S"), accepted, A}, {"up", 8, hello, accepted, H}, {"down", 8 + n(hello), serverHi, accepted, T}}},
		{"on in the middle of a mysql trick", "mysql", off, []line{{"up", 0, mySSL, accepted, Q | ungated}, {"down", 36, nil, accepted, A | ungated}, {"on", 0, nil, "", 0}, {"up", 36, hello, rejected, R}}},
		{"off again", "redis", on, []line{{"off", 0, nil, "", 0}, {"up", 0, []byte("PING"), accepted, P}}},
	})
}

// play says every line and checks what became of it.
func (c *conversation) play(t *testing.T, lines []line) {
	t.Helper()
	for i, l := range lines {
		var got outcome
		at := uint32(first + l.at)
		switch l.way {
		case "on", "off":
			c.force(t, l.way == "on")
			continue
		case "expire": // the kernel's clock: all that the database remembers is gone
			for _, set := range c.dynamic {
				clear(set)
			}
			continue
		case "fin":
			got = c.up(at, fin|ack, l.data)
		case "up":
			got = c.up(at, ack, l.data)
		case "down":
			got = c.down(at, ack, l.data)
		case "syn":
			got = c.up(at, syn, l.data)
		case "synack":
			got = c.down(at, syn|ack, l.data)
		}
		require.Equal(t, l.want, got, "line %d, %s %d", i, l.way, l.at)
		require.Equal(t, l.now, c.class(), "line %d, %s %d", i, l.way, l.at)
	}
}

// TestUnknown: connections whose beginning nobody saw (SPEC X-05).
func TestUnknown(t *testing.T) {
	cut := converse(t, "redis", true, "cut")
	require.Equal(t, dropped, cut.down(first, ack, []byte("+OK")))
	require.Equal(t, accepted, cut.up(first, rst, nil), "the client may end it")
	require.Equal(t, accepted, cut.up(first, 0x01|ack, nil), "the client may end it")
	require.Equal(t, rejected, cut.up(first, ack, nil))
	require.Equal(t, compile.ClassRefused, cut.class())

	keep := converse(t, "redis", true, "keep")
	require.Equal(t, accepted, keep.up(first, ack, []byte("PING")))
	require.Equal(t, accepted, keep.down(first, ack, []byte("+PONG")))
	require.Equal(t, compile.ClassUnknown, keep.class())
	keep.begin(t)
	require.Equal(t, rejected, keep.up(first, ack, []byte("PING")), "a beginning that was seen is judged")

	off := converse(t, "redis", false, "cut")
	require.Equal(t, accepted, off.up(first, ack, []byte("PING")))
	require.Equal(t, accepted, off.down(first, ack, []byte("+PONG")))
	require.Equal(t, compile.ClassUnknown, off.class())
}

// TestNodesAlwaysNeedTLS: where clients and nodes share a port, the source decides (SPEC C-03).
func TestNodesAlwaysNeedTLS(t *testing.T) {
	for engine, data := range map[string][]byte{"pg": pgStartup, "mysql": myNoSSL, "mongo": mongoCmd, "redis": []byte("PING")} {
		client := converse(t, engine, false, "cut").begin(t)
		require.Equal(t, accepted, client.up(first, ack, data), engine)
		peer := converse(t, engine, false, "cut")
		peer.client = netip.MustParseAddrPort("10.9.0.3:40000")
		peer.begin(t)
		require.Equal(t, rejected, peer.up(first, ack, data), engine)
		unseen := converse(t, engine, false, "cut")
		unseen.client = peer.client
		require.Equal(t, rejected, unseen.up(first, ack, data), "%s: nobody saw it begin", engine)
	}
}

// TestTheWitnessIsFaster: while a client's packet is on its way through the gate, the server's answer may move the
// connection on, on another CPU. Wherever that happens, the packet passes and the class stays.
func TestTheWitnessIsFaster(t *testing.T) {
	for _, force := range []bool{true, false} {
		for _, tt := range []struct {
			engine, at string
			data       []byte
			class      compile.Class
		}{
			{"redis", "forced", []byte("x"), compile.ClassTLS},
			{"redis", "watched", []byte("x"), compile.ClassTLS},
			{"redis", "test4", hello, compile.ClassTLS},
			{"redis", "test4", hello, compile.ClassAcknowledged},
			{"mongo", "test4", hello, compile.ClassTLS},
			{"mongo", "test4", hello, compile.ClassAcknowledged},
			{"pg", "test4", hello, compile.ClassTLS},
			{"pg", "test4", pgSSL, compile.ClassRequested},
			{"mysql", "test4", hello, compile.ClassAcknowledged},
			{"mysql", "test4", mySSL, compile.ClassAnswered},
			{"mysql", "test4", cat(mySSL, hello), compile.ClassAcknowledged},
			{"redis", "hello_sent", hello, compile.ClassTLS},
		} {
			c := converse(t, tt.engine, force, "cut").begin(t)
			c.walker.mark = uint32(tt.class) << markShift
			p := packet{proto: 6, src: c.client, dst: c.server, iif: "reg0", flags: ack, seq: first, payload: tt.data, state: stateEstablished}
			require.Equal(t, accepted, c.chain(tt.at, p), "%s at %s, class %d", tt.engine, tt.at, tt.class)
			require.Equal(t, tt.class, c.class(), "%s at %s", tt.engine, tt.at)
		}
	}
	c := converse(t, "redis", false, "cut").begin(t)
	c.walker.mark = uint32(compile.ClassTLS) << markShift
	c.chain("in_place4", packet{proto: 6, src: c.client, dst: c.server, flags: ack, seq: first, payload: hello, state: stateEstablished})
	require.Equal(t, compile.ClassTLS, c.class())
	answer := packet{proto: 6, src: c.server, dst: c.client, flags: ack, ack: first + 9, payload: []byte("x"), state: stateEstablished}
	require.Equal(t, accepted, c.chain("judge", answer))
}

func TestUntracked(t *testing.T) {
	c := converse(t, "redis", true, "keep")
	in := packet{proto: 6, src: c.client, dst: c.server, iif: "reg0", flags: ack, payload: []byte("PING"), state: 64}
	require.Equal(t, dropped, c.hookFrom(ruleset.HookPrerouting, afterConntrack, in))
	in.state = stateInvalid
	require.Equal(t, dropped, c.hookFrom(ruleset.HookPrerouting, afterConntrack, in))
	out := packet{proto: 6, src: c.server, dst: c.client, oif: "reg0", flags: ack, payload: []byte("+PONG"), state: 64}
	require.Equal(t, dropped, c.hook(ruleset.HookPostrouting, out))
	out.payload = nil
	require.Equal(t, accepted, c.hook(ruleset.HookPostrouting, out))

	c = converse(t, "redis", false, "cut")
	require.Equal(t, accepted, c.hookFrom(ruleset.HookPrerouting, afterConntrack, in))
}

// TestAnAcknowledgementAtARequestKeepsNothing: a bare acknowledgement where a request went must not make that lock outlive
// what says that a request was there. It did once, and ten seconds later a segment at the old place that begins like a
// ClientHello carried untested bytes to where the server waited for one.
func TestAnAcknowledgementAtARequestKeepsNothing(t *testing.T) {
	c := converse(t, "pg", true, "cut").begin(t)
	require.Equal(t, accepted, c.up(first, psh|ack, pgSSL))
	renewals := c.renewed["expected"]
	require.Equal(t, accepted, c.up(first, ack, nil))
	require.Equal(t, renewals, c.renewed["expected"], "it renews no lock")
	require.Equal(t, accepted, c.down(first+uint32(n(pgSSL)), psh|ack, []byte("S")))
	over := cat(hello[:9], unhex("0303"), []byte("plaintext"))
	require.Equal(t, dropped, c.up(first, psh|ack, over), "only a request may be repeated there")
	require.Equal(t, accepted, c.up(first+uint32(n(pgSSL)), psh|ack, hello))
}

// TestBytesAtARequestKeepItsNote: bytes that fail or wait where a request went renew its lock, and so they renew the note that
// a request went there, before and for longer. A server that takes its time over a request must not find the lock alone.
func TestBytesAtARequestKeepItsNote(t *testing.T) {
	c := converse(t, "pg", true, "cut").begin(t)
	require.Equal(t, accepted, c.up(first, psh|ack, pgSSL))
	locks, notes := c.renewed["expected"], c.renewed["requested"]
	require.Equal(t, dropped, c.up(first, psh|ack, pgGSS), "late")
	require.Greater(t, c.renewed["expected"], locks)
	require.Greater(t, c.renewed["requested"], notes)
}

// TestLocks that the rules make are told from planted ones.
func TestLocks(t *testing.T) {
	const connection, other, place = "\x01\x02\x03\x04", "\x05\x06\x07\x08", "\x10\x20\x30\x40"
	for _, tt := range []struct {
		name     string
		place    string
		requests map[ruleset.Key]bool
		latest   map[ruleset.Key]string
		lock     bool
	}{
		{"a mark of freshness", connection, nil, nil, true},
		{"the latest", place, nil, map[ruleset.Key]string{connection: place}, true},
		{"where a request went", place, map[ruleset.Key]bool{connection + place: true}, nil, true},
		{"the one before a challenge", place, nil, map[ruleset.Key]string{connection: "\x00\x00\x00\x01"}, true},
		{"of no connection", place, nil, nil, false},
		{"of another connection", place, map[ruleset.Key]bool{other + place: true}, map[ruleset.Key]string{other: place}, false},
		{"not the latest", place, nil, map[ruleset.Key]string{connection: "\x10\x20\x30\x41"}, false},
	} {
		require.Equal(t, tt.lock, compile.IsLock(connection+ruleset.Key(tt.place), tt.requests, tt.latest), tt.name)
	}
}
