package cell

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// ErrForbidden is wrapped by every *ForbiddenError.
var ErrForbidden = errors.New("this machine forbids it")

// ForbiddenError says that the kernel, a security module or a container runtime does not allow a cell, and what would.
type ForbiddenError struct {
	// Op is what was refused, Err the kernel's answer.
	Op  string
	Err error
	// Setting is what forbids it, for instance "kernel.apparmor_restrict_unprivileged_userns=1".
	Setting string
	// Remedy is the exact command that allows it, or where there is no single one, advice.
	Remedy string
}

// Error prints one line.
func (e *ForbiddenError) Error() string {
	return fmt.Sprintf("cell: cannot %s: %v: %s; allow it with: %s", e.Op, e.Err, e.Setting, e.Remedy)
}

// Unwrap gives ErrForbidden and the kernel's answer.
func (e *ForbiddenError) Unwrap() []error { return []error{ErrForbidden, e.Err} }

// explain turns a failed step of a cell's making into an error. userNamespace says whether the cell was to have one.
func explain(op string, err error, userNamespace bool) error {
	return diagnosis{op, err, userNamespace, readSetting, unreadable()}.error()
}

// diagnosis finds what forbids a cell. It decides by the kernel's answer and its settings alone.
type diagnosis struct {
	op            string
	err           error
	userNamespace bool
	// setting returns the value of a file below /proc, trimmed; empty if there is none.
	setting func(path string) string
	// unreadable is the program's file, if this user may run it and not read it.
	unreadable string
}

// unreadable returns the program's file if it cannot be read. What the kernel has in /proc of a process that runs such a file is root's
// (proc_pid(5)), the map of its user namespace's identities included.
func unreadable() string {
	f, err := os.Open("/proc/self/exe")
	if err == nil {
		_ = f.Close() // only read
		return ""
	}
	if !errors.Is(err, fs.ErrPermission) {
		return ""
	}
	path, err := os.Executable()
	if err != nil {
		return "/proc/self/exe"
	}
	return path
}

func readSetting(path string) string {
	text, err := os.ReadFile("/proc/" + path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (d diagnosis) error() error {
	var errno syscall.Errno
	errors.As(d.err, &errno)
	switch errno {
	case syscall.ENOSPC, syscall.EUSERS: // clone(2): over the limit of some kind of namespace, or nested too deeply
		return d.limit(errno)
	case syscall.EPERM, syscall.EACCES:
		return d.permission(errno)
	case syscall.EAGAIN: // clone(2)
		return d.forbidden(errno, "a limit of processes is reached (ulimit -u, or pids.max of the control group)", "ulimit -u 4096, as root if it is a hard limit")
	case syscall.EINVAL: // clone(2): a kind of namespace that the kernel was built without
		return d.forbidden(errno, "the kernel lacks namespaces",
			"a kernel with CONFIG_USER_NS, CONFIG_PID_NS, CONFIG_NET_NS, CONFIG_IPC_NS and CONFIG_UTS_NS")
	}
	return fmt.Errorf("cell: cannot %s: %w", d.op, d.err)
}

func (d diagnosis) forbidden(errno syscall.Errno, setting, remedy string) error {
	return &ForbiddenError{Op: d.op, Err: errno, Setting: setting, Remedy: remedy}
}

func sysctl(name, value string) string { return fmt.Sprintf("sudo sysctl -w %s=%s", name, value) }

// enough is a limit of namespaces that no use of cells comes near to.
const enough = "10000"

func (d diagnosis) limit(errno syscall.Errno) error {
	for _, kind := range []string{"user", "pid", "net", "mnt", "ipc", "uts"} {
		if d.setting("sys/user/max_"+kind+"_namespaces") == "0" {
			name := "user.max_" + kind + "_namespaces"
			return d.forbidden(errno, name+"=0", sysctl(name, enough))
		}
	}
	return d.forbidden(errno, "a limit of user.max_*_namespaces is reached, or user namespaces are nested 32 deep",
		sysctl("user.max_user_namespaces", enough))
}

func (d diagnosis) permission(errno syscall.Errno) error {
	if d.userNamespace && d.unreadable != "" {
		return d.forbidden(errno, "this user may run "+d.unreadable+" but not read it, and gets no user namespace for that", "chmod a+r "+d.unreadable)
	}
	switches := []struct{ path, name, bad, good string }{
		{"sys/kernel/unprivileged_userns_clone", "kernel.unprivileged_userns_clone", "0", "1"},
		{"sys/kernel/apparmor_restrict_unprivileged_userns", "kernel.apparmor_restrict_unprivileged_userns", "1", "0"},
	}
	for _, s := range switches {
		if d.userNamespace && d.setting(s.path) == s.bad {
			return d.forbidden(errno, s.name+"="+s.bad, sysctl(s.name, s.good))
		}
	}
	const container = "a container with --privileged, or --cap-add SYS_ADMIN --cap-add NET_ADMIN" +
		" --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined"
	if strings.Contains(d.setting("self/status"), "\nSeccomp:\t2\n") {
		return d.forbidden(errno, "a seccomp filter is in force", container)
	}
	if d.userNamespace {
		return d.forbidden(errno, "neither CAP_SYS_ADMIN and CAP_NET_ADMIN nor user namespaces are to be had here", "root, or "+container)
	}
	return d.forbidden(errno, "a security module or a container runtime forbids it", container)
}
