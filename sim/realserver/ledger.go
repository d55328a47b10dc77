package realserver

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"drawbridge/sim/endpoint"
)

// ledger turns what a server's log says into events of the journal, connection by connection. The log's own name of a
// connection, a process, a thread or a client's address, is its key here.
type ledger struct {
	cfg Config

	mu       sync.Mutex
	conns    map[string]*conversation
	barriers map[string]chan struct{}
	count    int
	settled  chan struct{} // closed and replaced when a conversation stops holding events back
}

// conversation is one connection.
type conversation struct {
	id            uint64
	remote, local netip.AddrPort
	tls           bool
	begun         bool // the log has said that it was accepted
	ended         bool // and that it is over; what another of the server's logs says later still belongs to it
	known         bool // the client is known, and events go to the journal
	own           bool // the lab's own, not a client's
	held          []endpoint.Event
}

func newLedger(cfg Config) *ledger {
	return &ledger{
		cfg: cfg, conns: make(map[string]*conversation), barriers: make(map[string]chan struct{}), settled: make(chan struct{}),
	}
}

// barrierText begins every barrier.
const barrierText = "drawbridge-barrier-"

// expect returns a text that no log holds yet, and a channel that is closed once this one does.
func (l *ledger) expect() (string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	// With an end of its own: 1 must not be found in 10.
	text, seen := fmt.Sprintf("%s%d-", barrierText, l.count), make(chan struct{})
	l.barriers[text] = seen
	return text, seen
}

func (l *ledger) forget(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.barriers, text)
}

// arrived closes the barrier that a line of the log holds, if it holds one.
func (l *ledger) arrived(line string) {
	if !strings.Contains(line, barrierText) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for text, seen := range l.barriers {
		if strings.Contains(line, text) {
			close(seen)
			delete(l.barriers, text)
		}
	}
}

// change applies to a connection, which is made if the log has not named it before.
func (l *ledger) change(key string, apply func(*conversation)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.conns[key]
	if !ok {
		c = &conversation{}
		l.conns[key] = c
	}
	apply(c)
}

// accepted: the server took a connection, whose key may have belonged to another before. It is known at once if the server
// says all there is to know of the client; otherwise identify has to be called.
func (l *ledger) accepted(key string, remote netip.AddrPort, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, ok := l.conns[key]
	if !ok || c.begun || c.ended {
		c = &conversation{}
		l.conns[key] = c
	}
	l.begin(c)
	if known {
		c.remote = remote
	}
	if known || c.known { // the list of clients may be faster than the log
		l.release(c)
	}
}

// begin puts the acceptance before everything that was held back. The caller holds the lock.
func (l *ledger) begin(c *conversation) {
	c.begun = true
	at := l.cfg.Now()
	if len(c.held) > 0 { // another of the server's logs was faster
		at = c.held[0].At
	}
	c.held = append([]endpoint.Event{{Kind: endpoint.Accepted, At: at}}, c.held...)
}

// identify says who the client is, if that was not known before. tls: the port is one for TLS only, and so was all that the
// client said.
func (l *ledger) identify(key string, remote, local netip.AddrPort, tls bool) {
	l.change(key, func(c *conversation) {
		if c.known || c.own {
			return
		}
		c.remote, c.local, c.tls = remote, local, c.tls || tls
		for i := range c.held {
			c.held[i].TLS = c.held[i].TLS || tls && c.held[i].Kind != endpoint.Accepted
		}
		l.release(c)
	})
}

// disown takes a connection for the lab's own.
func (l *ledger) disown(key string) {
	l.change(key, func(c *conversation) { c.own, c.held = true, nil })
}

// secured: the TLS handshake is complete.
func (l *ledger) secured(key string) {
	l.change(key, func(c *conversation) {
		if !c.tls {
			c.tls = true
			l.add(c, endpoint.Event{Kind: endpoint.TLS, TLS: true})
		}
	})
}

// said records an event of a kind whose text is a query or a reason.
func (l *ledger) said(key string, kind endpoint.Kind, text string) {
	text = text[:min(len(text), endpoint.QueryBytes)]
	l.change(key, func(c *conversation) {
		e := endpoint.Event{Kind: kind, TLS: c.tls}
		if kind == endpoint.Query {
			e.Query = text
		} else {
			e.Reason = text
		}
		l.add(c, e)
	})
}

// closed: the server is done with the connection.
func (l *ledger) closed(key, reason string) {
	l.change(key, func(c *conversation) {
		if !c.ended {
			c.ended = true
			l.add(c, endpoint.Event{Kind: endpoint.Closed, TLS: c.tls, Reason: reason})
		}
	})
}

// pending returns the connections whose client is not known yet, and a channel that is closed when that may have changed.
func (l *ledger) pending() (keys []string, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, c := range l.conns {
		if !c.known && !c.own {
			keys = append(keys, key)
		}
	}
	return keys, l.settled
}

// open returns the clients' connections that have not ended.
func (l *ledger) open() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var keys []string
	for key, c := range l.conns {
		if !c.own && !c.ended {
			keys = append(keys, key)
		}
	}
	return keys
}

// add records an event, or holds it back until the client is known. The caller holds the lock.
func (l *ledger) add(c *conversation, e endpoint.Event) {
	if c.own {
		return
	}
	e.At = l.cfg.Now()
	if !c.known {
		c.held = append(c.held, e)
		return
	}
	l.write(c, e)
}

// release writes what was held back. The caller holds the lock.
func (l *ledger) release(c *conversation) {
	if !c.known {
		c.known, c.id = true, l.cfg.Journal.NextConn()
	}
	for _, e := range c.held {
		l.write(c, e)
	}
	c.held = nil
	close(l.settled)
	l.settled = make(chan struct{})
}

func (l *ledger) write(c *conversation, e endpoint.Event) {
	e.Conn, e.Remote, e.Local = c.id, c.remote, c.local
	e.Database, e.Node = l.cfg.Database, l.cfg.Name
	l.cfg.Journal.Record(e)
}
