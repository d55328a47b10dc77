package sim

import (
	"io"
	"slices"
	"sync"
)

// keyLog hands the TLS keys of connections to whoever asked for them, before they are used. The zero value is ready; nobody
// gets any. It is safe for use by several goroutines.
type keyLog struct {
	mu      sync.Mutex
	readers []*keyReader
}

type keyReader struct{ to func(line []byte) }

// Write implements io.Writer for tls.Config.KeyLogWriter. An error would end the connection, so there is none.
func (k *keyLog) Write(line []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.readers {
		r.to(line)
	}
	return len(line), nil
}

func (k *keyLog) subscribe(to func(line []byte)) (stop func()) {
	r := &keyReader{to}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.readers = append(k.readers, r)
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.readers = slices.DeleteFunc(k.readers, func(o *keyReader) bool { return o == r })
	}
}

// WatchKeys calls to with every line of the lab's TLS key log (draft-ietf-tls-keylogfile) until stop is called: those of all connections
// to embedded servers, and those of probes to real ones. An embedded server's answer waits until to has returned, so that whoever
// sees the answer's packets has their keys already. Nothing is logged if the servers were not started.
func (l *Lab) WatchKeys(to func(line []byte)) (stop func()) {
	if s := l.running(); s != nil {
		return s.keys.subscribe(to)
	}
	return func() {}
}

// Keys is where clients of real servers, which keep their keys to themselves, write theirs.
func (l *Lab) Keys() io.Writer {
	if s := l.running(); s != nil {
		return &s.keys
	}
	return io.Discard
}
