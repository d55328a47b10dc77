package daemon

import (
	"context"
	"errors"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/nft"
)

// post is where a thread waits for deletions.
type post struct {
	deletions *nft.DeletionWatcher
	processor int // the only one that it runs on, or anyProcessor
}

const anyProcessor = -1

// mostPosts is up to how many processors each has a post of its own. Where there are more, waking all of them for each commit would cost more
// than it gains, and one of them is awake anyway.
const mostPosts = 8

// postsOn are the processors of the posts. The program that deletes ends some 60 µs after its commit, and a processor that has gone
// to sleep, of a virtual machine above all, may not be awake by then. So one thread waits on each: that on the deleting program's own
// processor runs before this one goes on, and whoever is the first answers.
func postsOn(processors []int) []int {
	if len(processors) == 0 || len(processors) > mostPosts {
		return []int{anyProcessor}
	}
	return processors
}

// allowedProcessors are those that the calling thread may run on; nil if the kernel does not tell.
func allowedProcessors() (all []int) {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	for i := range len(set) * unix.NFDBITS {
		if set.IsSet(i) {
			all = append(all, i)
		}
	}
	return all
}

// postGuards opens the posts in the namespace of the calling thread.
func (d *daemon) postGuards() error {
	for _, processor := range postsOn(allowedProcessors()) {
		deletions, err := nft.WatchDeletions(compile.TableName)
		if err != nil {
			return err
		}
		d.posts = append(d.posts, post{deletions, processor})
	}
	d.session.Sentry().SetPosts(len(d.posts))
	return nil
}

// standGuard puts back what somebody deletes, at once; mend then does the rest. It calls ready when nothing escapes it any more.
func (d *daemon) standGuard(ctx context.Context, at int, ready func()) error {
	p := d.posts[at]
	runtime.LockOSThread() // for good: a thread of this priority is of no use to others
	if err := p.take(); err != nil {
		d.postsToldOf.Do(func() { d.Log.Info("should the tables be deleted, mending them may take 20 ms more", "reason", err) })
	}
	ready()
	for {
		deletion, err := p.deletions.Next()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		if d.deaf {
			continue
		}
		if err := d.answer(ctx, at, deletion); err != nil {
			d.Log.Warn("the tables could not be put back at once", "error", err)
		}
	}
}

// answerLimit bounds an answer, which takes milliseconds.
const answerLimit = 5 * time.Second

// answer puts back what was deleted. Who ends the daemon meanwhile does not leave the denial behind instead of the table.
func (d *daemon) answer(ctx context.Context, at int, deletion nft.Deletion) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerLimit)
	defer cancel()
	_, err := d.session.Sentry().Restore(ctx, at, deletion)
	return err
}

// lookBack proves and tells, before the daemon ends, what was put back and nobody has looked at.
func (d *daemon) lookBack(ctx context.Context) {
	if !d.session.Sentry().IsPending() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerLimit)
	defer cancel()
	d.mend(ctx, written{at: time.Now(), unheard: true})
}

// take binds the calling thread to the post's processor, and gives it the least of the real-time priorities (sched(7)): who has something to
// answer to the kernel that cannot wait has to be woken before the process that it answers goes on. That takes CAP_SYS_NICE, or
// RLIMIT_RTPRIO of 1. The thread sleeps until something was deleted, and then writes for some milliseconds.
func (p post) take() error {
	var bound error
	if p.processor != anyProcessor {
		var only unix.CPUSet
		only.Set(p.processor)
		bound = os.NewSyscallError("sched_setaffinity", unix.SchedSetaffinity(0, &only))
	}
	return errors.Join(bound, os.NewSyscallError("sched_setattr", unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
	}, 0)))
}
