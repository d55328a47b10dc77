package suite

import (
	"errors"
	"fmt"
	"strings"
)

// Wires are what a lab's impaired links have done. The zero value is an ordinary lab.
type Wires struct {
	What          string // every wire does, in words
	Carried, Lost uint64 // packets, of all wires
}

// ImpairmentReport says under what impairment a run was judged.
type ImpairmentReport struct {
	What    string `json:"what"`
	Carried uint64 `json:"carried"` // packets
	Lost    uint64 `json:"lost"`    // packets that the wires dropped
	// NotJudged are properties of the specification that cannot be judged under it, by scenario.
	NotJudged []string `json:"not_judged,omitempty"`
}

// notJudged begins the note of a scenario of which something cannot be judged under the lab's impairment.
const notJudged = "not judged: "

// uncounted is what cannot be judged of handshakes where the wires lose packets themselves.
const uncounted = notJudged + "how many retransmissions a handshake takes: the lab's own wires lose packets"

// errLossy is why no evasions are played there.
var errLossy = errors.New("evasions: their clients send each packet once, and the lab's own wires lose packets; what " +
	"ordinary clients say is judged")

// noteWires puts the impairment into the report.
func (r *Report) noteWires(w Wires) {
	if w.What == "" {
		return
	}
	r.Impairment = &ImpairmentReport{What: w.What, Carried: w.Carried, Lost: w.Lost}
	for _, s := range r.Scenarios {
		for _, n := range s.Notes {
			if what, ok := strings.CutPrefix(n, notJudged); ok {
				r.Impairment.NotJudged = append(r.Impairment.NotJudged, fmt.Sprintf("%s (%s): %s", s.Name, strings.Join(s.Statements, ", "), what))
			}
		}
	}
}

// String is the summary's lines.
func (i *ImpairmentReport) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "every link to an enforcement point was impaired: %s; %d packets carried, %d lost\n", i.What, i.Carried, i.Lost)
	for _, n := range i.NotJudged {
		fmt.Fprintf(&b, "not judged: %s\n", n)
	}
	return b.String()
}
