package enforcer

import (
	"fmt"
	"strings"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/ruleset"
)

// Of what is named of a change: so many sets and chains, and so many elements of each.
const (
	maxObjects  = 8
	maxElements = 4
)

// madeTable says of a change that it made the whole table.
var madeTable = []string{fmt.Sprintf("table %s %s: made", ruleset.FamilyINET, compile.TableName)}

// objects names what a change wrote to: the sets and chains, and their elements, as many as have room in a line.
func objects(c ruleset.Change) []string {
	if c.CreateTable {
		return madeTable
	}
	l := naming{at: map[string]int{}}
	for _, e := range c.DeleteElements {
		l.say("set "+e.Set.Name, "taken out "+elements(e))
	}
	for _, name := range c.DeleteSets {
		l.say("set "+name, "deleted")
	}
	for _, name := range c.DeleteChains {
		l.say("chain "+name, "deleted")
	}
	for _, s := range c.AddSets {
		l.say("set "+s.Name, "made")
	}
	for _, e := range c.AddElements {
		l.say("set "+e.Set.Name, "put in "+elements(e))
	}
	for _, name := range c.FlushChains {
		l.say("chain "+name, "emptied")
	}
	for _, chain := range c.AddChains {
		l.say("chain "+chain.Name, "made")
	}
	for _, r := range c.AddRules {
		l.say("chain "+r.Chain, fmt.Sprintf("%d rules written", len(r.Rules)))
	}
	return l.lines()
}

// elements are the first ones in words.
func elements(of ruleset.SetElements) string {
	var named []string
	for _, e := range of.Elements[:min(len(of.Elements), maxElements)] {
		e.Comment = ""
		named = append(named, ruleset.PrintElement(of.Set, e))
	}
	return strings.Join(named, ", ") + more(len(of.Elements), maxElements)
}

// more says how many are left of all where so many were named.
func more(all, named int) string {
	if all <= named {
		return ""
	}
	return fmt.Sprintf(" and %d more", all-named)
}

// naming collects what was done to each object, in the order in which they were named first.
type naming struct {
	at    map[string]int
	found []string // up to maxObjects
}

func (l *naming) say(object, done string) {
	at, known := l.at[object]
	switch {
	case !known:
		l.at[object] = len(l.at)
		if len(l.found) < maxObjects {
			l.found = append(l.found, object+": "+done)
		}
	case at < maxObjects:
		l.found[at] += ", " + done
	}
}

func (l *naming) lines() []string {
	if left := more(len(l.at), maxObjects); left != "" {
		return append(l.found, strings.TrimSpace(left)+" sets and chains")
	}
	return l.found
}
