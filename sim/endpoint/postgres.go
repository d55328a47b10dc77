package endpoint

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/xdg-go/scram"
)

// Codes that a startup packet may begin with instead of a protocol version (PostgreSQL documentation, "Message Formats").
const (
	cancelRequestCode = 80877102
	sslRequestCode    = 80877103
	gssEncRequestCode = 80877104
)

// maxStartupLength is MAX_STARTUP_PACKET_LENGTH of PostgreSQL's src/include/libpq/pqcomm.h.
const maxStartupLength = 10000

// alpnPostgreSQL is PostgreSQL's registered ALPN protocol name; direct TLS requires it.
const alpnPostgreSQL = "postgresql"

// scramIterations is the lowest that PostgreSQL's scram_iterations may be set to; its default is 4096. Each session costs the client that
// many HMACs, and the password protects nothing.
const scramIterations = 1

const (
	codeProtocolViolation  = "08P01"
	codeFeatureUnsupported = "0A000"
	codeInvalidAuth        = "28000"
	codeInvalidPassword    = "28P01"
	codeSyntaxError        = "42601"
)

type postgresProtocol struct{ scram *scram.Server }

func newPostgres() (protocol, error) {
	client, err := scram.SHA256.NewClient(User, Password, "")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: rand.Text()[:16], Iters: scramIterations})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	// The lookup ignores the name in the SCRAM message, as PostgreSQL does: the startup packet has named the user.
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return stored, nil })
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return postgresProtocol{scram: server}, nil
}

func (postgresProtocol) close() {}

// pgConn is one PostgreSQL connection.
type pgConn struct {
	*session
	backend *pgproto3.Backend
	user    string
	schema  string
	backendState
}

func (p postgresProtocol) serve(s *session) error {
	c := &pgConn{session: s}
	if err := c.directTLS(); err != nil {
		return err
	}
	done, err := c.startup()
	if done || err != nil {
		return err
	}
	if s.refusesPlaintext() {
		return c.refusePlaintext()
	}
	if err := c.authenticate(p.scram); err != nil {
		return err
	}
	return c.serveQueries()
}

// refusePlaintext answers as a server does whose pg_hba.conf has only "hostssl" entries.
func (c *pgConn) refusePlaintext() error {
	return c.fatal(codeInvalidAuth, fmt.Sprintf(`no pg_hba.conf entry for host "%s", user "%s", database "%s", no encryption`,
		c.remote.Addr(), c.user, c.schema))
}

// directTLS takes a connection that begins with TLS instead of a startup packet (PostgreSQL 17, "SSL Session Encryption").
func (c *pgConn) directTLS() error {
	hello, err := c.beginsWithTLS()
	if err != nil || !hello {
		return err
	}
	if c.server.cfg.TLS == nil {
		c.refuse("direct TLS, which is not offered")
		return errRefused
	}
	if err := c.startPostgresTLS(); err != nil {
		return err
	}
	if c.conn.(*tls.Conn).ConnectionState().NegotiatedProtocol != alpnPostgreSQL {
		c.refuse("direct TLS without ALPN")
		return errRefused
	}
	return nil
}

// startup reads startup packets until one opens a session; done if the conversation ends without one.
func (c *pgConn) startup() (done bool, err error) {
	for {
		packet, err := c.readStartup()
		if err != nil {
			return false, err
		}
		c.unit()
		switch code := binary.BigEndian.Uint32(packet); {
		case code == cancelRequestCode:
			c.query("CancelRequest") // nothing here runs long enough to be cancelled; there is no answer by design
			return true, nil
		case code == sslRequestCode && !c.tls:
			err = c.sslRequest()
		case code == gssEncRequestCode && !c.tls:
			err = c.declineGSS()
		default:
			return false, c.openSession(packet)
		}
		if err != nil {
			return false, err
		}
	}
}

func (c *pgConn) readStartup() ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(c.conn, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n < 8 || n > maxStartupLength {
		c.refuse("invalid length of startup packet") // the real server closes without an answer, too
		return nil, fmt.Errorf("%w: startup packet of %d bytes", errNotConforming, n)
	}
	packet := make([]byte, n-4)
	_, err := io.ReadFull(c.conn, packet)
	return packet, err
}

// sslRequest answers an SSLRequest. Bytes that came along with it would be taken for part of the encrypted conversation by a
// careless server (CVE-2021-23214).
func (c *pgConn) sslRequest() error {
	if c.wire.buffered.Buffered() > 0 {
		return c.fatal(codeProtocolViolation, "received unencrypted data after SSL request")
	}
	if c.server.cfg.TLS == nil {
		_, err := c.conn.Write([]byte{'N'})
		return err
	}
	if _, err := c.conn.Write([]byte{'S'}); err != nil {
		return err
	}
	return c.startPostgresTLS()
}

