package probe

import "fmt"

// Evidence is what was seen of one TCP connection, at four places. Every zero value means "not seen".
type Evidence struct {
	// At the client.
	Connected   bool   `json:"connected"`              // its connect() succeeded, or its answer to the SYN-ACK was seen
	Answered    bool   `json:"answered"`               // the driver got the marker back
	ClientError string `json:"client_error,omitempty"` // what the driver said when it gave up
	Told        bool   `json:"told"`                   // that error was a TCP reset, an end of stream or an ICMP error, not our own patience
	NotOffered  bool   `json:"not_offered,omitempty"`  // the database itself said that it has no TLS
	// At the entrance of the enforcement point.
	SYNEntered     bool `json:"syn_entered"`
	SYNs           int  `json:"syns"`            // how often it came: the client's own repetitions included
	PayloadEntered int  `json:"payload_entered"` // bytes of client data, repetitions counted again
	// On the wires of a lab that loses packets: how many of the connection's packets they dropped, and how many of those were answers to its SYN.
	Lost        int `json:"lost,omitempty"`
	AnswersLost int `json:"answers_lost,omitempty"`
	// Headless: of what the client said, only later bytes came to the entrance, and not the first, which its TCP will repeat. An enforcer that
	// looks at first bytes may hold the others back.
	Headless bool `json:"headless,omitempty"`
	// Between the enforcement point and the database.
	SYNLeft     bool `json:"syn_left"`     // the SYN, or the database's answer to it, was seen
	PayloadLeft int  `json:"payload_left"` // bytes of client data seen, or acknowledged by the database's host
	// HostRefused: behind a gateway, the host to which the SYN was let through answered it with a reset of its own.
	HostRefused bool `json:"host_refused,omitempty"`
	// Reset: at a database's host, a reset answered the SYN: the host's TCP's, or the enforcer's in its place.
	Reset bool `json:"reset,omitempty"`
	// At the database.
	Accepted       bool `json:"accepted"`
	BytesRead      int  `json:"bytes_read"`        // first bytes that the server's application read
	QueryAnswered  bool `json:"query_answered"`    // the journal holds a query with this probe's marker
	RefusedByTheDB bool `json:"refused_by_the_db"` // the server refused plaintext by its own rules
	// The fence: a canary connection of the same vantage through the same point, begun after what stands above was last seen to
	// change, was served.
	Fenced     bool   `json:"fenced"`
	FenceError string `json:"fence_error,omitempty"`
	// The control: a canary connection from a vantage of the same kind through the same point, with a query, begun after the verdict, was
	// served.
	Controlled bool `json:"controlled"`
}

// reached reports whether anything of the connection got past the enforcement point.
func (e Evidence) reached() bool {
	return e.SYNLeft || e.Accepted || e.PayloadLeft > 0 || e.BytesRead > 0
}

// unanswered reports whether a SYN got past the enforcement point, and the client's TCP then sent it again (RFC 6298 section 2.1, after a
// second) or gave up. A fence alone cannot tell that: an answer comes from another namespace, and on a machine that is busy it may wait for its
// processor while a fence on another one overtakes it. For every answer that a wire dropped, the client's TCP repeats its SYN once, and that
// says nothing of the enforcement point.
func (e Evidence) unanswered() bool {
	return e.reached() && !e.Connected && (e.SYNs > 1+e.AnswersLost || e.ClientError != "")
}

// heard reports whether the client's own bytes got past the enforcement point.
func (e Evidence) heard() bool { return e.PayloadLeft > 0 || e.BytesRead > 0 }

// conclusion is a verdict with its reason. final: no later event can change it, short of a leak.
type conclusion struct {
	verdict Verdict
	by      By
	reason  string
	final   bool
}

