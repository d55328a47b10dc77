// Package soleuser has programs run that insist on becoming another user where there is one user alone.
//
// In a user namespace of an ordinary user one identity is mapped, and setgroups(2) is denied (user_namespaces(7)). A program that is root there
// and wants to be less, as tcpdump(8) of many distributions does, ends with EPERM or EINVAL. Here it is told that it has become whom it
// wanted to be, and stays who it is; files stay whose they are. That is what fakeroot(1) does, but in the kernel, so that programs without a C
// library are served too. Capabilities that a program gives up it does lose.
package soleuser

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ErrUnsupported: the system calls of this processor are not known here.
var ErrUnsupported = errors.New("not known for this processor")

// call is a system call that changes whose something is.
type call struct {
	number uint32
	ids    []uint32 // which arguments are identities; none: it is never carried out
}

// The identities that are left to the kernel: the one that there is, and "as it is".
const (
	root      uint32 = 0
	unchanged uint32 = 1<<32 - 1
)

// Only reports whether the calling process lives where nobody can become another user.
func Only() (bool, error) {
	text, err := os.ReadFile("/proc/self/setgroups")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // a kernel without user namespaces
	}
	return strings.TrimSpace(string(text)) == "deny", err
}

// Pretend has the kernel say "done", and do nothing, to the calling thread and all that it starts from now on, when they ask to become, or to
// give a file to, anybody but root. It cannot be undone. It needs CAP_SYS_ADMIN in the user namespace.
func Pretend() error {
	if len(calls) == 0 {
		return fmt.Errorf("system calls of %s: %w", runtime.GOARCH, ErrUnsupported)
	}
	program, err := bpf.Assemble(filter())
	if err != nil {
		return err
	}
	raw := make([]unix.SockFilter, len(program))
	for i, in := range program {
		raw[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	p := unix.SockFprog{Len: uint16(len(raw)), Filter: &raw[0]}
	// Without SPEC_ALLOW the kernel would slow the program down, against attacks that nobody mounts here.
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, uintptr(unsafe.Pointer(&p)))
	runtime.KeepAlive(raw)
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}

// Offsets in struct seccomp_data (linux/seccomp.h), on little-endian processors: those of calls are.
const (
	numberAt   = 0
	archAt     = 4
	argumentAt = 16
	argument   = 8 // bytes of each; an identity is in the first four
)

// filter decides about each system call in turn.
func filter() []bpf.Instruction {
	allow, pretend := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}, bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO} // with errno 0: success
	f := []bpf.Instruction{
		bpf.LoadAbsolute{Off: archAt, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		allow, // a program for another processor: its calls have other numbers
	}
	for _, c := range calls {
		var body []bpf.Instruction
		for _, id := range c.ids {
			body = append(body, bpf.LoadAbsolute{Off: argumentAt + argument*id, Size: 4},
				bpf.JumpIf{Cond: bpf.JumpEqual, Val: root, SkipTrue: 2}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: unchanged, SkipTrue: 1}, pretend)
		}
		if len(c.ids) == 0 {
			body = append(body, pretend)
		} else {
			body = append(body, allow)
		}
		f = append(f, bpf.LoadAbsolute{Off: numberAt, Size: 4}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: c.number, SkipTrue: uint8(len(body))})
		f = append(f, body...)
	}
	return append(f, allow)
}
