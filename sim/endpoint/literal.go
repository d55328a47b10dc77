package endpoint

import (
	"errors"
	"fmt"
	"strings"
)

// errNotLiteral is the error of a statement that is not a SELECT of literals.
var errNotLiteral = errors.New("only SELECT of literals is answered here")

// column is one column of a SELECT of literals.
type column struct {
	text   string // the expression as it stood in the statement
	alias  string // empty if there is none
	value  string
	number bool // an integer; otherwise a string
	name   bool // text is a bare word such as version() or @@version_comment, and value is empty
}

// parseSelect parses "SELECT expression [[AS] alias], ... [LIMIT n] [;]", in which an expression is a string, an integer, a
// word, or a word with empty parentheses. Errors wrap errNotLiteral.
func parseSelect(statement string) ([]column, error) {
	s := scanner{rest: statement}
	if !s.word("select") {
		return nil, fmt.Errorf("%w: not a SELECT", errNotLiteral)
	}
	var columns []column
	for {
		c, err := s.column()
		if err != nil {
			return nil, err
		}
		columns = append(columns, c)
		if !s.take(",") {
			break
		}
	}
	if s.word("limit") {
		if _, ok := s.integer(); !ok {
			return nil, s.unexpected()
		}
	}
	s.take(";")
	s.space()
	if s.rest != "" {
		return nil, s.unexpected()
	}
	return columns, nil
}

// firstWord returns the statement's first word in upper case, empty for an empty statement.
func firstWord(statement string) string {
	s := scanner{rest: statement}
	s.space()
	return strings.ToUpper(s.rest[:wordLength(s.rest)])
}

// isEmpty tells whether a statement holds nothing but blanks, comments and semicolons.
func isEmpty(statement string) bool {
	s := scanner{rest: statement}
	for s.take(";") {
	}
	s.space()
	return s.rest == ""
}

const blanks = " \t\r\n"

type scanner struct{ rest string }

func (s *scanner) column() (column, error) {
	s.space()
	before := s.rest
	var c column
	var err error
	switch {
	case s.rest == "":
		return column{}, s.unexpected()
	case s.rest[0] == '\'':
		c.value, err = s.quoted('\'')
	case s.rest[0] >= '0' && s.rest[0] <= '9':
		c.value, c.number = s.integer()
	default:
		c.name = true
		err = s.name()
	}
	if err != nil {
		return column{}, err
	}
	c.text = strings.TrimRight(before[:len(before)-len(s.rest)], blanks)
	c.alias, err = s.alias()
	return c, err
}

func (s *scanner) alias() (string, error) {
	explicit := s.word("as")
	s.space()
	if s.rest != "" && (s.rest[0] == '"' || s.rest[0] == '`') {
		return s.quoted(s.rest[0])
	}
	n := wordLength(s.rest)
	if !explicit && (n == 0 || strings.EqualFold(s.rest[:n], "limit")) {
		return "", nil
	}
	if n == 0 || s.rest[0] >= '0' && s.rest[0] <= '9' {
		return "", s.unexpected()
	}
	alias := s.rest[:n]
	s.rest = s.rest[n:]
	return alias, nil
}

// quoted reads a quoted string in which the quote is doubled. Backslashes are refused: the two SQL dialects disagree on them.
func (s *scanner) quoted(quote byte) (string, error) {
	var out strings.Builder
	for i := 1; i < len(s.rest); i++ {
		switch c := s.rest[i]; {
		case c == '\\':
			return "", fmt.Errorf("%w: backslash in a string", errNotLiteral)
		case c != quote:
			out.WriteByte(c)
		case i+1 < len(s.rest) && s.rest[i+1] == quote:
			out.WriteByte(c)
			i++
		default:
			s.rest = s.rest[i+1:]
			return out.String(), nil
		}
	}
	return "", fmt.Errorf("%w: a string does not end", errNotLiteral)
}

func (s *scanner) integer() (string, bool) {
	s.space()
	n := 0
	for n < len(s.rest) && s.rest[n] >= '0' && s.rest[n] <= '9' {
		n++
	}
	if n == 0 || n > 9 || wordLength(s.rest) != n { // nine digits fit every client's integer
		return "", false
	}
	number := s.rest[:n]
	s.rest = s.rest[n:]
	return number, true
}

func (s *scanner) name() error {
	at := len(s.rest) - len(strings.TrimLeft(s.rest, "@"))
	n := at + wordLength(s.rest[at:])
	if n == at || at > 2 {
		return s.unexpected()
	}
	s.rest = s.rest[n:]
	if s.take("(") && !s.take(")") {
		return s.unexpected()
	}
	return nil
}

func (s *scanner) word(w string) bool {
	s.space()
	if n := wordLength(s.rest); n != len(w) || !strings.EqualFold(s.rest[:n], w) {
		return false
	}
	s.rest = s.rest[len(w):]
	return true
}

func (s *scanner) take(token string) bool {
	s.space()
	rest, ok := strings.CutPrefix(s.rest, token)
	s.rest = rest
	return ok
}

// space skips blanks and comments.
func (s *scanner) space() {
	for {
		s.rest = strings.TrimLeft(s.rest, blanks)
		end := ""
		switch {
		case strings.HasPrefix(s.rest, "--"):
			end = "\n"
		case strings.HasPrefix(s.rest, "/*"):
			end = "*/"
		default:
			return
		}
		_, after, found := strings.Cut(s.rest, end)
		if !found {
			after = ""
		}
		s.rest = after
	}
}

func (s *scanner) unexpected() error {
	if s.rest == "" {
		return fmt.Errorf("%w: the statement ends too early", errNotLiteral)
	}
	return fmt.Errorf("%w: unexpected %q", errNotLiteral, s.rest[:min(len(s.rest), 20)])
}

func wordLength(s string) int {
	n := strings.IndexFunc(s, func(r rune) bool {
		return !(r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	})
	if n < 0 {
		return len(s)
	}
	return n
}