func (c *pgConn) declineGSS() error {
	if c.wire.buffered.Buffered() > 0 {
		return c.fatal(codeProtocolViolation, "received unencrypted data after GSSAPI encryption request")
	}
	_, err := c.conn.Write([]byte{'N'})
	return err
}

func (c *pgConn) startPostgresTLS() error {
	cfg := c.server.cfg.TLS.Clone()
	cfg.NextProtos = []string{alpnPostgreSQL}
	return c.startTLS(cfg)
}

// openSession takes the packet that names user and database.
func (c *pgConn) openSession(packet []byte) error {
	version := binary.BigEndian.Uint32(packet)
	if version != pgproto3.ProtocolVersion30 && version != pgproto3.ProtocolVersion32 {
		return c.fatal(codeFeatureUnsupported, fmt.Sprintf("unsupported frontend protocol %d.%d: server supports 3.0 to 3.2",
			version>>16, version&0xffff))
	}
	var startup pgproto3.StartupMessage
	if err := startup.Decode(packet); err != nil {
		return errors.Join(err, c.fatal(codeProtocolViolation, "invalid startup packet layout: expected terminator as last byte"))
	}
	c.user, c.schema = startup.Parameters["user"], startup.Parameters["database"]
	if c.schema == "" {
		c.schema = c.user
	}
	if c.user == "" {
		return c.fatal(codeInvalidAuth, "no PostgreSQL user name specified in startup packet")
	}
	return nil
}

// authenticate runs SCRAM-SHA-256 (RFC 7677) without channel binding and announces the session.
func (c *pgConn) authenticate(server *scram.Server) error {
	c.backend = pgproto3.NewBackend(c.conn, c.conn)
	c.backend.SetMaxBodyLen(unitLimit)
	if err := c.scram(server.NewConversation()); err != nil {
		return err
	}
	c.backend.Send(&pgproto3.AuthenticationOk{})
	for _, p := range [][2]string{
		{"server_version", "17.0 (drawbridge)"}, {"server_encoding", "UTF8"}, {"client_encoding", "UTF8"},
		{"standard_conforming_strings", "on"}, {"integer_datetimes", "on"}, {"DateStyle", "ISO, MDY"}, {"TimeZone", "UTC"},
	} {
		c.backend.Send(&pgproto3.ParameterStatus{Name: p[0], Value: p[1]})
	}
	c.backend.Send(&pgproto3.BackendKeyData{ProcessID: uint32(c.id), SecretKey: []byte{0, 0, 0, 0}})
	c.backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if err := c.backend.Flush(); err != nil {
		return err
	}
	return c.authenticated()
}

func (c *pgConn) scram(conversation *scram.ServerConversation) error {
	if err := c.ask(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}}, pgproto3.AuthTypeSASL); err != nil {
		return err
	}
	msg, err := c.backend.Receive()
	if err != nil {
		return err
	}
	first, ok := msg.(*pgproto3.SASLInitialResponse)
	if !ok || first.AuthMechanism != "SCRAM-SHA-256" {
		return c.fatal(codeProtocolViolation, "expected SASL response")
	}
	challenge, err := conversation.Step(string(first.Data))
	if err != nil {
		return errors.Join(err, c.wrongPassword())
	}
	if err := c.ask(&pgproto3.AuthenticationSASLContinue{Data: []byte(challenge)}, pgproto3.AuthTypeSASLContinue); err != nil {
		return err
	}
	if msg, err = c.backend.Receive(); err != nil {
		return err
	}
	proof, ok := msg.(*pgproto3.SASLResponse)
	if !ok {
		return c.fatal(codeProtocolViolation, "expected SASL response")
	}
	final, err := conversation.Step(string(proof.Data))
	if err != nil || !conversation.Valid() || c.user != User {
		return errors.Join(err, c.wrongPassword())
	}
	c.unit()
	c.backend.Send(&pgproto3.AuthenticationSASLFinal{Data: []byte(final)})
	return nil
}

func (c *pgConn) ask(request pgproto3.BackendMessage, expect uint32) error {
	c.backend.Send(request)
	if err := c.backend.Flush(); err != nil {
		return err
	}
	return c.backend.SetAuthType(expect)
}

func (c *pgConn) wrongPassword() error {
	return c.fatal(codeInvalidPassword, fmt.Sprintf(`password authentication failed for user "%s"`, c.user))
}

// fatal ends the session with an error that the client is told.
func (c *pgConn) fatal(code, message string) error {
	c.refuse(message)
	answer, err := (&pgproto3.ErrorResponse{
		Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message,
	}).Encode(nil)
	if err != nil {
		return err
	}
	if _, err := c.conn.Write(answer); err != nil {
		return err
	}
	c.linger()
	return fmt.Errorf("%w: %s", errRefused, message)
}
