package endpoint

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Type OIDs of pg_type.dat.
const (
	oidInt4 = 23
	oidText = 25
)

// maxPrepared bounds the statements and portals that one connection may keep.
const maxPrepared = 64

// binaryFormat is the format code of binary values (PostgreSQL documentation, "Formats and Format Codes").
const binaryFormat = 1

// pgStatement is a statement that the server can answer.
type pgStatement struct {
	columns []column // nil unless it is a SELECT
	tag     string   // its command tag; empty for the empty statement
}

type pgPortal struct {
	statement pgStatement
	formats   []int16
}

// backendState is what the extended query protocol keeps between messages.
type backendState struct {
	statements map[string]pgStatement
	portals    map[string]pgPortal
	skip       bool // after an error, everything up to the next Sync is discarded
}

// sqlError is an error that ends a statement, not the session.
type sqlError struct{ code, message string }

func (e *sqlError) Error() string { return e.message }

func (c *pgConn) serveQueries() error {
	c.statements, c.portals = make(map[string]pgStatement), make(map[string]pgPortal)
	for {
		msg, err := c.backend.Receive()
		if err != nil {
			return err
		}
		c.unit()
		if _, ok := msg.(*pgproto3.Terminate); ok {
			return nil
		}
		if err := c.dispatch(msg); err != nil {
			return err
		}
	}
}

func (c *pgConn) dispatch(msg pgproto3.FrontendMessage) error {
	switch m := msg.(type) {
	case *pgproto3.Query:
		c.simpleQuery(m.String)
		c.ready()
		return c.backend.Flush()
	case *pgproto3.Sync:
		c.skip = false
		c.ready()
		return c.backend.Flush()
	case *pgproto3.Flush:
		return c.backend.Flush()
	}
	if c.skip {
		return nil
	}
	if failed := c.extended(msg); failed != nil {
		c.skip = true
		c.sendError(failed)
	}
	return nil
}

func (c *pgConn) ready() { c.backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'}) }

func (c *pgConn) sendError(e *sqlError) {
	c.backend.Send(&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: e.code, Message: e.message})
}

func (c *pgConn) simpleQuery(sql string) {
	c.query(sql)
	st, failed := parsePostgres(sql)
	if failed != nil {
		c.sendError(failed)
		return
	}
	if st.columns != nil {
		c.backend.Send(st.description(nil))
	}
	c.sendRows(pgPortal{statement: st})
}

// extended handles one message of the extended query protocol.
func (c *pgConn) extended(msg pgproto3.FrontendMessage) *sqlError {
	switch m := msg.(type) {
	case *pgproto3.Parse:
		return c.parse(m)
	case *pgproto3.Describe:
		return c.describe(m)
	case *pgproto3.Bind:
		return c.bind(m)
	case *pgproto3.Execute:
		p, ok := c.portals[m.Portal]
		if !ok {
			return &sqlError{"34000", fmt.Sprintf("portal %q does not exist", m.Portal)}
		}
		c.sendRows(p)
		return nil
	case *pgproto3.Close:
		if m.ObjectType == 'S' {
			delete(c.statements, m.Name)
		} else {
			delete(c.portals, m.Name)
		}
		c.backend.Send(&pgproto3.CloseComplete{})
		return nil
	}
	return &sqlError{codeFeatureUnsupported, fmt.Sprintf("message %T is not supported", msg)}
}

func (c *pgConn) parse(m *pgproto3.Parse) *sqlError {
	c.query(m.Query)
	st, failed := parsePostgres(m.Query)
	if failed != nil {
		return failed
	}
	if len(c.statements) >= maxPrepared {
		return &sqlError{"53400", "too many prepared statements"}
	}
	c.statements[m.Name] = st
	c.backend.Send(&pgproto3.ParseComplete{})
	return nil
}

func (c *pgConn) describe(m *pgproto3.Describe) *sqlError {
	var st pgStatement
	var formats []int16
	if m.ObjectType == 'S' {
		found, ok := c.statements[m.Name]
		if !ok {
			return &sqlError{"26000", fmt.Sprintf("prepared statement %q does not exist", m.Name)}
		}
		st = found
		c.backend.Send(&pgproto3.ParameterDescription{})
	} else {
		found, ok := c.portals[m.Name]
		if !ok {
			return &sqlError{"34000", fmt.Sprintf("portal %q does not exist", m.Name)}
		}
		st, formats = found.statement, found.formats
	}
	if st.columns == nil {
		c.backend.Send(&pgproto3.NoData{})
		return nil
	}
	c.backend.Send(st.description(formats))
	return nil
}

