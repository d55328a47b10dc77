package endpoint

import (
	"crypto/subtle"
	"fmt"
	"strings"

	"github.com/tidwall/redcon"
)

const redisVersion = "7.4.0"

type redisProtocol struct{}

func (redisProtocol) close() {}

// refusePlaintext stands for a server with "port 0", which this port would not exist on. It answers every command alike until
// the client leaves: drivers take the error of their first one for that of an old server, and try others.
func (redisProtocol) refusePlaintext(s *session) error {
	const message = "DENIED plaintext connections are disabled (port 0), use the TLS port"
	reader := redcon.NewReader(s.conn)
	for refused := false; ; refused = true {
		if _, err := reader.ReadCommand(); err != nil {
			return err
		}
		if !refused {
			s.refuse(message)
		}
		if _, err := s.conn.Write(redcon.AppendError(nil, message)); err != nil {
			return err
		}
	}
}

func redisRefuse(s *session, message string) error {
	s.refuse(message)
	if _, err := s.conn.Write(redcon.AppendError(nil, message)); err != nil {
		return err
	}
	s.linger()
	return fmt.Errorf("%w: %s", errRefused, message)
}

func (redisProtocol) serve(s *session) error {
	if hello, err := s.beginsWithTLS(); err != nil {
		return err
	} else if hello {
		// The real server takes a ClientHello for an inline command and waits for a line feed that may never come.
		return redisRefuse(s, "ERR Protocol error: TLS is not offered on this port")
	}
	c := &redisConn{session: s, resp: 2}
	reader := redcon.NewReader(s.conn)
	for !c.quit {
		cmd, err := reader.ReadCommand()
		if err != nil {
			return err
		}
		s.unit()
		if len(cmd.Args) == 0 {
			continue
		}
		if _, err := s.conn.Write(c.answer(cmd.Args)); err != nil {
			return err
		}
	}
	return nil
}

// redisConn is one Redis connection.
type redisConn struct {
	*session
	resp   int // version of the serialization protocol, 2 or 3
	authed bool
	quit   bool
}

// answer executes one command and returns the encoded reply.
func (c *redisConn) answer(args [][]byte) []byte {
	name := strings.ToUpper(string(args[0]))
	switch name {
	case "POST", "HOST:": // as the real server does: a web browser was tricked into speaking to it
		c.refuse("HTTP request")
		c.quit = true
		return nil
	case "HELLO":
		return c.hello(args[1:])
	case "AUTH":
		return c.auth(args[1:])
	case "QUIT":
		c.quit = true
		return redcon.AppendOK(nil)
	}
	c.query(redisText(name, args[1:]))
	if !c.authed {
		return redcon.AppendError(nil, "NOAUTH Authentication required.")
	}
	return c.command(name, args[1:])
}

func (c *redisConn) command(name string, args [][]byte) []byte {
	switch {
	case name == "PING" && len(args) == 0:
		return redcon.AppendString(nil, "PONG")
	case (name == "PING" || name == "ECHO") && len(args) == 1:
		return redcon.AppendBulk(nil, args[0])
	case name == "PING" || name == "ECHO":
		return redcon.AppendError(nil, fmt.Sprintf("ERR wrong number of arguments for '%s' command", strings.ToLower(name)))
	case name == "CLIENT":
		return c.client(args)
	case name == "SELECT":
		return redcon.AppendOK(nil)
	case name == "INFO":
		return redcon.AppendBulkString(nil, "# Server\r\nredis_version:"+redisVersion+"\r\nredis_mode:standalone\r\n")
	case name == "COMMAND": // redis-cli asks for its help texts
		return redcon.AppendArray(nil, 0)
	}
	return redcon.AppendError(nil, fmt.Sprintf("ERR unknown command '%s'", strings.ToLower(name)))
}

func (c *redisConn) client(args [][]byte) []byte {
	if len(args) == 0 {
		return redcon.AppendError(nil, "ERR wrong number of arguments for 'client' command")
	}
	switch strings.ToUpper(string(args[0])) {
	case "SETINFO", "SETNAME":
		return redcon.AppendOK(nil)
	case "ID":
		return redcon.AppendInt(nil, int64(c.id))
	}
	return redcon.AppendError(nil, "ERR unknown subcommand")
}

// hello switches the protocol version: HELLO [version [AUTH user password] [SETNAME name]].
func (c *redisConn) hello(args [][]byte) []byte {
	resp := c.resp
	if len(args) > 0 {
		switch string(args[0]) {
		case "2":
			resp = 2
		case "3":
			resp = 3
		default:
			return redcon.AppendError(nil, "NOPROTO unsupported protocol version")
		}
		args = args[1:]
	}
	for len(args) > 0 {
		switch option := strings.ToUpper(string(args[0])); {
		case option == "AUTH" && len(args) >= 3:
			if !c.login(string(args[1]), args[2]) {
				return redcon.AppendError(nil, wrongPass)
			}
			args = args[3:]
		case option == "SETNAME" && len(args) >= 2:
			args = args[2:]
		default:
			return redcon.AppendError(nil, "ERR Syntax error in HELLO option")
		}
	}
	if !c.authed {
		return redcon.AppendError(nil, "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time")
	}
	c.resp = resp
	return c.greeting()
}

func (c *redisConn) greeting() []byte {
	fields := []string{"server", "redis", "version", redisVersion, "mode", "standalone", "role", "master"}
	var out []byte
	if pairs := len(fields)/2 + 2; c.resp == 3 {
		out = fmt.Appendf(nil, "%%%d\r\n", pairs) // a RESP3 map, which redcon does not write
	} else {
		out = redcon.AppendArray(nil, 2*pairs)
	}
	for _, f := range fields {
		out = redcon.AppendBulkString(out, f)
	}
	out = redcon.AppendInt(redcon.AppendBulkString(out, "proto"), int64(c.resp))
	return redcon.AppendInt(redcon.AppendBulkString(out, "id"), int64(c.id))
}

const wrongPass = "WRONGPASS invalid username-password pair or user is disabled."

// auth is AUTH [user] password; without a user it means the default one, which has the same password.
func (c *redisConn) auth(args [][]byte) []byte {
	user := User
	switch len(args) {
	case 1:
	case 2:
		user, args = string(args[0]), args[1:]
	default:
		return redcon.AppendError(nil, "ERR wrong number of arguments for 'auth' command")
	}
	if !c.login(user, args[0]) {
		return redcon.AppendError(nil, wrongPass)
	}
	return redcon.AppendOK(nil)
}

func (c *redisConn) login(user string, password []byte) bool {
	known := user == User || user == "default"
	if !known || subtle.ConstantTimeCompare(password, []byte(Password)) != 1 {
		return false
	}
	c.authed = c.authenticated() == nil
	return c.authed
}

func redisText(name string, args [][]byte) string {
	var out strings.Builder
	out.WriteString(name)
	for _, a := range args {
		out.WriteByte(' ')
		out.Write(a)
	}
	return out.String()
}
