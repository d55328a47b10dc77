package probe

import "time"

// Bounds of the impairment under which verdicts can be concluded.
const (
	// MostDelay, each way: an answer to a SYN has to come before the client's TCP repeats it, and the first words of a conversation within
	// sayLimit.
	MostDelay = 100 * time.Millisecond
	// MostLoss: beyond, a connection in some hundred is not made within the prober's patience.
	MostLoss = 0.1
)
