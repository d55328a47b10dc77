//go:build !operator

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"drawbridge/sim/cell"

	"golang.org/x/sys/unix"
)

// errInterrupted: a signal ended a lab before its time.
var errInterrupted = errors.New("interrupted; nothing of the lab is left")

// inCell runs this command line again inside a cell, with the given files at hand there, and ends as it does there. The
// verb has checked its input before, and does its work where cell.Inside() is true.
func (p *program) inCell(ctx context.Context, files ...*os.File) error {
	std, err := openStreams(p.std)
	if err != nil {
		return unable("streams", err)
	}
	interrupted, stop := untilSignal(ctx) // beside cell.Run, which hands them inside
	defer stop()
	code, err := cell.Run(ctx, cell.Options{
		Args: p.args, Stdin: std.in, Stdout: std.out, Stderr: std.err, ExtraFiles: files,
	})
	err = errors.Join(err, std.close())
	switch {
	case err != nil:
		return unable("", err) // that it is about the cell, it says itself
	case (code < exitOK || code > exitUnjudged) && interrupted.Err() != nil: // before it could say so, or a second time
		return unable("", errInterrupted)
	case code == (&cell.StopError{Signal: unix.SIGPIPE}).ExitCode():
		return &quiet{code} // who read what it printed has enough, and wants to hear no more
	case code < exitOK || code > exitUnjudged:
		return unable("cell", fmt.Errorf("ended with status %d", code))
	case code != exitOK:
		return &quiet{code} // said inside
	}
	return nil
}

// fileStreams are streams that another process can be given.
type fileStreams struct {
	in, out, err *os.File
	copies       sync.WaitGroup
	opened       []io.Closer
}

// openStreams returns std as files: those that are no files are reached through pipes. Input that is no file is not
// passed on: no verb that runs in a cell reads any.
func openStreams(std streams) (*fileStreams, error) {
	f := &fileStreams{}
	var errs [3]error
	f.in, errs[0] = f.input(std.in)
	f.out, errs[1] = f.output(std.out)
	f.err, errs[2] = f.output(std.err)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *fileStreams) input(r io.Reader) (*os.File, error) {
	if file, ok := r.(*os.File); ok {
		return file, nil
	}
	null, err := os.Open(os.DevNull)
	if err == nil {
		f.opened = append(f.opened, null)
	}
	return null, err
}

func (f *fileStreams) output(w io.Writer) (*os.File, error) {
	if file, ok := w.(*os.File); ok {
		return file, nil
	}
	r, pipe, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	f.opened = append(f.opened, pipe)
	f.copies.Go(func() {
		_, _ = io.Copy(w, r) // a writer that fails has had its chance to say so
		_ = r.Close()
	})
	return pipe, nil
}

// close waits until everything written has arrived.
func (f *fileStreams) close() error {
	var errs []error
	for _, c := range f.opened {
		errs = append(errs, c.Close())
	}
	f.copies.Wait()
	return errors.Join(errs...)
}

// scratch is where a cell keeps files: a file system in memory that only the cell sees, and that ends with it. The
// directory exists on every Linux with a C library, and what lies there outside is none of the cell's business.
const scratch = "/dev/shm"

// scratchSize bounds what a cell can keep there, in the words of tmpfs(5). Real servers have some 30 MB of data each, of
// which a world may have dozens; what is not written takes no memory.
const scratchSize = "size=4g"

// mountScratch returns an empty directory that nothing outside the cell sees. It is called once in a cell.
func mountScratch() (string, error) {
	if !cell.Inside() {
		return "", errors.New("not in a cell")
	}
	if err := unix.Mount("tmpfs", scratch, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,"+scratchSize); err != nil {
		return "", fmt.Errorf("mount a private file system at %s: %w", scratch, err)
	}
	return scratch, nil
}
