package endpoint

import (
	"crypto/tls"
	"fmt"
	"strconv"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/server"
)

// erSecureTransportRequired is MySQL's and MariaDB's error for plaintext under require_secure_transport.
const erSecureTransportRequired = 3159

const mysqlVersion = "8.0.40-drawbridge"

type mysqlProtocol struct{}

func (mysqlProtocol) close() {}

// serve runs go-mysql's server on the session. It panics on some malformed packets, which end the session only.
func (mysqlProtocol) serve(s *session) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s.refuse("malformed packet")
			err = fmt.Errorf("%w: malformed packet: %v", errNotConforming, r)
		}
	}()
	m := &mysqlConn{session: s}
	conf := server.NewServer(mysqlVersion, mysql.DEFAULT_COLLATION_ID, mysql.AUTH_NATIVE_PASSWORD, nil, m.tlsConfig())
	conn, err := conf.NewCustomizedConn(s.wire, m, m)
	if err != nil {
		m.refuseOnce(err.Error())
		return err
	}
	if err := s.authenticated(); err != nil {
		return err
	}
	for !conn.Closed() {
		s.unit()
		if err := conn.HandleCommand(); err != nil {
			return err
		}
	}
	return nil
}

// mysqlConn is what go-mysql asks about one connection: credentials, and answers to commands.
type mysqlConn struct {
	*session
	encrypted bool // the TLS handshake has come as far as the client's certificate would
	refused   bool
}

// tlsConfig returns the server's TLS configuration with a hook, as go-mysql's handshake is out of sight otherwise. The
// library reads exactly one packet before the handshake, so that bytes behind an SSLRequest can only be a ClientHello.
func (m *mysqlConn) tlsConfig() *tls.Config {
	if m.server.cfg.TLS == nil {
		return nil
	}
	cfg := m.server.cfg.TLS.Clone()
	verify := cfg.VerifyConnection
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		m.encrypted = true
		if verify != nil {
			return verify(state)
		}
		return nil
	}
	return cfg
}

// CheckUsername tells whether there is such an account.
func (m *mysqlConn) CheckUsername(username string) (bool, error) { return username == User, nil }

// GetCredential is called once the login packet is complete: if the connection is encrypted, the TLS handshake is done.
func (m *mysqlConn) GetCredential(username string) (string, bool, error) {
	if m.encrypted && !m.tls {
		m.tlsEstablished()
	}
	if m.refusesPlaintext() {
		err := mysql.NewError(erSecureTransportRequired,
			"Connections using insecure transport are prohibited while --require_secure_transport=ON.")
		m.refuseOnce(err.Error())
		return "", false, err
	}
	return Password, username == User, nil
}

func (m *mysqlConn) refuseOnce(why string) {
	if !m.refused {
		m.refused = true
		m.refuse(why)
	}
}

// UseDB accepts any database.
func (m *mysqlConn) UseDB(string) error { return nil }

// HandleQuery answers COM_QUERY.
func (m *mysqlConn) HandleQuery(query string) (*mysql.Result, error) {
	m.query(query)
	return answerMySQL(query, false)
}

// HandleFieldList answers COM_FIELD_LIST: there are no tables.
func (m *mysqlConn) HandleFieldList(table, _ string) ([]*mysql.Field, error) {
	return nil, mysql.NewDefaultError(mysql.ER_NO_SUCH_TABLE, Schema, table)
}

// HandleStmtPrepare answers COM_STMT_PREPARE; placeholders are not supported.
func (m *mysqlConn) HandleStmtPrepare(query string) (params, columns int, context any, err error) {
	m.query(query)
	r, err := answerMySQL(query, true)
	if err != nil || r == nil {
		return 0, 0, nil, err
	}
	return 0, len(r.Fields), nil, nil
}

// HandleStmtExecute answers COM_STMT_EXECUTE.
func (m *mysqlConn) HandleStmtExecute(_ any, query string, _ []any) (*mysql.Result, error) {
	m.query(query)
	return answerMySQL(query, true)
}

// HandleStmtClose answers COM_STMT_CLOSE.
func (m *mysqlConn) HandleStmtClose(any) error { return nil }

// HandleOtherCommand answers every other command.
func (m *mysqlConn) HandleOtherCommand(cmd byte, _ []byte) error {
	return mysql.NewError(mysql.ER_UNKNOWN_COM_ERROR, fmt.Sprintf("unknown command %d", cmd))
}

// answerMySQL understands SELECT of literals, and takes the statements that clients send to set up a session.
func answerMySQL(query string, binary bool) (*mysql.Result, error) {
	switch firstWord(query) {
	case "SET", "BEGIN", "COMMIT", "ROLLBACK", "START", "USE":
		return nil, nil
	}
	columns, err := parseSelect(query)
	if err != nil {
		return nil, mysql.NewError(mysql.ER_PARSE_ERROR, err.Error())
	}
	names, row := make([]string, len(columns)), make([]any, len(columns))
	for i, col := range columns {
		names[i] = col.mysqlName()
		if row[i], err = col.mysqlValue(); err != nil {
			return nil, err
		}
	}
	set, err := mysql.BuildSimpleResultset(names, [][]any{row}, binary)
	if err != nil {
		return nil, err
	}
	return mysql.NewResult(set), nil
}

func (c column) mysqlName() string {
	switch {
	case c.alias != "":
		return c.alias
	case c.name || c.number:
		return c.text
	}
	return c.value
}

func (c column) mysqlValue() (any, error) {
	switch {
	case c.number:
		return strconv.ParseInt(c.value, 10, 64)
	case !c.name:
		return c.value, nil
	}
	value, ok := mysqlValues[c.text]
	if !ok {
		return nil, mysql.NewError(mysql.ER_UNKNOWN_SYSTEM_VARIABLE, "unknown: "+c.text)
	}
	return value, nil
}

// mysqlValues are the words that mean something in a SELECT.
var mysqlValues = map[string]any{
	"@@version": mysqlVersion, "version()": mysqlVersion, "VERSION()": mysqlVersion, "USER()": User, "DATABASE()": Schema,
	"@@version_comment": "drawbridge's embedded server", "@@max_allowed_packet": int64(unitLimit),
}

var _ interface {
	server.Handler
	server.CredentialProvider
} = (*mysqlConn)(nil)
