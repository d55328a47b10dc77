package suite

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"drawbridge/sim/capture"
)

// Recorder shows the packets of one client's port that passed an enforcement point a moment ago, the oldest first, both of the side
// where they came from and of the one where they went.
type Recorder interface {
	Recent(point string, client uint16) []capture.Packet
}

// Proof is what was seen of an attempt that did not end as it must.
type Proof struct {
	// Seen is what the probe concluded from: the client's end, the entrance, the exit, the database's journal.
	Seen any `json:"seen,omitempty"`
	// Packets are those of the attempt at the enforcement point, if they were still recorded when its scenario ended.
	Packets []PacketLine `json:"packets,omitempty"`
	// RightIf says which single setting, were it different, would make what happened right: what the enforcer behaves like.
	RightIf string `json:"right_if,omitempty"`

	raw []capture.Packet
}

// Raw returns the packets as they were captured. A report that was read from a file has none.
func (p *Proof) Raw() []capture.Packet { return p.raw }

// PacketLine is one packet at the enforcement point.
type PacketLine struct {
	Micros  int64  `json:"us"` // since the attempt's first packet
	At      string `json:"at"` // "in inet0", "out vpc0"
	From    string `json:"from"`
	To      string `json:"to"`
	Client  bool   `json:"client"` // it goes from the client towards the database
	Flags   string `json:"flags,omitempty"`
	Payload int    `json:"payload"` // bytes
}

// Limits of what a report holds of a failing enforcer: the first attempts of a scenario show what there is to see.
const (
	maxProofs  = 6  // attempts of one scenario
	maxPackets = 60 // of one attempt
)

// prove adds to the attempts of a scenario that did not end as they must the packets that were seen of them.
func (r *runner) prove(record *ScenarioReport) {
	if r.Recorder == nil {
		return
	}
	proved := 0
	for i := range record.Attempts {
		a := &record.Attempts[i]
		if a.Proof == nil || !a.local.IsValid() || a.Point == "" || proved == maxProofs {
			continue
		}
		proved++
		packets := r.Recorder.Recent(a.Point, a.local.Port())
		a.Proof.raw = packets[:min(len(packets), maxPackets)]
		a.Proof.Packets = lines(a.Proof.raw, a.local)
	}
}

func lines(packets []capture.Packet, client netip.AddrPort) []PacketLine {
	var out []PacketLine
	var first time.Time
	for _, p := range packets {
		if first.IsZero() {
			first = p.At
		}
		at := "in " + p.Iface
		if p.Outgoing {
			at = "out " + p.Iface
		}
		out = append(out, PacketLine{
			Micros: p.At.Sub(first).Microseconds(), At: at, From: p.Flow.Src.String(), To: p.Flow.Dst.String(),
			Client: p.Flow.Src.Port() == client.Port(), Flags: p.Flags.String(), Payload: len(p.Payload),
		})
	}
	return out
}

// Progress is how far a run is.
type Progress struct {
	Done, Selected, Failed int // scenarios
}

// tellProgress is called when a scenario has ended.
func (r *runner) tellProgress(ended *ScenarioReport) {
	if r.Progress == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done.Done++
	r.done.Selected = len(r.order)
	if ended.Result == Failed {
		r.done.Failed++
	}
	r.Progress(r.done)
}

// digest identifies the specification that a run judges by: SHA-256 over each feature file's name, length and content, in the order
// of their names. A file that is added, lost or changed by one byte gives another.
func digest(features fs.FS) (SuiteReport, error) {
	files, err := fs.Glob(features, "*.feature")
	if err != nil {
		return SuiteReport{}, fmt.Errorf("features: %w", err)
	}
	slices.Sort(files)
	sum := sha256.New()
	for _, name := range files {
		text, err := fs.ReadFile(features, name)
		if err != nil {
			return SuiteReport{}, fmt.Errorf("features: %w", err)
		}
		fmt.Fprintf(sum, "%s\n%d\n%s", name, len(text), text)
	}
	return SuiteReport{Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Features: len(files)}, nil
}
