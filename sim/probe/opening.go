package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// sslRequest asks a PostgreSQL server for TLS, and sslYes is its consent (PostgreSQL documentation, section 54.2.11). Every canary
// speaks PostgreSQL.
var sslRequest = []byte{0, 0, 0, 8, 4, 210, 22, 47}

const (
	sslYes = 'S'
	// handshakeRecord begins the server's answer to a ClientHello (RFC 8446 section 5.1).
	handshakeRecord = 22
)

// clientHello returns the ClientHello that opens every fence: nobody ever finishes these handshakes, so that one serves for all.
var clientHello = sync.OnceValues(func() ([]byte, error) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() {
		_ = tls.Client(ours, &tls.Config{ServerName: "canary", CurvePreferences: groups}).Handshake() // it ends with the pipe
	}()
	record := make([]byte, 5)
	if _, err := io.ReadFull(theirs, record); err != nil {
		return nil, err
	}
	body := make([]byte, int(record[3])<<8|int(record[4]))
	_, err := io.ReadFull(theirs, body)
	return append(record, body...), err
})

// open says what a client says up to and with its ClientHello, waits for the beginning of the answer, and returns how many bytes it
// said.
func open(ctx context.Context, conn net.Conn) (said int, err error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	hello, err := clientHello()
	if err != nil {
		return 0, err
	}
	for _, part := range []struct {
		say    []byte
		answer byte
	}{{sslRequest, sslYes}, {hello, handshakeRecord}} {
		if _, err := conn.Write(part.say); err != nil {
			return said, err
		}
		said += len(part.say)
		var first [1]byte
		if _, err := io.ReadFull(conn, first[:]); err != nil {
			return said, err
		}
		if first[0] != part.answer {
			return said, fmt.Errorf("answered with byte %d", first[0])
		}
	}
	return said, nil
}
