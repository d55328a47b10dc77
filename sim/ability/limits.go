package ability

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Needs is what a lab takes of things that the kernel gives to each user or process only so many of.
type Needs struct {
	Namespaces  int // network namespaces
	Descriptors int // open files of one process
}

// ErrLimit says that a world needs more than the kernel gives.
var ErrLimit = errors.New("more than the kernel allows")

// limitOfNamespaces is read where the user's own namespaces are counted (namespaces(7)).
const limitOfNamespaces = "/proc/sys/user/max_net_namespaces"

// Limits compares what a lab needs with what there is.
func Limits(n Needs) []Finding {
	var found []Finding
	for _, l := range []struct {
		name, remedy string
		need         int
		have         func() (int, error)
	}{
		{"network namespaces", "sudo sysctl -w user.max_net_namespaces=10000", n.Namespaces, namespaces},
		{"open files", "ulimit -n, as root, or LimitNOFILE=", n.Descriptors, descriptors},
	} {
		f := Finding{Name: "limit: " + l.name, Affects: "worlds of more nodes"}
		have, err := l.have()
		switch {
		case err != nil:
			f.Detail = err.Error()
		case have < l.need:
			f.Detail = fmt.Sprintf("%d, the world needs %d; raise it with: %s", have, l.need, l.remedy)
		default:
			f.Has, f.Detail = true, fmt.Sprintf("%d, the world needs %d", have, l.need)
		}
		found = append(found, f)
	}
	return found
}

// Fit returns an error that wraps ErrLimit and names every limit that a lab does not keep to.
func Fit(n Needs) error {
	var errs []error
	for _, f := range Limits(n) {
		if !f.Has {
			errs = append(errs, fmt.Errorf("%w: %s: %s", ErrLimit, strings.TrimPrefix(f.Name, "limit: "), f.Detail))
		}
	}
	return errors.Join(errs...)
}

func namespaces() (int, error) {
	text, err := os.ReadFile(limitOfNamespaces)
	if errors.Is(err, fs.ErrNotExist) {
		return math.MaxInt32, nil // a kernel without user namespaces has no limit
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// descriptors is the hard limit: the Go runtime raises the soft one to it (os, adjustFileLimit).
func descriptors() (int, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	return int(min(l.Max, math.MaxInt32)), nil
}
