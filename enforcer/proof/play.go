package proof

import (
	"encoding/binary"
	"net/netip"

	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/reach"
	"drawbridge/enforcer/ruleset"
)

// Packet is what became of one packet of a conversation that was played against a table.
type Packet struct {
	// What it is, and which way it goes.
	What string `json:"packet"`
	// Outcome: "pass", "drop", "reject", or "undecided" if that depends on what a table cannot tell.
	Outcome string `json:"outcome"`
	// Steps are the rules that it met and that matched.
	Steps []reach.Step `json:"steps"`
}

// What becomes of one packet, besides to pass and to be dropped.
const (
	rejected  = "reject"
	undecided = "undecided"
)

// Client is who speaks to which port by which interface.
type Client struct {
	From      netip.Addr
	Interface string
	To        netip.AddrPort
	// Server: the source is an address of a server here, so that only routes tell whether it comes from outside.
	Server bool
}

// Line is something that one side says once the TCP handshake is done.
type Line struct {
	What       string
	FromServer bool
	Payload    []byte
}

// Sequence numbers and port of a conversation that is played.
const (
	clientISN  = 1000
	serverISN  = 2000
	clientPort = 40000
)

// Stage is a table against which connections are played. Use it from one goroutine at a time.
type Stage struct{ machine *reach.Machine }

// StageOf reads a table. It is an error if it is none that a kernel could hold.
func StageOf(t ruleset.Table) (Stage, error) {
	m, err := reach.New(t)
	return Stage{m}, err
}

// Play sends the packets of one connection through the rules, one after the other: SYN, SYN-ACK, then what is said. The
// rules remember what they would of this connection. It ends with the first packet that does not pass.
func (s Stage) Play(c Client, lines []Line) (packets []Packet, passed bool) {
	p := player{machine: s.machine, client: c, memory: reach.Memory{}, seq: clientISN, ack: serverISN}
	ok := p.send("a SYN from the client", false, flagSYN, nil) && p.send("the SYN-ACK of the server", true, flagSYN|flagACK, nil)
	if ok && len(lines) > 0 {
		ok = p.send("the client's ACK", false, flagACK, nil)
	}
	for i := 0; ok && i < len(lines); i++ {
		ok = p.send(lines[i].What, lines[i].FromServer, flagPSH|flagACK, lines[i].Payload)
	}
	return p.packets, ok
}

// player plays one connection. seq and ack are the next sequence numbers of client and server.
type player struct {
	machine  *reach.Machine
	client   Client
	memory   reach.Memory
	mark     uint32
	seq, ack uint32
	packets  []Packet
}

func (p *player) send(what string, fromServer bool, flags byte, payload []byte) (passed bool) {
	c := p.client
	packet := anything(c.To, c.Interface)
	seq, ack, length := &p.seq, &p.ack, uint32(len(payload))
	state, direction := uint32(stateEstablished), byte(directionOriginal)
	if fromServer {
		packet, direction, seq, ack = fragmented(withPort(toClient(c.To.Addr(), c.Interface, protoTCP), ruleset.THSport, c.To.Port()), 0, false), directionReply, ack, seq
		packet = withPort(packet, ruleset.THDport, clientPort)
	} else {
		packet = withPort(packet, ruleset.THSport, clientPort)
	}
	if flags == flagSYN {
		state = stateNew
	}
	packet = plain(packet, flags, state, direction)
	packet.Memory = p.memory
	packet.Payload = reach.Payload{Length: reach.Exact, Bytes: payload}
	packet.Known.Set(ruleset.CTMark, native(p.mark))
	packet.Known.Set(ruleset.TCPSeq, binary.BigEndian.AppendUint32(nil, *seq))
	packet.Known.Set(ruleset.TCPAckSeq, binary.BigEndian.AppendUint32(nil, *ack))
	if !c.Server {
		packet.Known.Set(ruleset.FibSaddrIIFOIF, native(anyIndex))
	}
	if c.Interface == loopback {
		packet.NotLoopback = false
		packet.Known.Set(ruleset.MetaIIF, loopbackIndex)
		packet.Known.Set(ruleset.MetaOIF, loopbackIndex)
	}
	if flags&flagSYN != 0 {
		length = 1 // a SYN takes a sequence number (RFC 9293 section 3.4)
	}
	*seq += length
	one := Packet{What: what}
	var out reach.Outcome
	out, p.mark = p.machine.RunMark(packet, addrset.Addrs(c.From), func(s reach.Step) { one.Steps = append(one.Steps, s) })
	one.Outcome = outcome(out)
	p.packets = append(p.packets, one)
	return one.Outcome == passes
}

func outcome(o reach.Outcome) string {
	switch accept, drop, reject := !o.Accept.IsEmpty(), !o.Drop.IsEmpty(), !o.Reject.IsEmpty(); {
	case accept && !drop && !reject:
		return passes
	case drop && !accept && !reject:
		return dropped
	case reject && !accept && !drop:
		return rejected
	}
	return undecided
}

// Bytes of the protocols, as far as they decide. A ClientHello and a ServerHello (RFC 8446 sections 4.1.2 and 4.1.3) are
// longer; what follows is the client's affair.
var (
	clientHello = []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a}
	serverHello = []byte{0x16, 3, 3, 0, 0x7a, 2, 0, 0, 0x76, 3, 3, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a}
	pgRequest   = []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}                                             // SSLRequest
	pgStartup   = append([]byte{0, 0, 0, 0x17, 0, 3, 0, 0}, "user\x00somebody\x00\x00"...)               // StartupMessage
	myRequest   = append([]byte{0x20, 0, 0, 1, 0x0d, 0xaa, 8, 0, 0, 0, 0, 1, 0x2d}, make([]byte, 23)...) // with CLIENT_SSL
	myLogin     = append([]byte{0x20, 0, 0, 1, 0x0d, 0xa2, 0, 0, 0, 0, 0, 1, 0x2d}, make([]byte, 23)...) // without
	ping        = []byte("*1\r\n$4\r\nPING\r\n")
)

// Plaintext is what a client says that does not speak TLS, by the way in which its port negotiates (intent.Target).
func Plaintext(negotiates string) []Line {
	switch negotiates {
	case "postgresql":
		return []Line{{What: "the client's startup packet, in plaintext", Payload: pgStartup}}
	case "mysql":
		return []Line{{What: "the client's login, in plaintext", Payload: myLogin}}
	}
	return []Line{{What: "the client's first bytes, in plaintext", Payload: ping}}
}

// TLS is what client and server say until both speak TLS.
func TLS(negotiates string) []Line {
	hello := []Line{{What: "the client's ClientHello", Payload: clientHello}, {What: "the server's ServerHello", FromServer: true, Payload: serverHello}}
	switch negotiates {
	case "postgresql":
		return append([]Line{{What: "the client's SSLRequest", Payload: pgRequest}, {What: "the server's consent", FromServer: true, Payload: []byte("S")}}, hello...)
	case "mysql":
		return append([]Line{{What: "the client's SSLRequest", Payload: myRequest}, {What: "the server's acknowledgement", FromServer: true}}, hello...)
	}
	return hello
}
