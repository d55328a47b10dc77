package compile

import (
	"slices"
	"strings"

	"drawbridge/enforcer/ruleset"
)

// Survives tells whether an established connection of this class may go on where Force TLS is on (SPEC X-05): it speaks
// TLS, or it is in the middle of a handshake that the gate and the witness still judge. All others the gate silences,
// so that both their halves are to be ended.
func (c Class) Survives() bool {
	switch c {
	case ClassBegun, ClassRequested, ClassHello, ClassAcknowledged, ClassAnswered, ClassGSS, ClassTLS,
		ClassHello | ungated, ClassAcknowledged | ungated:
		return true
	}
	return false
}

// Speech is what a connection speaks, as far as it is known.
type Speech int

// What connections speak. The zero value: nobody saw its beginning.
const (
	SpeaksUnknown   Speech = iota
	SpeaksYet              // it has not shown it yet
	SpeaksTLS              // the server answered in TLS
	SpeaksPlaintext        // it began in plaintext, or was refused for that
)

// Speech tells what connections of the class speak.
func (c Class) Speech() Speech {
	switch {
	case c == ClassTLS:
		return SpeaksTLS
	case c == ClassPlaintext, c == ClassRefused:
		return SpeaksPlaintext
	case c == ClassUnknown, c > classBits:
		return SpeaksUnknown
	}
	return SpeaksYet
}

// OnlyOpens tells whether a change can end no connection that was allowed before: all it does is to add elements to sets
// that let somebody in, or to open an endpoint to everybody. For such a change nobody has to look for connections to be cut.
func OnlyOpens(change ruleset.Change) bool {
	rest := change
	rest.AddElements, rest.DeleteElements = nil, nil
	if len(change.AddElements) == 0 || !rest.IsEmpty() {
		return false
	}
	opened := map[string]map[ruleset.Key]bool{}
	for _, added := range change.AddElements {
		opened[added.Set.Name] = map[ruleset.Key]bool{}
		for _, e := range added.Elements {
			if !opens(added.Set.Name) && !toEverybody(added.Set.Name, e.Verdict) {
				return false
			}
			opened[added.Set.Name][e.Key] = toEverybody(added.Set.Name, e.Verdict)
		}
	}
	return !slices.ContainsFunc(change.DeleteElements, func(gone ruleset.SetElements) bool {
		return slices.ContainsFunc(gone.Elements, func(e ruleset.Element) bool { return !opened[gone.Set.Name][e.Key] })
	})
}

// opens tells whether an element more in this set only ever lets more in.
func opens(set string) bool {
	for _, f := range families {
		for _, name := range []string{setRegion, setCluster, setKeep} {
			if set == name+f.suffix {
				return true
			}
		}
		for _, prefix := range []string{setRange(f, ""), setUsers(f, ""), setCustom(f, "")} {
			if strings.HasPrefix(set, prefix) {
				return true
			}
		}
	}
	return false
}

// toEverybody tells whether an element with this verdict opens a shared host's endpoint to everybody. At a gateway none does.
func toEverybody(set string, v ruleset.Verdict) bool {
	for _, f := range families {
		switch set {
		case setInbound + f.suffix:
			return v == accept
		case setOutbound + f.suffix:
			return v == accept || v == goTo(chainWitness+f.suffix)
		}
	}
	return false
}
