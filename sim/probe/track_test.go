package probe

import (
	"net/netip"
	"testing"

	"drawbridge/sim/capture"
	"drawbridge/topology"
	"drawbridge/topology/flow"

	"github.com/stretchr/testify/require"
)

// TestAnEarlierConnectionOfThePortIsNotThisOne: an end of a connection that was cut repeats what it has to say, to whoever has the port by then.
func TestAnEarlierConnectionOfThePortIsNotThisOne(t *testing.T) {
	const isn, before = 1_000_000, 3_000_000_000
	const ack, synAck, finAck, pshAck = capture.ACK, capture.SYN | capture.ACK, capture.FIN | capture.ACK, capture.PSH | capture.ACK
	clientAddr, server := netip.MustParseAddrPort("203.0.113.7:20000"), netip.MustParseAddrPort("192.0.2.1:5432")
	client := func(iface string, outgoing bool, flags capture.TCPFlags, seq uint32, payload string) capture.Packet {
		return capture.Packet{Iface: iface, Outgoing: outgoing, Flow: flow.Flow{Src: clientAddr, Dst: server}, Flags: flags, Seq: seq, Payload: []byte(payload)}
	}
	database := func(flags capture.TCPFlags, ack uint32) capture.Packet {
		return capture.Packet{Iface: "vpc", Flow: flow.Flow{Src: server, Dst: clientAddr}, Flags: flags, Seq: 5, Ack: ack, Payload: []byte("more")}
	}
	syn := client("internet", false, capture.SYN, isn, "")
	denied := Evidence{SYNEntered: true, SYNs: 1}
	for name, c := range map[string]struct {
		packets []capture.Packet
		want    Evidence
	}{
		"the database ends the connection before":             {[]capture.Packet{syn, database(finAck, before)}, denied},
		"of which the client had said more":                   {[]capture.Packet{syn, database(pshAck, isn+652_615_813)}, denied},
		"or less":                                             {[]capture.Packet{syn, database(pshAck, isn-1)}, denied},
		"nothing acknowledged":                                {[]capture.Packet{syn, database(pshAck, isn)}, denied},
		"its half-open one":                                   {[]capture.Packet{syn, database(synAck, before)}, denied},
		"before anything is said":                             {[]capture.Packet{database(finAck, before)}, Evidence{}},
		"the client of the connection before ends it":         {[]capture.Packet{syn, client("internet", false, finAck, before, "bye")}, denied},
		"and is let through, as what begins now would not be": {[]capture.Packet{syn, client("vpc", true, finAck, before, "bye")}, denied},

		"let through":                      {[]capture.Packet{syn, client("vpc", true, capture.SYN, isn, "")}, Evidence{SYNEntered: true, SYNs: 1, SYNLeft: true}},
		"let through under another number": {[]capture.Packet{syn, client("vpc", true, capture.SYN, before, "")}, Evidence{SYNEntered: true, SYNs: 1, SYNLeft: true}},
		"answered":                         {[]capture.Packet{syn, database(synAck, isn+1)}, Evidence{SYNEntered: true, SYNs: 1, SYNLeft: true}},
		"heard": {[]capture.Packet{syn, client("internet", false, ack, isn+1, ""), client("internet", false, pshAck, isn+1, "hello"), database(ack, isn+6)},
			Evidence{SYNEntered: true, SYNs: 1, Connected: true, PayloadEntered: 5, SYNLeft: true, PayloadLeft: 5}},
		"much is said": {[]capture.Packet{
			syn, client("internet", false, pshAck, isn+1, string(make([]byte, slack))), client("internet", false, pshAck, isn+1+slack, string(make([]byte, slack))),
			client("vpc", true, pshAck, isn+1+slack, string(make([]byte, slack)))},
			Evidence{SYNEntered: true, SYNs: 1, Connected: true, PayloadEntered: 2 * slack, SYNLeft: true, PayloadLeft: slack}},
	} {
		t.Run(name, func(t *testing.T) {
			gateway := &watchpoint{Point: topology.Point{Model: topology.Dedicated}, vpc: map[string]bool{"vpc": true}}
			track := newTrack(Spec{}, clientAddr.Port(), "", gateway)
			for _, p := range c.packets {
				track.see(p)
			}
			got, _ := track.snapshot()
			require.Equal(t, c.want, got)
		})
	}
}
