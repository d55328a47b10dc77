package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/fsnotify/fsnotify"

	"drawbridge/enforcer/policy"
)

// source is where the policy comes from: a file, or a directory whose *.json files are parts of one document. Either may be
// reached by symbolic links, as in a volume of Kubernetes, whose files change when one link is swapped.
type source struct {
	path  string // absolute
	dir   bool
	parts map[string]part // of a directory, as they were read last
	text  []byte          // the document as it was read last
	links bool            // symbolic links lead to the document, as far as was seen when the directories were looked for last
}

// newSource looks what the path is. A file that is missing may come later, with await.
func newSource(path string, await bool) (*source, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(absolute)
	if errors.Is(err, os.ErrNotExist) && await {
		return &source{path: absolute}, nil
	}
	if err != nil {
		return nil, err
	}
	return &source{path: absolute, dir: info.IsDir()}, nil
}

// read returns the whole document, which is there until it is read again: a large one in new memory for each change would keep the
// garbage collector busy.
func (s *source) read() (document []byte, err error) {
	if s.dir {
		document, err = s.readParts(s.text[:0])
	} else {
		document, err = readInto(s.text[:0], s.path, policy.MaxSize)
	}
	if err == nil {
		s.text = document
	}
	return document, err
}

// roomFor makes room for a text of this length and for some more, as the next one may have.
func roomFor(text []byte, length int) []byte {
	if length <= cap(text) {
		return text
	}
	return append(make([]byte, 0, length+length/16), text...)
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int) ([]byte, error) { return readInto(nil, path, limit) }

// ErrNotRegular: what was to be read or written is no regular file. What waits at its other end, or does not, would hold the daemon up.
var ErrNotRegular = errors.New("not a regular file")

// openQuietly opens a regular file, and has no time of access noted when it is read, where this process may leave that out: noting waits for
// the journal of the file system, which may be busy for as long as a disk takes. It never waits for somebody at the other end.
func openQuietly(path string, flags int) (*os.File, error) {
	flags |= syscall.O_NONBLOCK
	f, err := os.OpenFile(path, flags|syscall.O_NOATIME, 0o600)
	if errors.Is(err, os.ErrPermission) { // perhaps somebody else's file (open(2))
		f, err = os.OpenFile(path, flags, 0o600)
	}
	if errors.Is(err, syscall.ENXIO) { // a socket, or a FIFO that nobody reads
		return nil, notRegular(path)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notRegular(path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// notRegular says what there is in the place of a file.
func notRegular(path string) error {
	kind := "something else"
	if info, err := os.Stat(path); err == nil {
		kind = kindOf(info.Mode())
	}
	return fmt.Errorf("%s: %w but %s; put a file in its place, by renaming it there", path, ErrNotRegular, kind)
}

// kindOf names what there is.
func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "a file"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "something else"
}

// readInto is readBounded into memory that may be used for that, as far as it goes.
func readInto(text []byte, path string, limit int) ([]byte, error) {
	f, err := openQuietly(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	text = roomFor(text, int(min(info.Size(), int64(limit)))+1)
	for {
		n, err := f.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		switch {
		case errors.Is(err, io.EOF):
			return text, nil
		case err != nil:
			return nil, fmt.Errorf("%s: %w", path, err)
		case len(text) > limit:
			return nil, fmt.Errorf("%s: more than %d MiB; split the point, or send fewer databases", path, limit>>20)
		case len(text) == cap(text):
			text = roomFor(text, 2*cap(text))
		}
	}
}

// missing reports whether there is no such file yet.
func (s *source) missing() bool {
	_, err := os.Stat(s.path)
	return errors.Is(err, os.ErrNotExist)
}

// identity tells one version of a file from another without reading it.
type identity struct {
	name                 string
	device, inode        uint64
	size, written, moved int64
}

func identify(path string) (identity, error) {
	info, err := os.Stat(path)
	if err != nil {
		return identity{}, err
	}
	id := identity{name: path, size: info.Size(), written: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.device, id.inode, id.moved = st.Dev, st.Ino, st.Ctim.Nano()
	}
	return id, nil
}

// identities are those of all files of the source; none where they cannot be told.
func (s *source) identities() []identity {
	files := []string{s.path}
	if s.dir {
		files, _ = s.files() // without them there is no identity either
	}
	var out []identity
	for _, f := range files {
		id, err := identify(f)
		if err != nil {
			return nil
		}
		out = append(out, id)
	}
	return out
}

// files lists the parts, sorted by name.
func (s *source) files() ([]string, error) {
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if isPart(e.Name()) && e.Type()&fs.ModeDir == 0 {
			out = append(out, filepath.Join(s.path, e.Name()))
		}
	}
	return out, nil // ReadDir sorts
}

// isPart tells whether a file of this name is a part: hidden ones are other programs' temporary files.
func isPart(name string) bool {
	return strings.HasSuffix(name, ".json") && !strings.HasPrefix(name, ".")
}

// maxLinks is how many symbolic links the kernel follows in a path (path_resolution(7)).
const maxLinks = 40

// watched are the directories in which something may happen that changes the document: that of the file, as a file that is
// replaced is a new file, and those of what its links lead to.
func (s *source) watched() []string {
	s.links = s.linked()
	var dirs []string
	add := func(dir string) {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	if s.dir {
		add(s.path)
		for _, f := range s.partLinks() {
			addHops(add, f)
		}
	}
	addHops(add, s.path)
	return dirs
}

// partLinks are the parts that are symbolic links.
func (s *source) partLinks() []string {
	files, err := s.files()
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(files, func(f string) bool {
		_, err := os.Readlink(f)
		return err != nil
	})
}

// addHops adds the directories of a file and of what its links lead to, and those in which a link on the way is.
func addHops(add func(string), path string) {
	for range maxLinks {
		add(filepath.Dir(path))
		if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			add(real)
			path = filepath.Join(real, filepath.Base(path))
		}
		next, err := os.Readlink(path)
		if err != nil {
			return
		}
		if !filepath.IsAbs(next) {
			next = filepath.Join(filepath.Dir(path), next)
		}
		// A directory on the way that is itself a link, such as ..data, is swapped in the directory that holds it.
		for dir := filepath.Dir(next); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			if _, err := os.Readlink(dir); err == nil {
				add(filepath.Dir(dir))
			}
		}
		path = next
	}
}

// urgency is what an event in a watched directory means.
type urgency int

const (
	unconcerned urgency = iota
	maybe               // something is being written or was taken away: there may be more to come
	now                 // something is in its place
)

// concerns tells what an event means for the document.
func (s *source) concerns(e fsnotify.Event) urgency {
	if e.Op == fsnotify.Chmod {
		return unconcerned
	}
	name := filepath.Base(e.Name)
	ours := e.Name == s.path
	if s.dir {
		ours = isPart(name) || ours
	}
	if !ours && !s.links {
		return unconcerned
	}
	if e.Has(fsnotify.Create) {
		return now
	}
	return maybe
}

// linked tells whether symbolic links lead to the document, so that its name does not say which events concern it.
func (s *source) linked() bool {
	if s.dir && len(s.partLinks()) > 0 {
		return true
	}
	real, err := filepath.EvalSymlinks(s.path)
	return err != nil || real != s.path
}
