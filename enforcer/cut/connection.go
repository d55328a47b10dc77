package cut

import "net/netip"

// Connection is a TCP connection towards this host or through it, as the kernel shows it.
type Connection struct {
	// Client is the client's address and port, as its packets carry them when they reach this host.
	Client netip.AddrPort
	// Endpoint is where the client sent them to.
	Endpoint netip.AddrPort
	// Server is where they end: Endpoint, unless this host translates the destination.
	Server netip.AddrPort
	// Tracked tells whether the connection tracking table has an entry; without, Mark is 0.
	Tracked bool
	// Mark is the entry's mark.
	Mark uint32
	// Local tells whether the server's socket is on this host.
	Local bool
}

// Judge decides about connections. Its methods are pure and are called for every TCP connection that the host knows.
type Judge interface {
	// Protects tells whether the connection is to something under protection; others are never touched.
	Protects(Connection) bool
	// Allows tells whether a protected connection may go on.
	Allows(Connection) bool
}

// entry is a connection with what it takes to end it.
type entry struct {
	Connection
	tracking *tracking // nil: none
	socket   *socket   // nil: none on this host
}

// clientAsServerSees is the client's address and port behind this host's own source NAT, if any.
func (e entry) clientAsServerSees() netip.AddrPort {
	if e.tracking != nil {
		return e.tracking.reply.dst
	}
	return e.Client
}

// track says what the connection tracking table knows about a connection. An entry that began with a packet of the
// server (its first one was never seen) has its directions exchanged, and no translation to tell about.
func (e *entry) track(t *tracking) {
	e.tracking = t
	if t == nil {
		return
	}
	e.Tracked, e.Mark = true, t.mark
	if e.socket != nil && reverse(t.original) == e.socket.atServer() {
		return
	}
	e.Client, e.Endpoint, e.Server = t.original.src, t.original.dst, t.reply.src
}

// atServer is the direction of packets that arrive at a socket.
func (s socket) atServer() tuple { return tuple{src: s.remote, dst: s.local} }

// fromSockets makes a connection of every socket of this host. One whose other end is on this host as well is loopback
// traffic, which is not judged (SPEC G-02).
func fromSockets(sockets []socket) map[tuple]*entry {
	entries := make(map[tuple]*entry, len(sockets))
	for i, s := range sockets {
		entries[s.atServer()] = &entry{socket: &sockets[i], Connection: Connection{Client: s.remote, Endpoint: s.local, Server: s.local, Local: true}}
	}
	for _, s := range sockets {
		if other := reverse(s.atServer()); entries[other] != nil {
			delete(entries, other)
			delete(entries, s.atServer())
		}
	}
	return entries
}

// fromTracking adds the connections that only the tracking table knows, and what it knows about the others.
func fromTracking(entries map[tuple]*entry, tracked []tracking) {
	for i := range tracked {
		t := &tracked[i]
		at := reverse(t.reply)
		e := entries[at]
		if e == nil {
			e = &entry{}
			entries[at] = e
		}
		e.track(t)
	}
}
