//go:build !operator

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"drawbridge/cmd/drawbridge/internal/control"

	"github.com/spf13/cobra"
)

// defaultLab is the name of a lab that was given none.
const defaultLab = "lab"

func (p *program) simCommand() *cobra.Command {
	c := group(&cobra.Command{
		Use:   "sim",
		Short: "Keep the emulated Internet up, to try things by hand",
		Long: `sim up builds the lab that conform judges in, and keeps it up until Ctrl-C or sim down. The other verbs reach it from other
terminals of the same user. No enforcer is in force in it until you bring one in by sim enforce: everything reaches everything.

The lab lives and dies with sim up. It touches nothing of the machine's network, and nothing of it lies on disk.`,
		Example: `  drawbridge sim up --detach
  drawbridge sim matrix
  drawbridge sim exec office -- psql 'host=203.0.113.129 user=drawbridge password=draw-the-bridge sslmode=require' -c "SELECT 'hello'"
  drawbridge sim enforce --all --force-tls pg-shared
  drawbridge sim probe office pg-dedicated
  drawbridge sim down`,
	})
	var name string
	c.PersistentFlags().StringVar(&name, "lab", defaultLab, "the lab's `name`; several labs of different names can be up at a time")
	c.AddCommand(p.simUpCommand(&name), p.simListCommand(), p.simExecCommand(&name), p.simProbeCommand(&name), p.simMatrixCommand(&name), p.simWatchCommand(&name), p.simBreakCommand(&name),
		p.simDownCommand(&name), p.simGraphCommand(&name), p.simRulesCommand(&name), p.simCaptureCommand(&name), p.simEnforceCommand(&name),
		p.simPolicyCommand(&name), p.simCheckCommand(), p.simDoctorCommand())
	return c
}

// order is what a verb asks of a lab. Exactly one member is set.
type order struct {
	Exec    *execOrder    `json:"exec,omitempty"`
	Probe   *probeOrder   `json:"probe,omitempty"`
	Matrix  *matrixOrder  `json:"matrix,omitempty"`
	Watch   *watchOrder   `json:"watch,omitempty"`
	Rules   *rulesOrder   `json:"rules,omitempty"`
	Enforce *enforceOrder `json:"enforce,omitempty"`
	Break   *breakOrder   `json:"break,omitempty"`
	Capture *captureOrder `json:"capture,omitempty"`
	Graph   string        `json:"graph,omitempty"`  // the format
	Policy  string        `json:"policy,omitempty"` // the point
	Info    bool          `json:"info,omitempty"`
	Down    bool          `json:"down,omitempty"`
	// Signal is handed to the program of an exec, in a message of its own behind the first. To a capture, a matrix and a watch any such message
	// says that it was enough.
	Signal int `json:"signal,omitempty"`
}

// answer is a lab's to an order. Error is set, or the member that the order asks for.
type answer struct {
	Error string `json:"error,omitempty"`
	Code  int    `json:"code,omitempty"` // the exit code that belongs to Error
	// Running comes before the Exit of an exec: the program has started.
	Running bool   `json:"running,omitempty"`
	Exit    *exit  `json:"exit,omitempty"`
	Seen    []seen `json:"seen,omitempty"`
	// More says that Seen is not the last of it.
	More bool `json:"more,omitempty"`
	// Tried comes any number of times before the answer to an order that takes long.
	Tried *tried `json:"tried,omitempty"`
	// Look is sent again and again in answer to a watchOrder.
	Look     *look      `json:"look,omitempty"`
	Enforced []enforced `json:"enforced,omitempty"`
	Captured *captured  `json:"captured,omitempty"`
	// Capturing comes before the answer to a captureOrder: no packet is missed from now on.
	Capturing bool     `json:"capturing,omitempty"`
	Text      string   `json:"text,omitempty"`
	Info      *labInfo `json:"info,omitempty"`
}

// ask sends an order to a lab and returns its answer, or its error under the verb's name.
func ask(ctx context.Context, verb, lab string, o order) (answer, error) {
	return askTelling(ctx, verb, lab, o, func(tried) {})
}

// askTelling is ask for an order of which the lab says how far it is.
func askTelling(ctx context.Context, verb, lab string, o order, tell func(tried)) (answer, error) {
	c, err := reach(ctx, verb, lab)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if err := c.Send(o); err != nil {
		return answer{}, unable(verb, err)
	}
	for {
		a, err := receive(verb, c)
		if err != nil || a.Tried == nil {
			return a, err
		}
		tell(*a.Tried)
	}
}

// reach connects to a lab of this user.
func reach(ctx context.Context, verb, lab string) (*control.Conn, error) {
	if err := control.CheckName(lab); err != nil {
		return nil, misuse(verb+": --lab", err)
	}
	c, err := control.Dial(ctx, os.Getuid(), lab)
	if errors.Is(err, control.ErrNoLab) {
		return nil, misusef(verb, "%w; start it with: drawbridge sim up --lab %s", err, lab)
	}
	if err != nil {
		return nil, unable(verb, err)
	}
	return c, nil
}

// receive returns the next answer. A lab whose process was stopped is not waited for for ever.
func receive(verb string, c *control.Conn) (answer, error) {
	stopped := unlessStopped(c)
	a, err := receiveUnwatched(verb, c)
	if silent := stopped(); silent != nil {
		return answer{}, unable(verb, silent)
	}
	return a, err
}

// receiveUnwatched is receive where what is waited for goes on while the lab's process is stopped, or is not waited for without end.
func receiveUnwatched(verb string, c *control.Conn) (answer, error) {
	var a answer
	files, err := c.Receive(&a)
	for _, f := range files {
		_ = f.Close() // none was asked for
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the lab ended before it answered")
	}
	if err != nil {
		return a, unable(verb, err)
	}
	if a.Error != "" {
		return a, &failure{code: max(a.Code, exitUsage), place: verb, err: errors.New(a.Error)}
	}
	return a, nil
}

// unlessStopped closes a connection once the process at its other end has been stopped for as long as it has to answer. The returned function
// ends that, and says if it came to it.
func unlessStopped(c *control.Conn) func() error {
	holder, err := c.Holder()
	if err != nil {
		return func() error { return nil } // it has ended, and so will the connection
	}
	done, found := make(chan struct{}), make(chan error, 1)
	go func() {
		defer holder.Close()
		tick := time.NewTicker(refresh)
		defer tick.Stop()
		last := time.Now() // that it was seen to run
		for {
			select {
			case <-done:
				found <- nil
				return
			case now := <-tick.C:
				switch {
				case !holder.Stopped():
					last = now
				case now.Sub(last) > answerLimit:
					_ = c.Close() // wakes whoever receives
					found <- silence(c.Lab(), holder)
					return
				}
			}
		}
	}()
	return func() error {
		close(done)
		return <-found
	}
}
