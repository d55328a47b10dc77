package probe

import (
	"context"
	"net"
	"strings"
)

// dialAndTell is the client's way into the network: it records that the handshake was completed.
func (p *Prober) dialAndTell(t *track, d *dialer) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := d.dial(ctx)
		if err == nil {
			t.update(func(e *Evidence) { e.Connected = true })
		}
		return conn, err
	}
}

// containsMarker reports whether a journalled query is the one with the marker.
func containsMarker(query, marker string) bool { return strings.Contains(query, marker) }
