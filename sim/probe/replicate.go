package probe

import (
	"bytes"
	"context"
	"fmt"

	"drawbridge/sim/capture"
	"drawbridge/topology"
)

// Replication is node-to-node traffic with a known marker in it, as both nodes and the wire between them saw it
// (SPEC C-01, C-02).
type Replication struct {
	Plain, TLS Observation
	// Packets is how many packets with payload of these two connections the capture on the way to the receiving node holds.
	Packets int
	// MarkerSeen reports whether the marker stands anywhere in them.
	MarkerSeen bool
}

// Encrypted reports whether the marker arrived, over TLS, and could not be read on the wire.
func (r Replication) Encrypted() bool {
	return r.TLS.Verdict == Served && r.Packets > 0 && !r.MarkerSeen
}

// Replicate sends a marker from one node of a cluster to another the way a careless node would: to plain without TLS if
// that is served, and to tls over TLS as well. The two are ports of one node; one and the same where the engine negotiates
// TLS on it. The capture is taken where the packets arrive for the receiving node.
func (p *Prober) Replicate(ctx context.Context, from string, plain, tls topology.Endpoint) (Replication, error) {
	ns, ok := p.receiver(plain)
	if other, found := p.receiver(tls); !ok || !found || other != ns {
		return Replication{}, fmt.Errorf("%w: %s and %s are not ports of one node of the lab", ErrSpec, plain.Addr, tls.Addr)
	}
	node, found := p.lab.Node(ns)
	if !found {
		return Replication{}, fmt.Errorf("%w: the lab has no node %q", ErrSpec, ns)
	}
	tap, err := capture.Open(node)
	if err != nil {
		return Replication{}, fmt.Errorf("capture at %s: %w", ns, err)
	}
	packets, _ := tap.Subscribe(nil)
	var r Replication
	r.Plain, err = p.Probe(ctx, Spec{From: from, To: plain, Mode: Plain})
	if err == nil {
		r.TLS, err = p.Probe(ctx, Spec{From: from, To: tls, Mode: TLS})
	}
	if closeErr := tap.Close(); err == nil {
		err = closeErr
	}
	for packet := range packets {
		r.count(packet)
	}
	return r, err
}

// markerPrefix begins every marker.
var markerPrefix = []byte(markerText)

func (r *Replication) count(packet capture.Packet) {
	for _, o := range []Observation{r.Plain, r.TLS} {
		port := o.Local.Port()
		if port == 0 || (packet.Flow.Src.Port() != port && packet.Flow.Dst.Port() != port) || len(packet.Payload) == 0 {
			continue
		}
		r.Packets++
		if bytes.Contains(packet.Payload, markerPrefix) {
			r.MarkerSeen = true
		}
	}
}

// receiver names the namespace in which the node of an endpoint lives.
func (p *Prober) receiver(to topology.Endpoint) (string, bool) {
	db, ok := p.world.Database(to.Database)
	if !ok {
		return "", false
	}
	for _, n := range db.Nodes {
		if n.Name == to.Node {
			return n.Listener(), true
		}
	}
	return "", false
}
