//go:build !operator

package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"drawbridge/sim/netns/netnstest"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// How often TestKilledAtAnyMoment kills, and with which seed: these variables say otherwise.
const (
	killsVariable = "DRAWBRIDGE_TEST_KILLS"
	seedVariable  = "DRAWBRIDGE_TEST_SEED"
	usualKills    = 100
)

// goneWithin is how long anything of a lab may last whose holder was killed, in all but one of so many kills: the machine may be busy
// otherwise, and what does not end at all is found by patience.
const (
	goneWithin  = time.Second
	oneMayLastN = 20
)

// tagVariable marks the processes of one round: they hand it down to all that they start.
const tagVariable = "DRAWBRIDGE_TEST_ROUND"

const detachFlag = "--detach"

// victim is who is killed. The zero value is nobody.
type victim string

const (
	foreground victim = "sim up"
	holding    victim = "the process in the background"
	waiting    victim = "sim up --detach while it waits"
)

// TestKilledAtAnyMoment kills sim up at any moment of its life: within a second nothing of it is there, and its name is free at once.
func TestKilledAtAnyMoment(t *testing.T) {
	netnstest.NoLeaks(t)
	kills, seed := numberFrom(t, killsVariable, usualKills), numberFrom(t, seedVariable, int(time.Now().UnixNano()&0xffffffff))
	t.Logf("%s=%d", seedVariable, seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	t.Setenv("TMPDIR", t.TempDir())
	before := machine(t)
	k := killing{t: t, name: fmt.Sprintf("kill-%d", os.Getpid())}
	span := k.untilReady() * 3 / 2 // a third are killed when they are up, or about to be
	for i := range kills {
		who := []victim{foreground, holding, waiting}[i%3]
		k.kill(who, i, time.Duration(random.Int64N(int64(span))))
	}
	require.Equal(t, before, machine(t), "afterwards")
	slices.Sort(k.took)
	t.Logf("%d kills in the first %v, %d of them of labs that were up, with %d daemons: all gone after %v at the median, %v at the most",
		kills, span, k.up, k.daemons, k.took[len(k.took)/2], k.took[len(k.took)-1])
	require.Less(t, k.took[len(k.took)-1-len(k.took)/oneMayLastN], goneWithin)
}

func numberFrom(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	text, ok := os.LookupEnv(variable)
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, variable)
	return n
}

// killing is the state of the test. All rounds have one name.
type killing struct {
	t           *testing.T
	name        string
	tag         string
	took        []time.Duration
	up, daemons int
}

// program is this program in the round.
func (k *killing) program(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", tagVariable+"="+k.tag)
	return cmd
}

// untilReady measures how long a lab takes.
func (k *killing) untilReady() time.Duration {
	k.tag = "measured"
	began := time.Now()
	out, err := k.program("sim", "up", "--lab", k.name, detachFlag).CombinedOutput()
	require.NoError(k.t, err, string(out))
	took := time.Since(began)
	out, err = k.program("sim", "down", "--lab", k.name).CombinedOutput()
	require.NoError(k.t, err, string(out))
	return took
}

// kill starts a lab, kills somebody after so long, and waits until nothing is left.
func (k *killing) kill(who victim, round int, after time.Duration) {
	k.t.Helper()
	k.tag = fmt.Sprintf("%d-%d", os.Getpid(), round)
	args := []string{"sim", "up", "--lab", k.name}
	if who != foreground {
		args = append(args, detachFlag)
	}
	cmd, said := k.program(args...), &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = said, said
	require.NoError(k.t, cmd.Start())
	<-time.After(after)
	ready := strings.Contains(said.String(), "is ready")
	if ready {
		k.up++
		k.leaveDaemon()
		(&running{worker: k.keepers()[2]}).sentinels(k.t)
	}
	pid := cmd.Process.Pid
	if keepers := k.keepers(); who == holding && len(keepers) > 0 {
		pid = keepers[0]
	}
	// Whoever lives now must be gone; who is born meanwhile is found later.
	gone := watch(k.t, k.living())
	began := time.Now()
	require.NoError(k.t, unix.Kill(pid, unix.SIGKILL)) // one that has ended is not waited for yet
	if who == waiting {
		_ = cmd.Wait()                                   // it was killed, or not
		if strings.Contains(said.String(), "is ready") { // and is no business of the one that said so any more
			began = time.Now()
			require.NoError(k.t, unix.Kill(k.keepers()[0], unix.SIGKILL), k.tag)
		}
	}
	gone()
	for left := k.living(); len(left) > 0; left = k.living() {
		watch(k.t, left)()
	}
	namespacesGone(k.t)
	took := time.Since(began)
	_ = cmd.Wait() // its status is of no interest
	require.NotContains(k.t, said.String(), "taken", k.tag)
	if took >= goneWithin {
		k.t.Logf("%s was killed after %v, and the last of it was gone after %v", who, after, took)
	}
	k.took = append(k.took, took)
}

// leaveDaemon has a program in the lab that outlives the one that started it.
func (k *killing) leaveDaemon() {
	out, err := k.program("sim", "exec", "--lab", k.name, "office", "--", "setsid", "sh", "-c",
		`trap "" HUP INT TERM; (while :; do sleep 1000; done) >/dev/null 2>&1 </dev/null & echo left`).CombinedOutput()
	require.NoError(k.t, err, string(out))
	require.Equal(k.t, "left\n", string(out))
	k.daemons++
}

// living lists the round's processes.
func (k *killing) living() []int {
	mark := []byte(tagVariable + "=" + k.tag + "\x00")
	return processes(k.t, func(pid int) bool {
		environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)) // empty of one that has ended
		return err == nil && bytes.Contains(environment, mark)
	})
}

// keepers lists the processes of the lab itself, each the parent of the next: the outer one, init, and the worker.
func (k *killing) keepers() []int {
	all := map[int]int{} // by parent
	for _, pid := range k.living() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // empty of one that has ended
		if bytes.Contains(line, []byte("\x00sim\x00up\x00")) && !bytes.Contains(line, []byte(detachFlag)) {
			all[parentOf(pid)] = pid
		}
	}
	isChild := func(pid int) bool {
		for _, p := range all {
			if p == pid {
				return true
			}
		}
		return false
	}
	for parent, pid := range all {
		if isChild(parent) {
			continue
		}
		chain := []int{pid}
		for next, ok := all[pid]; ok; next, ok = all[next] {
			chain = append(chain, next)
		}
		return chain
	}
	return nil
}

// parentOf is 0 for a process that is not there.
func parentOf(pid int) int {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, behind, _ := strings.Cut(string(stat), ") ") // proc_pid_stat(5): state and parent follow the name
	fields := strings.Fields(behind)
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1]) // the kernel writes numbers there
	return parent
}
