package evade

import (
	"bytes"
	"slices"

	"drawbridge/topology"

	"github.com/gopacket/gopacket/layers"
)

func noOperations(n int) []layers.TCPOption {
	out := make([]layers.TCPOption, n)
	for i := range out {
		out[i] = layers.TCPOption{OptionType: layers.TCPOptionKindNop, OptionLength: 1}
	}
	return out
}

var inBand = []topology.Engine{topology.PostgreSQL, topology.MySQL}

// requests misuse the engines' own ways to TLS.
func requests() []Attempt { return slices.Concat(anyRequests(), pgRequests(), otherRequests()) }

func anyRequests() []Attempt {
	return []Attempt{
		{Name: "request with plaintext behind it", Idea: "what follows a request in one segment is not looked at", engines: inBand, play: func(s *script) {
			s.connect()
			s.data(0, append(bytes.Clone(s.wire.request), s.wire.plain...))
		}},
		{Name: "request, then plaintext at once", Idea: "what follows a request is not looked at", engines: inBand, play: func(s *script) {
			s.connect()
			s.data(0, s.wire.request)
			s.data(len(s.wire.request), s.wire.plain)
		}},
		{Name: "request, then plaintext after the answer", Idea: "a server that says no is believed to say yes", engines: inBand, play: func(s *script) {
			s.connect()
			s.data(0, s.wire.request)
			s.consent()
			s.data(len(s.wire.request), s.wire.plain)
		}},
		{Name: "request with one byte behind it", Idea: "one byte is not plaintext", engines: inBand, play: func(s *script) {
			s.connect()
			s.data(0, append(bytes.Clone(s.wire.request), s.wire.plain[0]))
			s.data(len(s.wire.request)+1, s.wire.plain[1:])
		}},
		{Name: "request in two segments, plaintext in the second", Idea: "half a request is let through", engines: inBand, play: func(s *script) {
			s.connect()
			half := len(s.wire.request) - 1
			s.data(0, s.wire.request[:half])
			s.settle()
			s.data(half, append(s.wire.request[half:len(s.wire.request):len(s.wire.request)], s.wire.plain...))
		}},
		{Name: "request, then a longer one in its place", Idea: "the server has the beginning already and takes the rest", engines: inBand, play: func(s *script) {
			s.connect()
			s.data(0, s.wire.request)
			s.consent()
			n := len(s.wire.request)
			s.data(0, append(bytes.Clone(s.wire.hello[:n]), s.wire.plain...))
			s.settle()
			s.data(n, s.wire.plain)
		}},
		{Name: "request in the place of plaintext", Idea: "the server has other bytes there", engines: inBand, play: func(s *script) {
			s.connect()
			s.data(1, s.wire.plain[1:])
			s.settle()
			s.data(0, s.wire.request)
			s.consent()
			s.data(0, s.wire.plain)
		}},
	}
}

