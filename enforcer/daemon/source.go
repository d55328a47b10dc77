package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// source is where the policy comes from: a file, or a directory whose *.json files are parts of one document.
type source struct {
	path string
	dir  bool
}

// errPart: the files of a directory do not add up to one document.
var errPart = errors.New("the parts of the policy do not fit together")

// newSource looks what the path is. A file that is missing may come later, with await.
func newSource(path string, await bool) (source, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return source{}, err
	}
	info, err := os.Stat(absolute)
	if errors.Is(err, os.ErrNotExist) && await {
		return source{path: absolute}, nil
	}
	if err != nil {
		return source{}, err
	}
	return source{path: absolute, dir: info.IsDir()}, nil
}

// read returns the whole document.
func (s source) read() ([]byte, error) {
	if !s.dir {
		return os.ReadFile(s.path)
	}
	files, err := filepath.Glob(filepath.Join(s.path, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%w: %s holds no *.json file", errPart, s.path)
	}
	slices.Sort(files)
	return merge(files, os.ReadFile)
}

// missing reports whether there is no such file yet.
func (s source) missing() bool {
	_, err := os.Stat(s.path)
	return errors.Is(err, os.ErrNotExist)
}

// merge puts parts together: their lists of databases one after the other, in the order of the files' names; of every
// other member there is one.
func merge(files []string, read func(string) ([]byte, error)) ([]byte, error) {
	whole, owner := map[string]json.RawMessage{}, map[string]string{}
	var databases []json.RawMessage
	for _, name := range files {
		text, err := read(name)
		if err != nil {
			return nil, err
		}
		var part map[string]json.RawMessage
		if err := json.Unmarshal(text, &part); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errPart, name, err)
		}
		for _, key := range slices.Sorted(maps.Keys(part)) {
			if key == "databases" {
				var list []json.RawMessage
				if err := json.Unmarshal(part[key], &list); err != nil {
					return nil, fmt.Errorf("%w: %s: databases: %w", errPart, name, err)
				}
				databases = append(databases, list...)
				continue
			}
			if first, taken := owner[key]; taken && !bytes.Equal(whole[key], part[key]) {
				return nil, fmt.Errorf("%w: %s: %q is in %s already, and differs; leave one out", errPart, name, key, first)
			}
			owner[key], whole[key] = name, part[key]
		}
	}
	list, err := json.Marshal(databases)
	if err != nil {
		return nil, err
	}
	whole["databases"] = list
	return json.Marshal(whole)
}

// concerns tells whether a change in the watched directory may change the document.
func (s source) concerns(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod {
		return false
	}
	if s.dir {
		return strings.HasSuffix(e.Name, ".json")
	}
	return e.Name == s.path
}

// watched is the directory to watch: that of the file, as a file that is replaced by renaming another one is a new file.
func (s source) watched() string {
	if s.dir {
		return s.path
	}
	return filepath.Dir(s.path)
}
