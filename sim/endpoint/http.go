package endpoint

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
)

// Headers that the engines take from a request and give back with its answer.
const (
	// OpaqueID is OpenSearch's and Elasticsearch's.
	OpaqueID = "X-Opaque-Id"
	// RequestID is InfluxDB's.
	RequestID = "X-Request-Id"
)

// httpService is what an engine does on top of HTTP.
type httpService struct {
	echo    string // name of the header that is given back
	headers map[string]string
	routes  map[string]any // path to the body of the answer; nil means 204
}

var openSearchService = httpService{
	echo: OpaqueID,
	routes: map[string]any{"/": map[string]any{
		"name": "drawbridge", "cluster_name": "drawbridge", "tagline": "The OpenSearch Project: https://opensearch.org/",
		"version": map[string]any{"distribution": "opensearch", "number": "2.19.0"},
	}},
}

var influxService = httpService{
	echo:    RequestID,
	headers: map[string]string{"X-Influxdb-Version": "1.11.0", "X-Influxdb-Build": "OSS"},
	routes: map[string]any{"/ping": nil, "/query": map[string]any{
		"results": []any{map[string]any{"statement_id": 0, "series": []any{map[string]any{
			"name": "databases", "columns": []string{"name"}, "values": [][]string{{Schema}},
		}}}},
	}},
}

var clusterService = httpService{
	echo:   RequestID,
	routes: map[string]any{"/cluster": map[string]any{"state": "running", "scope": "drawbridge"}},
}

// httpProtocol runs net/http's server on connections that are accepted, and decrypted, elsewhere.
type httpProtocol struct {
	service httpService
	server  *http.Server
	handoff *handoff
}

type sessionKey struct{}

func newHTTP(service httpService) protocol {
	p := &httpProtocol{service: service, handoff: &handoff{conns: make(chan net.Conn), done: make(chan struct{})}}
	p.server = &http.Server{
		Handler:           p,
		ReadHeaderTimeout: authenticationLimit,
		MaxHeaderBytes:    unitLimit,
		ErrorLog:          log.New(io.Discard, "", 0), // what goes wrong with a connection is in the journal
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, sessionKey{}, c.(*httpConn).session)
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				c.(*httpConn).finish()
			}
		},
	}
	p.handoff.wg.Go(func() { _ = p.server.Serve(p.handoff) })
	return p
}

func (p *httpProtocol) close() {
	_ = p.server.Close() // closes the handoff
	p.handoff.wg.Wait()
}

// serve gives the connection to net/http and waits until net/http is done with it.
func (p *httpProtocol) serve(s *session) error {
	if hello, err := s.beginsWithTLS(); err != nil {
		return err
	} else if hello { // net/http would wait for the end of a line
		return p.refuseTLS(s)
	}
	c := &httpConn{Conn: s.conn, session: s, finished: make(chan struct{})}
	select {
	case p.handoff.conns <- c:
	case <-p.handoff.done:
		return net.ErrClosed
	}
	<-c.finished
	if err := s.wire.end(); !errors.Is(err, os.ErrDeadlineExceeded) { // net/http interrupts its own reads that way
		return err
	}
	return nil
}

// ServeHTTP answers one request.
func (p *httpProtocol) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := r.Context().Value(sessionKey{}).(*session)
	s.unit()
	marker := r.Header.Get(p.service.echo)
	s.query(fmt.Sprintf("%s %s (%s: %s)", r.Method, r.URL, p.service.echo, marker))
	if marker != "" {
		w.Header().Set(p.service.echo, marker)
	}
	for name, value := range p.service.headers {
		w.Header().Set(name, value)
	}
	body, known := p.service.routes[r.URL.Path]
	switch {
	case !known:
		http.NotFound(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	case !authorised(r):
		w.Header().Set("WWW-Authenticate", `Basic realm="drawbridge"`)
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
	case body == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		_ = json.NewEncoder(w).Encode(body) // a failed write ends the connection, which is journalled
	}
}

func authorised(r *http.Request) bool {
	user, password, ok := r.BasicAuth()
	return ok && user == User && subtle.ConstantTimeCompare([]byte(password), []byte(Password)) == 1
}

// refusePlaintext answers with 426 Upgrade Required (RFC 9110, section 15.5.22).
func (p *httpProtocol) refusePlaintext(s *session) error {
	if _, err := s.wire.buffered.Peek(1); err != nil {
		return err
	}
	s.refuse("plaintext HTTP")
	const answer = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.2, HTTP/1.1\r\nConnection: Upgrade, close\r\nContent-Length: 0\r\n\r\n"
	if _, err := io.WriteString(s.conn, answer); err != nil {
		return err
	}
	s.linger()
	return fmt.Errorf("%w: plaintext HTTP", errRefused)
}

// refuseTLS answers a ClientHello at a plaintext port.
func (p *httpProtocol) refuseTLS(s *session) error {
	s.refuse("TLS at a plaintext port")
	if _, err := io.WriteString(s.conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"); err != nil {
		return err
	}
	s.linger()
	return fmt.Errorf("%w: TLS at a plaintext port", errRefused)
}

// answerNonTLS tells a client that speaks plaintext HTTP at an HTTPS port, as net/http and nginx do.
func (p *httpProtocol) answerNonTLS(s *session, handshake error) {
	var header tls.RecordHeaderError
	if !errors.As(handshake, &header) || header.Conn == nil {
		return
	}
	const answer = "HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
	if _, err := io.WriteString(header.Conn, answer); err == nil {
		s.linger()
	}
}

// httpConn lets the session wait for net/http.
type httpConn struct {
	net.Conn
	session  *session
	once     sync.Once
	finished chan struct{}
}

func (c *httpConn) finish() { c.once.Do(func() { close(c.finished) }) }

// handoff is the listener on which net/http gets its connections.
type handoff struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup
}

// Accept returns the next connection.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (h *handoff) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr is never the address of a connection: those carry their own.
func (h *handoff) Addr() net.Addr { return &net.TCPAddr{} }
