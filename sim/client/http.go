package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"drawbridge/sim/endpoint"
)

// requests are what an engine on top of HTTP is asked for.
type requests struct {
	hello string // path of the request that opens the session
	query string // path of a query
	echo  string // header that the engine gives back
}

var (
	openSearchRequests = requests{hello: "/", query: "/", echo: endpoint.OpaqueID}
	influxRequests     = requests{hello: "/ping", query: "/query?q=SHOW+DATABASES", echo: endpoint.RequestID}
	clusterRequests    = requests{hello: "/cluster", query: "/cluster", echo: endpoint.RequestID}
)

// maxHTTPBody bounds what is read of an answer.
const maxHTTPBody = 64 << 10

// statusError is an answer other than success.
type statusError struct {
	code int
	body string
}

func (e *statusError) Error() string { return fmt.Sprintf("%d %s", e.code, http.StatusText(e.code)) }

// httpDriver speaks HTTP on the session's one connection. net/http's own client may want another one at any time: it gives a connection up
// if the goroutine that wrote the request has not said so 50 ms after the answer came, as on a busy machine.
type httpDriver struct {
	conn     net.Conn
	answers  *bufio.Reader
	base     string
	requests requests
}

// openHTTP asks for something at once: TCP alone does not show that a database is there.
func openHTTP(r requests) func(context.Context, *only, Target) (driver, error) {
	return func(ctx context.Context, o *only, t Target) (driver, error) {
		if err := o.secure(ctx, t); err != nil {
			return nil, err
		}
		conn, err := o.take()
		if err != nil {
			return nil, err
		}
		d := httpDriver{conn: conn, answers: bufio.NewReader(conn), base: "http://" + t.Addr.String(), requests: r}
		if t.TLS {
			d.base = "https://" + t.Addr.String()
		}
		if _, err := d.get(ctx, r.hello, ""); err != nil {
			return nil, errors.Join(err, d.close())
		}
		return d, nil
	}
}

func (d httpDriver) query(ctx context.Context, marker string) (string, error) {
	return d.get(ctx, d.requests.query, marker)
}

// get returns the header that the server gave back.
func (d httpDriver) get(ctx context.Context, path, marker string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+path, nil)
	if err != nil {
		return "", err
	}
	req.SetBasicAuth(endpoint.User, endpoint.Password)
	if marker != "" {
		req.Header.Set(d.requests.echo, marker)
	}
	if err := req.Write(d.conn); err != nil {
		return "", err
	}
	res, err := http.ReadResponse(d.answers, req)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxHTTPBody))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusNoContent {
		return "", &statusError{res.StatusCode, strings.TrimSpace(string(body))}
	}
	return res.Header.Get(d.requests.echo), nil
}

// close has nothing to say: HTTP has no word for it.
func (d httpDriver) close() error { return nil }