// conclude says what follows from the evidence. given up: nothing more will be waited for, so that what is not
// decided is Inconclusive (or Leaked, if something got through).
func conclude(e Evidence, mode Mode, givenUp bool) conclusion {
	switch {
	case e.Answered && e.QueryAnswered:
		return conclusion{Served, ByNobody, "the query was answered, and the database's journal holds it", true}
	case e.Answered:
		// The journal is written before the answer leaves: a missing entry means that somebody else answered.
		return conclusion{Inconclusive, ByNobody, "an answer came, but not from this database", givenUp}
	case e.RefusedByTheDB && mode == Plain:
		return conclusion{TLSRefused, ByDatabase, "the database refused to go on without TLS", true}
	case e.NotOffered:
		return conclusion{Inconclusive, ByNobody, "the database does not offer TLS here: the lab is broken", true}
	case e.HostRefused && !e.Connected && !e.Accepted && !e.heard():
		return conclusion{Inconclusive, ByNobody, "the database's host refused the connection: nothing listens there", true}
	case !e.SYNEntered && !e.reached():
		return unarrived(e, givenUp)
	case !e.reached():
		return stopped(e, givenUp)
	}
	return halfway(e, givenUp)
}

// unarrived: nothing was seen at the enforcement point, so nothing can be said of the enforcer.
func unarrived(e Evidence, givenUp bool) conclusion {
	reason := "the connection never arrived at the enforcement point"
	if e.ClientError != "" {
		reason += ": " + e.ClientError
	}
	return conclusion{Inconclusive, ByNobody, reason, givenUp}
}

// stopped: it arrived, and nothing left. That is a denial once a fence proves the path.
func stopped(e Evidence, givenUp bool) conclusion {
	switch {
	case !e.Fenced:
		reason := "it arrived and did not leave, but no fence got through to prove the path"
		if e.FenceError != "" {
			reason += ": " + e.FenceError
		}
		return conclusion{Inconclusive, ByNobody, reason, givenUp}
	case e.Connected:
		return conclusion{TLSRefused, ByEnforcer, "the enforcement point answered the handshake itself and passed nothing on", true}
	case e.Told:
		return conclusion{Rejected, ByEnforcer, "it arrived at the enforcement point and was rejected there: " + e.ClientError, true}
	case e.Reset: // which the client will be told in a moment
		return conclusion{Rejected, ByEnforcer, "it arrived at the enforcement point and was rejected there by a reset", true}
	}
	return conclusion{Dropped, ByEnforcer, "it arrived at the enforcement point, and a fence sent after it got through", true}
}

// halfway: something reached the database, and the client was not served (yet).
func halfway(e Evidence, givenUp bool) conclusion {
	ended := givenUp || e.ClientError != ""
	switch {
	case e.heard() && ended:
		reason := fmt.Sprintf("%d bytes of the client reached the database", max(e.PayloadLeft, e.BytesRead))
		if e.ClientError != "" {
			reason += ", and then it was told: " + e.ClientError
		}
		return conclusion{Leaked, ByNobody, reason, true}
	case e.heard():
		return conclusion{Inconclusive, ByNobody, "the conversation goes on", false}
	case e.Connected && e.PayloadEntered > 0 && !e.Headless && e.Fenced:
		return conclusion{TLSRefused, ByEnforcer, "the client's bytes arrived at the enforcement point, and none of them left", true}
	case e.unanswered() && e.Fenced:
		return conclusion{Leaked, ByNobody, "the SYN reached the database, but no answer came back", true}
	case e.Connected && e.ClientError != "" && e.Fenced:
		return conclusion{Leaked, ByNobody, "the connection reached the database and ended before the client had spoken", true}
	case givenUp:
		return conclusion{Leaked, ByNobody, "the connection reached the database, and nothing more was heard of it", true}
	}
	return conclusion{Inconclusive, ByNobody, "the conversation goes on", false}
}

// suspect reports whether a fence could decide the matter: something arrived that has not left.
func (e Evidence) suspect() bool {
	switch {
	case e.Answered || e.Fenced || e.heard():
		return false
	case e.SYNEntered && !e.reached():
		return true
	case e.unanswered():
		return true
	case e.ClientError != "":
		return true // the client may know before the tap has shown us why
	}
	return e.PayloadEntered > 0
}
