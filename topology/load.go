package topology

import (
	_ "embed"
	"fmt"
	"io"
	"os"
)

//go:embed testdata/default.yaml
var defaultWorld []byte

// Default returns the embedded default world.
func Default() *World {
	w, err := Parse("default.yaml", defaultWorld)
	if err != nil {
		// The document is part of the program; a test parses it.
		panic(fmt.Sprintf("the embedded world is invalid: %v", err))
	}
	return w
}

// Load reads the world in a file. See Parse for the errors; one from the file system is wrapped.
func Load(path string) (*World, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("topology: %w", err)
	}
	defer f.Close()
	// One byte more than Parse accepts, so that it can tell; the file may be without end.
	data, err := io.ReadAll(io.LimitReader(f, MaxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("topology: %w", err)
	}
	return Parse(path, data)
}

// Parse reads a world from a YAML document (docs/TOPOLOGY.md); name is what errors call it. Every error it returns is
// a joined *Error. It reports everything that is wrong with the document's form, or if that is sound, everything that is wrong
// with its meaning: the second cannot be told while the first is in doubt.
func Parse(name string, data []byte) (*World, error) {
	p := &problems{file: name}
	doc := readDocument(reader{p}, data)
	if err := p.err(); err != nil {
		return nil, err
	}
	w := build(p, doc)
	if err := p.err(); err != nil {
		return nil, err
	}
	return w, nil
}