func pgRequests() []Attempt {
	pg := []topology.Engine{topology.PostgreSQL}
	return []Attempt{
		{Name: "two requests", Idea: "the second is not looked at", engines: pg, play: func(s *script) {
			s.connect()
			s.data(0, append(bytes.Clone(pgSSLRequest), pgSSLRequest...))
			s.settle()
			s.data(16, s.wire.plain)
			s.data(8, s.wire.plain)
			s.data(0, s.wire.plain)
		}},
		{Name: "GSSAPI and TLS requested at once", Idea: "the answer to one is taken for that to the other", engines: pg, play: func(s *script) {
			s.connect()
			s.data(0, append(bytes.Clone(pgGSSENCRequest), append(bytes.Clone(pgSSLRequest), s.wire.plain...)...))
		}},
		{Name: "GSSAPI refused, then plaintext", Idea: "a server that says no is not believed", engines: pg, play: func(s *script) {
			s.connect()
			s.data(0, pgGSSENCRequest)
			s.answer()
			s.data(8, s.wire.plain)
		}},
		{Name: "GSSAPI refused, then plaintext across the request", Idea: "the old place is still looked at", engines: pg, play: func(s *script) {
			s.connect()
			s.data(0, pgGSSENCRequest)
			s.answer()
			s.data(0, append(bytes.Clone(s.wire.hello[:8]), s.wire.plain...))
			s.settle()
			s.data(8, s.wire.plain)
		}},
		{Name: "GSSAPI refused, TLS requested, then plaintext across both", Idea: "as before, two places ago", engines: pg, play: func(s *script) {
			s.connect()
			s.data(0, pgGSSENCRequest)
			s.answer()
			s.data(8, pgSSLRequest)
			s.answer()
			s.data(8, append(bytes.Clone(s.wire.hello[:8]), s.wire.plain...))
			s.data(0, append(bytes.Clone(s.wire.hello[:16]), s.wire.plain...))
			s.settle()
			s.data(16, s.wire.plain)
		}},
		{Name: "cancel request", Idea: "it is as long as no other and has no marker: the key of a session", engines: pg, play: func(s *script) {
			s.connect()
			s.data(0, []byte{0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e, 0, 0, 0, 1, 0, 0, 0, 2})
		}},
	}
}

func otherRequests() []Attempt {
	my, mongo := []topology.Engine{topology.MySQL}, []topology.Engine{topology.MongoDB}
	return []Attempt{
		{Name: "login without CLIENT_SSL", Idea: "the flag is not looked at", engines: my, play: func(s *script) {
			s.connect()
			s.data(0, mysqlHead(1, mysqlPlainCapabilities, 0))
			s.settle()
			s.data(0, s.wire.plain)
		}},
		{Name: "login with CLIENT_SSL", Idea: "the flag alone is looked at", engines: my, play: func(s *script) {
			s.connect()
			s.data(0, mysqlLogin(mysqlPlainCapabilities|mysqlClientSSL, 0))
		}},
		{Name: "login of 790 bytes", Idea: "it begins like a record: 16 03", engines: my, play: func(s *script) {
			s.connect()
			s.data(0, mysqlLogin(mysqlPlainCapabilities, 0x0316))
		}},
		{Name: "login of 66,326 bytes", Idea: "it begins like a record of TLS 1.0 with a hello in it", engines: my, play: func(s *script) {
			s.connect()
			login := mysqlLogin(0x0182, 0x01_0316)
			login[9], login[10] = 3, 3 // of the maximum packet size: where a ClientHello has its version
			s.data(0, login[:1200])
		}},
		{Name: "request with sequence number 2", Idea: "the number is not looked at", engines: my, play: func(s *script) {
			s.connect()
			s.data(0, append(mysqlHead(2, mysqlPlainCapabilities|mysqlClientSSL, 0), s.wire.plain...))
		}},
		{Name: "request, then a login as if it were a record", Idea: "after a request everything that begins like a record is let through", engines: my, play: func(s *script) {
			s.connect()
			s.data(0, s.wire.request)
			s.consent()
			s.data(mysqlRequestSize, mysqlLogin(mysqlPlainCapabilities, 0x0316))
		}},
		{Name: "command that begins like a hello", Idea: "7 bytes of it are 16 03 01 00 00 01 00", engines: mongo, play: func(s *script) {
			s.connect()
			s.data(0, mongoCommand(0x0001_0316, 0x0000_0100))
		}},
		{Name: "command that begins like a hello, in two segments", Idea: "7 bytes are enough, and the rest is not looked at", engines: mongo, play: func(s *script) {
			s.connect()
			command := mongoCommand(0x0001_0316, 0x0000_0100)
			s.data(8, command[8:])
			s.data(0, command[:8])
			s.settle()
			s.data(8, command[8:])
		}},
	}
}

// consent waits for what the server makes of a request.
func (s *script) consent() {
	if s.to.Engine == topology.PostgreSQL {
		s.answer()
		return
	}
	s.acknowledged(len(s.wire.request))
}
