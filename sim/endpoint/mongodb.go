package endpoint

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/wiremessage"
)

const (
	mongoVersion = "8.0.0"
	// mongoWireVersion is maxWireVersion of MongoDB 8.0.
	mongoWireVersion = 25
	mongoHeader      = 16 // bytes of the standard message header
)

// Error codes of MongoDB's error_codes.yml.
const (
	mongoFailedToParse      = 9
	mongoCommandNotFound    = 59
	mongoSSLHandshakeFailed = 141
)

type mongoProtocol struct{}

func (mongoProtocol) close() {}

// mongoRequest is a command with what its answer needs.
type mongoRequest struct {
	id      int32
	legacy  bool // OP_QUERY, answered by OP_REPLY
	silent  bool // the client wants no answer
	command bsoncore.Document
}

// refusePlaintext answers the first command as "requireTLS" means it; the real server says so in its log and only closes.
func (mongoProtocol) refusePlaintext(s *session) error {
	const message = "The server is configured to only allow SSL connections"
	r, err := readMongo(s)
	if err != nil {
		return err
	}
	s.refuse(message)
	if _, err := s.conn.Write(r.reply(mongoError(mongoSSLHandshakeFailed, "SSLHandshakeFailed", message))); err != nil {
		return err
	}
	s.linger()
	return fmt.Errorf("%w: %s", errRefused, message)
}

func (mongoProtocol) serve(s *session) error {
	for {
		r, err := readMongo(s)
		if err != nil {
			return err
		}
		s.unit()
		if err := s.authenticated(); err != nil { // this server has no users: a well-formed command is enough
			return err
		}
		s.query(r.command.String())
		answer := answerMongo(s, r.command)
		if r.silent {
			continue
		}
		if _, err := s.conn.Write(r.reply(answer)); err != nil {
			return err
		}
	}
}

// readMongo reads one message. Anything that is neither OP_MSG nor OP_QUERY is refused.
func readMongo(s *session) (mongoRequest, error) {
	var header [mongoHeader]byte
	if _, err := io.ReadFull(s.conn, header[:]); err != nil {
		return mongoRequest{}, err
	}
	length := binary.LittleEndian.Uint32(header[:])
	if length <= mongoHeader || length > unitLimit {
		return mongoRequest{}, malformedMongo(s, fmt.Sprintf("message of %d bytes", length))
	}
	message := make([]byte, length)
	copy(message, header[:])
	if _, err := io.ReadFull(s.conn, message[mongoHeader:]); err != nil {
		return mongoRequest{}, err
	}
	r, ok := parseMongo(message)
	if !ok {
		return mongoRequest{}, malformedMongo(s, "malformed message")
	}
	return r, nil
}

func malformedMongo(s *session, why string) error {
	s.refuse(why)
	return fmt.Errorf("%w: %s", errNotConforming, why)
}

// parseMongo parses a whole message, header included.
func parseMongo(message []byte) (mongoRequest, bool) {
	_, id, _, opcode, rest, ok := wiremessage.ReadHeader(message)
	if !ok {
		return mongoRequest{}, false
	}
	r := mongoRequest{id: id}
	switch opcode {
	case wiremessage.OpMsg:
		r.command, r.silent, ok = parseOpMsg(rest)
	case wiremessage.OpQuery:
		r.legacy = true
		r.command, ok = parseOpQuery(rest)
	default:
		return mongoRequest{}, false
	}
	return r, ok && r.command.Validate() == nil
}

// parseOpMsg takes the body section; document sequences and the checksum are not looked at.
func parseOpMsg(b []byte) (command bsoncore.Document, silent, ok bool) {
	flags, b, ok := wiremessage.ReadMsgFlags(b)
	if !ok {
		return nil, false, false
	}
	section, b, ok := wiremessage.ReadMsgSectionType(b)
	if !ok || section != wiremessage.SingleDocument {
		return nil, false, false
	}
	command, _, ok = wiremessage.ReadMsgSectionSingleDocument(b)
	return command, flags&wiremessage.MoreToCome != 0, ok
}

