//go:build !operator

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// errSameFile: a capture and its keys would be written over each other.
var errSameFile = errors.New("is the file that the packets are written to; the keys need one of their own, or are in the capture without --keylog")

// outputs are the files of a capture, as they are handed to the lab. What was in them stays until the lab has taken the order.
type outputs struct {
	files   []*os.File // the capture's, and the key log's if there is one
	created []string   // paths of those that were not there before
	opened  []*os.File
}

// openOutputs opens the files of a capture: to, or standard output if that is "", and keys unless it is "".
func openOutputs(stdout *os.File, to, keys string) (*outputs, error) {
	var o outputs
	if to == "" {
		o.files = append(o.files, stdout)
	}
	for _, path := range []string{to, keys} {
		if path == "" {
			continue
		}
		if err := o.open(path); err != nil {
			return nil, errors.Join(err, o.close(false))
		}
	}
	if same, err := sameFile(o.files); err != nil || same {
		if same {
			err = fmt.Errorf("--keylog: %s %w", keys, errSameFile)
		}
		return nil, errors.Join(err, o.close(false))
	}
	return &o, nil
}

// open opens a file without emptying it, or makes it. It may hold keys, and is the user's alone.
func (o *outputs) open(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		o.created = append(o.created, path)
	}
	if errors.Is(err, fs.ErrExist) { // a link to nowhere, too, which leads to a new file
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	}
	if err != nil {
		return err
	}
	o.files, o.opened = append(o.files, f), append(o.opened, f)
	return nil
}

// close closes the files that were opened. Unless they were used, those that were made for it go again.
func (o *outputs) close(used bool) error {
	var errs []error
	for _, f := range o.opened {
		errs = append(errs, f.Close())
	}
	if used {
		return errors.Join(errs...)
	}
	for _, path := range o.created {
		errs = append(errs, os.Remove(path))
	}
	return errors.Join(errs...)
}

// sameFile reports whether two files are one and the same, other than a device.
func sameFile(files []*os.File) (bool, error) {
	if len(files) < 2 {
		return false, nil
	}
	one, err := files[0].Stat()
	other, otherErr := files[1].Stat()
	if err := errors.Join(err, otherErr); err != nil {
		return false, err
	}
	return os.SameFile(one, other) && one.Mode()&fs.ModeDevice == 0, nil
}

// emptied empties files of which the lab has taken possession. What cannot be emptied, a pipe for instance, has nothing in it.
func emptied(files []*os.File) error {
	for _, f := range files {
		if err := f.Truncate(0); err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return nil
}
