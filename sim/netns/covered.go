package netns

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Cover is a file that a program sees in the place of another one.
type Cover struct {
	File string // what is seen
	Over string // where; it must exist, and a symbolic link is followed
}

// View is how a program finds the machine. The zero value is: as it is.
type View struct {
	Covers []Cover
	// Hostname is what uname(2) calls the machine, unless empty.
	Hostname string
	// Prepare is called on the thread that starts the program, and that ends afterwards: what it does to the thread the program inherits,
	// and nobody else. nil does nothing.
	Prepare func() error
}

// StartViewing is Start for a program that finds the machine as the view has it, and /sys as it is in the namespace, where the
// kernel allows that. Nobody else sees any of it: the program gets mounts and a host name of its own, which go with it and its children.
func (h *Handle) StartViewing(cmd *exec.Cmd, v View) error {
	if cmd.SysProcAttr != nil && cmd.SysProcAttr.Pdeathsig != 0 {
		return ErrPdeathsig
	}
	held, err := h.acquire()
	if err != nil {
		return err
	}
	defer h.release()
	return onLostThread(func() error {
		if err := held.Set(); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		if err := cover(v.Covers); err != nil {
			return err
		}
		if err := call(v.Hostname); err != nil {
			return err
		}
		if v.Prepare != nil {
			if err := v.Prepare(); err != nil {
				return err
			}
		}
		return cmd.Start()
	})
}

// cover gives the calling thread mounts of its own, with the files in their places.
func cover(covers []Cover) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mounts of its own: %w", os.NewSyscallError("unshare", err))
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	// The old one shows the interfaces of the namespace in which it was mounted. A kernel that does not allow it
	// (mount_too_revealing, fs/namespace.c) leaves that as it is: few programs look there.
	_ = unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "")
	for _, c := range covers {
		if err := unix.Mount(c.File, c.Over, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("show %s at %s: %w", c.File, c.Over, err)
		}
	}
	return nil
}

// call gives the calling thread a host name of its own.
func call(name string) error {
	if name == "" {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("host name of its own: %w", os.NewSyscallError("unshare", err))
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("host name %s: %w", name, os.NewSyscallError("sethostname", err))
	}
	return nil
}

// onLostThread runs fn on a thread that ends afterwards: whatever fn did to it is nobody else's.
func onLostThread(fn func() error) (err error) {
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // as in Spawn: the main thread never ends
			err = onLostThread(fn)
			runtime.UnlockOSThread()
			return
		}
		err = fn()
	})
	wg.Wait()
	return err
}
