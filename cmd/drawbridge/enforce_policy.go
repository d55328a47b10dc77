package main

import (
	"fmt"
	"io"
	"os"

	"drawbridge/enforcer"
	"drawbridge/enforcer/daemon"
	"drawbridge/enforcer/policy"

	"github.com/spf13/cobra"
)

// standardInput is how --policy names it.
const standardInput = "-"

// policyWords is what all verbs take as a policy's path.
const policyWords = "policy `path`, a file or a directory of parts; - for standard input"

func (o *enforceFlags) addPolicy(c *cobra.Command) {
	c.Flags().StringVar(&o.file, "policy", "", policyWords+" (default: standard input)")
}

// readPolicy reads the policy at a path, as enforce run would; standard input if there is none.
func (p *program) readPolicy(path string) (name string, document []byte, err error) {
	if path == "" || path == standardInput {
		const name = "standard input"
		document, err = readStream(name, p.std.in)
		return name, document, err
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", nil, err
	case info.IsDir():
		document, err = readParts(path)
	case info.Mode().IsRegular():
		var d daemon.Document
		d, err = daemon.ReadDocument(path)
		document = d.Text
	default: // a pipe, as of a shell's <(command)
		document, err = readPipe(path)
	}
	if err != nil {
		return "", nil, err
	}
	return path, document, nil
}

// readParts reads a directory. What is wrong with a part is said of that one's file: verbs know nothing but the whole document, whose
// lines stand nowhere.
func readParts(path string) ([]byte, error) {
	d, err := daemon.ReadDocument(path)
	if err != nil {
		return nil, err
	}
	if _, err := policy.Parse(path, d.Text); err != nil {
		return nil, d.Where(fmt.Errorf("%w: %w", enforcer.ErrRefused, err))
	}
	return d.Text, nil
}

func readPipe(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readStream(path, f)
}

func readStream(name string, from io.Reader) ([]byte, error) {
	document, err := io.ReadAll(io.LimitReader(from, policy.MaxSize+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	case len(document) > policy.MaxSize:
		return nil, fmt.Errorf("%s: more than %d MiB; split the point, or send fewer databases", name, policy.MaxSize>>20)
	}
	return document, nil
}
