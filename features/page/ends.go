package page

import (
	"encoding/json"
	"fmt"
	"strings"

	"drawbridge/features/suite"
	"drawbridge/sim/probe"
)

// end is what was seen of an attempt at one place.
type end struct {
	Place, Saw string
	Reached    bool
}

// ends tells what was seen of an attempt from the client to the database; nil if nothing was recorded.
func ends(a suite.AttemptLine) []end {
	if a.Proof == nil || a.Proof.Seen == nil {
		return nil
	}
	var e probe.Evidence
	text, err := json.Marshal(a.Proof.Seen)
	if err != nil || json.Unmarshal(text, &e) != nil {
		return nil // the evidence of another lab: the page does without
	}
	return []end{
		{"client", client(e), true},
		{"entrance of " + a.Point, fmt.Sprintf("%s, %s of the client", times(e.SYNs, e.SYNEntered), bytesOf(e.PayloadEntered)), e.SYNEntered},
		{"exit to the database", exit(e), e.SYNLeft},
		{"database " + a.To, database(e), e.Accepted},
	}
}

func client(e probe.Evidence) string {
	said := []string{"not connected"}
	if e.Connected {
		said[0] = "connected"
	}
	if e.Answered {
		said = append(said, "its query was answered")
	}
	if e.ClientError != "" {
		said = append(said, "gave up: "+e.ClientError)
	}
	if e.Told {
		said = append(said, "told by the network")
	}
	return strings.Join(said, "; ")
}

func exit(e probe.Evidence) string {
	if !e.SYNLeft {
		if e.Fenced {
			return "nothing, though a fence sent afterwards got through"
		}
		return "nothing"
	}
	return "SYN seen, " + bytesOf(e.PayloadLeft) + " of the client"
}

func database(e probe.Evidence) string {
	switch {
	case e.QueryAnswered:
		return "accepted, and answered the query"
	case e.RefusedByTheDB:
		return "accepted, and refused to go on without TLS"
	case e.Accepted:
		return "accepted, read " + bytesOf(e.BytesRead)
	case e.HostRefused:
		return "its host refused the connection"
	}
	return "nothing"
}

func times(n int, seen bool) string {
	switch {
	case !seen:
		return "no SYN"
	case n == 1:
		return "one SYN"
	}
	return fmt.Sprintf("%d SYNs", n)
}

func bytesOf(n int) string {
	if n == 1 {
		return "1 byte"
	}
	return fmt.Sprintf("%d bytes", n)
}
