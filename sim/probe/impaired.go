package probe

import (
	"fmt"
	"time"
)

// Bounds of the impairment under which verdicts can be concluded.
const (
	// MostDelay, each way: an answer to a SYN has to come before the client's TCP repeats it, and the first words of a conversation within
	// sayLimit.
	MostDelay = 100 * time.Millisecond
	// MostLoss: beyond, a connection in some hundred is not made within the prober's patience.
	MostLoss = 0.1
)

// trips is twice as often as a conversation with TLS and a login crosses a link and waits for what comes back.
const trips = 28

// doubtful takes back what rests on nothing having been heard for a while, where a link is worse than verdicts can be concluded under: a leak is
// not told from a conversation that takes its time. People may make links of any kind in a lab by hand; a judge does not.
func (p *Prober) doubtful(c conclusion) conclusion {
	if c.verdict != Leaked && c.verdict != Inconclusive {
		return c
	}
	for _, x := range p.lab.Impaired() {
		if i := x.Impairment; i.Delay > MostDelay || i.Loss > MostLoss {
			c.verdict, c.by = Inconclusive, ByNobody
			c.reason += fmt.Sprintf("; no more can be concluded while the link %s:%s has %s (at most %s and %g%%)",
				x.Node, x.Interface, i, MostDelay, MostLoss*100)
			return c
		}
	}
	return c
}
