package endpoint

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

func opMsg(elements ...[]byte) []byte {
	document := bsoncore.BuildDocument(nil, elements...)
	return mongoRequest{id: 7}.reply(document)
}

func opQuery(collection string, elements ...[]byte) []byte {
	b := append([]byte{0, 0, 0, 0}, collection+"\x00"...)
	b = append(b, make([]byte, 8)...)
	b = append(b, bsoncore.BuildDocument(nil, elements...)...)
	h := make([]byte, mongoHeader)
	h[0], h[4], h[12], h[13] = byte(mongoHeader+len(b)), 7, 0xd4, 0x07
	return append(h, b...)
}

func TestParseMongo(t *testing.T) {
	hello := bsoncore.AppendInt32Element(nil, "hello", 1)
	r, ok := parseMongo(opMsg(hello))
	require.True(t, ok)
	require.False(t, r.legacy)
	require.Equal(t, "hello", firstKey(t, r))

	r, ok = parseMongo(opQuery("admin.$cmd", bsoncore.AppendInt32Element(nil, "isMaster", 1)))
	require.True(t, ok)
	require.True(t, r.legacy)
	require.EqualValues(t, 7, r.id)
	require.Equal(t, "isMaster", firstKey(t, r))

	for name, b := range map[string][]byte{
		"nothing":            nil,
		"header":             make([]byte, mongoHeader),
		"not a command":      opQuery("admin.users", hello),
		"cut off":            opMsg(hello)[:20],
		"another operation":  append([]byte{16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, opMsg(hello)[16:]...),
		"broken document":    bytes.Replace(opMsg(hello), []byte("hello\x00"), []byte("helloo"), 1),
		"document sequence":  append(append([]byte{}, opMsg(hello)[:20]...), 1, 4, 0, 0, 0),
		"length beyond end":  append(append([]byte{}, opMsg(hello)[:21]...), 0xff, 0, 0, 0, 0),
		"negative length":    append(append([]byte{}, opMsg(hello)[:21]...), 0xff, 0xff, 0xff, 0xff, 0),
		"legacy, no numbers": append(opQuery("admin.$cmd")[:mongoHeader], []byte("\x00\x00\x00\x00admin.$cmd\x00")...),
	} {
		_, ok := parseMongo(b)
		require.False(t, ok, name)
	}
}

func firstKey(t *testing.T, r mongoRequest) string {
	t.Helper()
	e, err := r.command.IndexErr(0)
	require.NoError(t, err)
	return e.Key()
}

func FuzzParseMongo(f *testing.F) {
	f.Add(opMsg(bsoncore.AppendInt32Element(nil, "hello", 1)))
	f.Add(opQuery("admin.$cmd", bsoncore.AppendInt32Element(nil, "isMaster", 1)))
	s := &session{server: &Server{cfg: Config{Now: time.Now}}}
	f.Fuzz(func(t *testing.T, message []byte) {
		r, ok := parseMongo(message)
		if !ok {
			return
		}
		require.NoError(t, answerMongo(s, r.command).Validate())
		require.NotEmpty(t, r.command.String())
	})
}

// pipeListener hands out one end of a pipe.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// FuzzServe sends anything to every engine: whatever it is, the server reads no more than a request's worth, ends the connection
// when the client does, and serves on.
func FuzzServe(f *testing.F) {
	configs := everyConfig()
	seeds := [][]byte{
		startup(sslRequestCode), startup(gssEncRequestCode), append(startup(sslRequestCode), 'x'),
		append([]byte{0, 0, 0, 25, 0, 3, 0, 0}, "user\x00drawbridge\x00\x00"...),
		mysqlLogin(), []byte("PING\r\n*1\r\n$4\r\nQUIT\r\n"), []byte("HELLO 3 AUTH a b\r\n"),
		opMsg(bsoncore.AppendInt32Element(nil, "hello", 1)), []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), {0x16, 3, 1, 0, 1, 1},
	}
	for i := range configs {
		for _, seed := range seeds {
			f.Add(uint8(i), seed)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, sent []byte) {
		l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
		s, err := Serve(l, configs[int(which)%len(configs)])
		require.NoError(t, err)
		near, far := net.Pipe()
		l.conns <- far
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(io.Discard, near) })
		_, _ = near.Write(sent) // the server may have closed by then
		require.NoError(t, near.Close())
		wg.Wait()
		require.NoError(t, s.Close())
		events := s.Journal().Events(0)
		require.Equal(t, Accepted, events[0].Kind)
		require.Equal(t, Closed, events[len(events)-1].Kind)
		require.LessOrEqual(t, events[len(events)-1].Received, uint64(len(sent)))
	})
}