func parseOpQuery(b []byte) (bsoncore.Document, bool) {
	_, b, ok := wiremessage.ReadQueryFlags(b)
	if !ok {
		return nil, false
	}
	collection, b, ok := wiremessage.ReadQueryFullCollectionName(b)
	if !ok || !strings.HasSuffix(collection, ".$cmd") {
		return nil, false
	}
	if len(b) < 8 { // numberToSkip and numberToReturn
		return nil, false
	}
	command, _, ok := wiremessage.ReadQueryQuery(b[8:])
	return command, ok
}

// reply encodes the answer in the operation that the request came with.
func (r mongoRequest) reply(document bsoncore.Document) []byte {
	var i int32
	var b []byte
	if r.legacy {
		i, b = wiremessage.AppendHeaderStart(nil, wiremessage.NextRequestID(), r.id, wiremessage.OpReply)
		b = wiremessage.AppendReplyFlags(b, 0)
		b = wiremessage.AppendReplyCursorID(b, 0)
		b = wiremessage.AppendReplyStartingFrom(b, 0)
		b = wiremessage.AppendReplyNumberReturned(b, 1)
	} else {
		i, b = wiremessage.AppendHeaderStart(nil, wiremessage.NextRequestID(), r.id, wiremessage.OpMsg)
		b = wiremessage.AppendMsgFlags(b, 0)
		b = wiremessage.AppendMsgSectionType(b, wiremessage.SingleDocument)
	}
	b = append(b, document...)
	return bsoncore.UpdateLength(b, i, int32(len(b))-i)
}

// answerMongo executes one command; its name is the first element's key.
func answerMongo(s *session, command bsoncore.Document) bsoncore.Document {
	first, err := command.IndexErr(0)
	if err != nil {
		return mongoError(mongoFailedToParse, "FailedToParse", "empty command")
	}
	switch name := first.Key(); name {
	case "hello":
		return mongoHello(s, "isWritablePrimary")
	case "isMaster", "ismaster":
		return mongoHello(s, "ismaster")
	case "ping", "endSessions":
		return mongoOK().Build()
	case "buildInfo", "buildinfo":
		return mongoOK().AppendString("version", mongoVersion).AppendString("gitVersion", "drawbridge").Build()
	case "aggregate":
		return mongoDocuments(command)
	default:
		return mongoError(mongoCommandNotFound, "CommandNotFound", fmt.Sprintf("no such command: '%s'", name))
	}
}

func mongoHello(s *session, primary string) bsoncore.Document {
	return mongoOK().
		AppendBoolean("helloOk", true).
		AppendBoolean(primary, true).
		AppendInt32("maxBsonObjectSize", unitLimit).
		AppendInt32("maxMessageSizeBytes", unitLimit).
		AppendInt32("maxWriteBatchSize", 1).
		AppendDateTime("localTime", s.server.cfg.Now().UnixMilli()).
		AppendInt32("connectionId", int32(s.id)).
		AppendInt32("minWireVersion", 0).
		AppendInt32("maxWireVersion", mongoWireVersion).
		AppendBoolean("readOnly", false).
		Build()
}

// mongoDocuments answers an aggregation that consists of a $documents stage: MongoDB's SELECT of literals.
func mongoDocuments(command bsoncore.Document) bsoncore.Document {
	documents, err := command.LookupErr("pipeline", "0", "$documents")
	array, ok := documents.ArrayOK()
	if err != nil || !ok || array.Validate() != nil {
		return mongoError(mongoFailedToParse, "FailedToParse", "only aggregations of one $documents stage are answered here")
	}
	database, _ := command.Lookup("$db").StringValueOK()
	cursor := bsoncore.NewDocumentBuilder().
		AppendArray("firstBatch", array).AppendInt64("id", 0).AppendString("ns", database+".$cmd.aggregate").Build()
	return mongoOK().AppendDocument("cursor", cursor).Build()
}

func mongoOK() *bsoncore.DocumentBuilder { return bsoncore.NewDocumentBuilder().AppendDouble("ok", 1) }

func mongoError(code int32, name, message string) bsoncore.Document {
	return bsoncore.NewDocumentBuilder().AppendDouble("ok", 0).AppendString("errmsg", message).
		AppendInt32("code", code).AppendString("codeName", name).Build()
}
