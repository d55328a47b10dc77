package daemon

import (
	"os"
	"runtime/debug"
)

// What the garbage collector is told to keep the process under, softly (runtime/debug.SetMemoryLimit): so much in any case, and so
// many times the size of a document. A document of 1,000 databases of 30 rules has 2 MB, and takes some 40 MB while it is installed.
const (
	leastMemory   = 56 << 20
	memoryPerByte = 28
)

// collectAt is how much garbage there may be, in percent of what is in use, before it is collected (runtime/debug.SetGCPercent), within
// the limit above: with Go's own value a daemon of a few databases collects in the middle of each change.
const collectAt = 200

// limitMemory sets the limit for a document of this size, unless the user has set one (GOMEMLIMIT).
func limitMemory(document int) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(max(leastMemory, memoryPerByte*document)))
		debug.SetGCPercent(collectAt)
	}
}