func (c *pgConn) bind(m *pgproto3.Bind) *sqlError {
	st, ok := c.statements[m.PreparedStatement]
	switch {
	case !ok:
		return &sqlError{"26000", fmt.Sprintf("prepared statement %q does not exist", m.PreparedStatement)}
	case len(m.Parameters) > 0:
		return &sqlError{codeProtocolViolation, fmt.Sprintf("bind message supplies %d parameters, but the statement requires 0", len(m.Parameters))}
	case len(m.ResultFormatCodes) > 1 && len(m.ResultFormatCodes) != len(st.columns):
		return &sqlError{codeProtocolViolation, "bind message has the wrong number of result formats"}
	case len(c.portals) >= maxPrepared:
		return &sqlError{"53400", "too many portals"}
	}
	c.portals[m.DestinationPortal] = pgPortal{statement: st, formats: append([]int16(nil), m.ResultFormatCodes...)}
	c.backend.Send(&pgproto3.BindComplete{})
	return nil
}

func (c *pgConn) sendRows(p pgPortal) {
	if p.statement.tag == "" {
		c.backend.Send(&pgproto3.EmptyQueryResponse{})
		return
	}
	if p.statement.columns != nil {
		values := make([][]byte, len(p.statement.columns))
		for i, col := range p.statement.columns {
			values[i] = col.encode(formatOf(p.formats, i))
		}
		c.backend.Send(&pgproto3.DataRow{Values: values})
	}
	c.backend.Send(&pgproto3.CommandComplete{CommandTag: []byte(p.statement.tag)})
}

// description describes the result's columns, in the formats of a portal or as text.
func (st pgStatement) description(formats []int16) *pgproto3.RowDescription {
	fields := make([]pgproto3.FieldDescription, len(st.columns))
	for i, col := range st.columns {
		fields[i] = pgproto3.FieldDescription{
			Name: []byte(col.postgresName()), DataTypeOID: oidText, DataTypeSize: -1, TypeModifier: -1, Format: formatOf(formats, i),
		}
		if col.number {
			fields[i].DataTypeOID, fields[i].DataTypeSize = oidInt4, 4
		}
	}
	return &pgproto3.RowDescription{Fields: fields}
}

func (c column) postgresName() string {
	switch {
	case c.alias != "":
		return c.alias
	case c.name:
		return c.text[:wordLength(c.text)]
	}
	return "?column?"
}

func (c column) encode(format int16) []byte {
	if c.number && format == binaryFormat {
		n, _ := strconv.ParseInt(c.value, 10, 32) // the parser lets no other number through
		return binary.BigEndian.AppendUint32(nil, uint32(n))
	}
	return []byte(c.value)
}

func formatOf(formats []int16, column int) int16 {
	switch {
	case len(formats) == 0:
		return 0
	case len(formats) == 1:
		return formats[0]
	}
	return formats[column]
}

// parsePostgres understands SELECT of literals, and takes the statements that clients send to set up a session.
func parsePostgres(sql string) (pgStatement, *sqlError) {
	if isEmpty(sql) {
		return pgStatement{}, nil
	}
	switch word := firstWord(sql); word {
	case "SET", "RESET", "BEGIN", "COMMIT", "ROLLBACK", "DEALLOCATE":
		return pgStatement{tag: word}, nil
	case "DISCARD":
		return pgStatement{tag: "DISCARD ALL"}, nil
	}
	columns, err := parseSelect(sql)
	if err != nil {
		return pgStatement{}, &sqlError{codeSyntaxError, err.Error()}
	}
	for i, col := range columns {
		if !col.name {
			continue
		}
		value, ok := postgresValues[col.postgresName()]
		if !ok {
			return pgStatement{}, &sqlError{"42883", fmt.Sprintf("%s does not exist", col.text)}
		}
		columns[i].value = value
	}
	return pgStatement{columns: columns, tag: "SELECT 1"}, nil
}

// postgresValues are the words that mean something in a SELECT.
var postgresValues = map[string]string{
	"version": "PostgreSQL 17.0 (drawbridge's embedded server)", "current_user": User, "current_database": Schema,
}
