package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"drawbridge/enforcer/daemon"

	"github.com/spf13/cobra"
)

// defaultSocket is that of deploy/systemd/drawbridge.service.
const defaultSocket = "/run/drawbridge/socket"

// addSocket adds the flag by which verbs find a running daemon.
func addSocket(c *cobra.Command, socket *string) {
	c.Flags().StringVar(socket, "socket", "",
		"`path` of the socket of a running drawbridge enforce run (default: "+defaultSocket+", if it works in this network namespace)")
}

// resident is a daemon that answers.
type resident struct {
	socket string
	status daemon.Status
}

// resident looks for a running daemon: nil if none was named and none answers at the default place. One that was named must answer.
// With here it must work in this network namespace, whose kernel the verb reads.
func (p *program) resident(ctx context.Context, socket string, here bool) (*resident, error) {
	r := &resident{socket: socket}
	if socket == "" {
		r.socket = defaultSocket
	}
	err := askDaemon(ctx, r.socket, "/status", &r.status)
	if err == nil && (here || socket == "") {
		err = r.sameNamespace()
	}
	switch {
	case err == nil:
		return r, nil
	case socket == "":
		return nil, nil
	}
	return nil, fmt.Errorf("%s: %w", r.socket, err)
}

func (r *resident) sameNamespace() error {
	own, err := daemon.NetworkNamespace()
	if err == nil && own != r.status.Namespace {
		err = fmt.Errorf("the program there works in another network namespace, %s and not %s", r.status.Namespace, own)
	}
	return err
}

// askDaemon asks a running daemon for something over its socket.
func askDaemon(ctx context.Context, socket, where string, answer any) error {
	return exchange(ctx, socket, http.MethodGet, where, nil, answer)
}

// exchange sends a request with JSON, and reads the answer.
func exchange(ctx context.Context, socket, method, where string, content, answer any) error {
	body, err := callDaemon(ctx, socket, method, where, content)
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(body).Decode(answer)
}

// answered is a daemon's answer other than 200.
type answered struct {
	code         int
	status, said string
}

func (a *answered) Error() string {
	return fmt.Sprintf("the running program answered %s: %s", a.status, a.said)
}

// refused tells whether what was asked is what is wrong.
func (a *answered) refused() bool {
	return a.code == http.StatusBadRequest || a.code == http.StatusNotFound || a.code == http.StatusConflict
}

// maxComplaint bounds what is shown of a daemon's refusal.
const maxComplaint = 4096

// callDaemon sends a request; the caller closes what is returned. An answer other than 200 is an *answered.
func callDaemon(ctx context.Context, socket, method, where string, content any) (io.ReadCloser, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	var body io.Reader = http.NoBody
	if content != nil {
		text, err := json.Marshal(content)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://drawbridge"+where, body)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return nil, failed.Err // without the address of a request that nobody made
	}
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	defer response.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(response.Body, maxComplaint)) // the status alone says enough
	return nil, &answered{response.StatusCode, response.Status, strings.TrimSpace(string(said))}
}
