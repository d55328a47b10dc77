package evade

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"net"
	"sync"

	"drawbridge/topology"
)

// marker is in everything that is sent in plaintext.
const marker = "evasion-marker"

func containsMarker(b []byte) bool { return bytes.Contains(b, []byte(marker)) }

// wire is what an engine's client and server say, byte by byte.
type wire struct {
	greeting []byte // of the server, before anything else
	request  []byte // for TLS, where that is negotiated inside the protocol
	plain    []byte // the first thing that a client without TLS says, with the marker in it
	hello    []byte // a ClientHello
	noTLS    func(read []byte) []byte
}

// opening is the first thing that a client with TLS says.
func (w wire) opening() []byte {
	if len(w.request) > 0 {
		return w.request
	}
	return w.hello
}

// PostgreSQL's packets before the startup packet ("Message Formats": SSLRequest, GSSENCRequest).
var (
	pgSSLRequest    = []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}
	pgGSSENCRequest = []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30}
)

// MySQL's client capabilities ("Capability Flags"): CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION, and CLIENT_SSL.
const (
	mysqlPlainCapabilities = 0x0000_8200
	mysqlClientSSL         = 0x0000_0800
	mysqlRequestSize       = 36
	mysqlCapabilitySSL     = 5 // offset of the byte with CLIENT_SSL
)

// mysqlHead is the first part of a HandshakeResponse41: after the packet's header, what an SSLRequest consists of.
func mysqlHead(sequence byte, capabilities uint32, behind int) []byte {
	size := 32 + behind
	b := []byte{byte(size), byte(size >> 8), byte(size >> 16), sequence}
	b = binary.LittleEndian.AppendUint32(b, capabilities)
	b = binary.LittleEndian.AppendUint32(b, 1<<24) // maximum packet size
	b = append(b, 45)                              // utf8mb4
	return append(b, make([]byte, 23)...)
}

func mysqlLogin(capabilities uint32, size int) []byte {
	tail := append([]byte(marker), make([]byte, max(size-32-len(marker), 2))...) // user, empty authentication data
	return append(mysqlHead(1, capabilities, len(tail)), tail...)
}

// mysqlGreeting is a HandshakeV10 of a server without TLS.
var mysqlGreeting = func() []byte {
	body := append([]byte{10}, "8.0.0-bare\x00"...)
	body = append(body, 1, 0, 0, 0)                     // connection
	body = append(body, "abcdefgh\x00"...)              // challenge, first part
	body = append(body, 0x00, 0x82, 45, 2, 0, 0, 0, 21) // capabilities, character set, status, capabilities, length
	body = append(body, make([]byte, 10)...)            // reserved
	body = append(body, "ijklmnopqrst\x00"...)          // challenge, second part
	return append([]byte{byte(len(body)), 0, 0, 0}, body...)
}()

func pgStartup() []byte {
	body := append([]byte{0, 3, 0, 0}, "user\x00"+marker+"\x00\x00"...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(4+len(body))), body...)
}

// mongoCommand is an OP_MSG whose header begins like a TLS record (length, request, in answer to, code; little-endian), as far as it
// can: a command answers nothing, so the third number is 0.
func mongoCommand(length, request uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, length)
	b = binary.LittleEndian.AppendUint32(b, request)
	b = append(b, 0, 0, 0, 0, 0xdd, 7, 0, 0, 0, 0, 0, 0, 0)
	return append(b, marker...)
}

// wireOf returns what an engine's client and server say.
func wireOf(e topology.Engine) wire {
	w := wire{hello: clientHello(""), noTLS: func([]byte) []byte { return []byte("+PONG\r\n") }}
	switch e {
	case topology.PostgreSQL:
		w.hello = clientHello("postgresql")
		w.request, w.plain = pgSSLRequest, pgStartup()
		w.noTLS = pgNoTLS
	case topology.MySQL:
		w.greeting = mysqlGreeting
		w.request, w.plain = mysqlHead(1, mysqlPlainCapabilities|mysqlClientSSL, 0), mysqlLogin(mysqlPlainCapabilities, 0)
		w.noTLS = mysqlNoTLS
	case topology.MongoDB:
		w.plain = mongoCommand(uint32(29+len(marker)), 1)
	case topology.OpenSearch, topology.InfluxDB:
		w.plain = []byte("GET /" + marker + " HTTP/1.0\r\n\r\n")
	default:
		w.plain = []byte("PING " + marker + "\r\n")
	}
	return w
}

func pgNoTLS(read []byte) []byte {
	if bytes.Equal(read, pgSSLRequest) || bytes.Equal(read, pgGSSENCRequest) {
		return []byte("N")
	}
	return []byte("R\x00\x00\x00\x08\x00\x00\x00\x00") // AuthenticationOk
}

func mysqlNoTLS(read []byte) []byte {
	if len(read) == mysqlRequestSize && read[mysqlCapabilitySSL]&(mysqlClientSSL>>8) != 0 {
		return nil // it waits for a ClientHello
	}
	return []byte{7, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0} // OK
}

// clientHello returns a real ClientHello of one segment.
func clientHello(protocol string) []byte {
	hellos.Lock()
	defer hellos.Unlock()
	if b, ok := hellos.made[protocol]; ok {
		return b
	}
	config := &tls.Config{ServerName: "evade.invalid", CurvePreferences: []tls.CurveID{tls.X25519}, MinVersion: tls.VersionTLS12}
	if protocol != "" {
		config.NextProtos = []string{protocol}
	}
	here, there := net.Pipe()
	go func() {
		_ = tls.Client(here, config).Handshake() // nobody answers: it ends with the pipe
		_ = here.Close()
	}()
	buf := make([]byte, 4096)
	n, _ := there.Read(buf) // the whole record: a pipe keeps writes together
	_ = there.Close()
	if hellos.made == nil {
		hellos.made = map[string][]byte{}
	}
	hellos.made[protocol] = buf[:n]
	return buf[:n]
}

var hellos struct {
	sync.Mutex
	made map[string][]byte // by application protocol
}

// plaintext returns what an engine's server takes for its own protocol's plaintext, beyond a request for TLS.
func plaintext(e topology.Engine, stream []byte) []byte {
	switch e {
	case topology.PostgreSQL:
		for bytes.HasPrefix(stream, pgSSLRequest) || bytes.HasPrefix(stream, pgGSSENCRequest) {
			stream = stream[len(pgSSLRequest):]
		}
	case topology.MySQL:
		if !isMySQLRequest(stream) {
			return stream
		}
		stream = stream[mysqlRequestSize:]
	case topology.MongoDB:
		// A server tells TLS by a header that claims to answer something (bytes 8 to 11).
		if len(stream) >= 12 && binary.LittleEndian.Uint32(stream[8:]) == 0 {
			return stream
		}
	}
	if beginsTLS(stream) {
		return nil
	}
	return stream
}

func isMySQLRequest(b []byte) bool {
	return len(b) >= mysqlRequestSize && bytes.HasPrefix(b, []byte{32, 0, 0, 1}) && b[mysqlCapabilitySSL]&(mysqlClientSSL>>8) != 0
}

// beginsTLS reports whether a stream begins with a TLS record of type handshake with a ClientHello in it that is shorter than 64
// KiB (RFC 8446 sections 5.1 and 4): seven bytes tell it.
func beginsTLS(b []byte) bool {
	return len(b) >= 7 && b[0] == 0x16 && b[1] == 3 && b[2] >= 1 && b[2] <= 3 && b[5] == 1 && b[6] == 0
}
