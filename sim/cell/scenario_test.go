package cell

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// scenarios are what workers do; they say what they see on the report.
var scenarios = map[string]func(argument string) int{
	"exit": func(s string) int {
		code, _ := strconv.Atoi(s)
		return code
	},
	"die": func(s string) int {
		n, _ := strconv.Atoi(s)
		signal.Reset()
		_ = unix.Kill(unix.Getpid(), syscall.Signal(n))
		select {}
	},
	"look":    look,
	"stay":    stay,
	"daemon":  daemon,
	"hear":    hear,
	"clean":   clean,
	"orphans": orphans,
	"nested":  nested,
	"greet":   greet,
	"path":    func(string) int { say("%s", os.Getenv("PATH")); return 0 },
}

func say(format string, args ...any) { fmt.Fprintf(ExtraFile(0), format+"\n", args...) }

func look(string) int {
	ifaces, err := net.Interfaces()
	say("interfaces %d %v", len(ifaces), err)
	uids, _ := os.ReadFile("/proc/self/uid_map")
	say("uids %s", strings.Join(strings.Fields(string(uids)), " "))
	setgroups, _ := os.ReadFile("/proc/self/setgroups")
	say("setgroups %s", strings.TrimSpace(string(setgroups)))
	say("uid %d parent %d", os.Getuid(), os.Getppid())
	_, inherited := os.LookupEnv(roleVariable)
	say("role %v", inherited)
	processes, _ := filepath.Glob("/proc/[0-9]*")
	say("processes %d", len(processes))
	for _, kind := range kinds {
		link, err := os.Readlink("/proc/self/ns/" + kind)
		say("%s %s %v", kind, link, err)
	}
	return 0
}

var kinds = []string{"ipc", "mnt", "net", "pid", "user", "uts"}

// daemon leaves a process behind that has a session of its own and holds the report open.
func daemon(string) int {
	cmd := exec.Command("sh", "-c", `trap "" HUP INT TERM; echo ready >&3; while :; do read -r line; done <&4`)
	r, w, err := os.Pipe()
	if err != nil {
		return exitBroken
	}
	cmd.ExtraFiles = []*os.File{ExtraFile(0), r}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return exitBroken
	}
	if os.Getenv("CELL_TEST_ARGUMENT") == "leave" {
		r.Close()
		return 0
	}
	<-make(chan int)
	return int(w.Fd())
}

// stay ends with its context.
func stay(string) int {
	say("ready")
	<-Context().Done()
	var stopped *StopError
	if !errors.As(context.Cause(Context()), &stopped) {
		return exitBroken
	}
	return stopped.ExitCode()
}

// clean takes an interrupt as the way out, and cleans up before it goes.
func clean(string) int {
	// The habit of programs outside: stop makes the next SIGINT deadly.
	ctx, stop := signal.NotifyContext(Context(), unix.SIGINT)
	say("ready")
	<-ctx.Done()
	stop()
	say("cleaning up")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // until the test lets it
	say("cleaned up")
	return 7
}

// hear says which signals it got, and ends on SIGTERM.
func hear(string) int {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, stopSignals...)
	say("ready")
	for s := range signals {
		if s == unix.SIGTERM {
			break
		}
		say("%s", s)
	}
	return 5
}

// orphans makes children whose parent leaves them, beside children of its own whose exit status must not get lost.
func orphans(string) int {
	for i := range 50 {
		r, w, err := os.Pipe()
		if err != nil {
			return exitBroken
		}
		cmd := exec.Command("sh", "-c", fmt.Sprintf("(exec sleep 0) & exit %d", i))
		cmd.ExtraFiles = []*os.File{w}
		err = cmd.Run()
		w.Close()
		if cmd.ProcessState.ExitCode() != i {
			say("child %d: %v", i, err)
			return 1
		}
		_, _ = io.ReadAll(r) // until the orphan has ended too
		r.Close()
	}
	// Ended orphans vanish from /proc once they are reaped; there is no event for that.
	for deadline := time.Now().Add(patience); ; {
		processes, _ := filepath.Glob("/proc/[0-9]*")
		if len(processes) == 2 {
			return 0
		}
		if time.Now().After(deadline) {
			say("still there: %v", processes)
			return 1
		}
	}
}

// nested starts a cell inside one whose limit of user namespaces is 0.
func nested(string) int {
	// The limit belongs to this cell's own user namespace; where there is none it would be the machine's.
	if uids, err := os.ReadFile("/proc/self/uid_map"); err != nil || strings.Contains(string(uids), "4294967295") {
		return exitBroken
	}
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		say("%v", err)
		return exitBroken
	}
	_, err := Run(context.Background(), Options{UserNamespace: true})
	say("%v", err)
	if !errors.Is(err, ErrForbidden) {
		return exitBroken
	}
	return 0
}

// greet accepts one connection on the passed listener.
func greet(string) int {
	l, err := net.FileListener(ExtraFile(1))
	if err != nil {
		return 1
	}
	c, err := l.Accept()
	if err != nil {
		return 2
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello from inside"); err != nil {
		return 3
	}
	return 0
}
