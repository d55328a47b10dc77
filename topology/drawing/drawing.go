// Package drawing draws a world: clients on the left, enforcement points with their databases on the right, and the networks between.
// It computes a layout and writes it as SVG, and writes the same graph in the languages of Mermaid and Graphviz. It is pure.
package drawing

import (
	"fmt"
	"slices"
	"strings"

	"drawbridge/topology"
)

// Drawing is a world laid out. Lengths are in the units of the drawing.
type Drawing struct {
	Width, Height int
	Boxes         []Box
	Wires         []Wire
	Words         string // the same for those who do not see it
}

// Box is a group of clients, or an enforcement point with what is at it.
type Box struct {
	X, Y, W, H         int
	Class, Title, Note string
	Items              []Item
}

// TextX is where the words in a box begin.
func (b Box) TextX() int { return b.X + 14 }

// TitleY is the line on which the title stands.
func (b Box) TitleY() int { return b.Y + 20 }

// NoteY is the line on which the note stands.
func (b Box) NoteY() int { return b.Y + 37 }

// Item is one client or database.
type Item struct {
	X, Y        int
	Class, Text string
}

// Wire is a network that joins two boxes.
type Wire struct {
	Class, Path string
	From, To    string // titles of the boxes
}

// Measures of the drawing.
const (
	leftX, leftW   = 10, 330
	rightX, rightW = 620, 470
	headHeight     = 46
	itemHeight     = 22
	boxGap         = 18
	boxEnd         = 8
)

// side stacks boxes from above.
type side struct {
	x, w, y int
	boxes   []Box
}

func (s *side) add(class, title, note string, items []Item) {
	b := Box{X: s.x, Y: s.y, W: s.w, H: headHeight + itemHeight*len(items) + boxEnd, Class: class, Title: title, Note: note}
	for i, it := range items {
		it.X, it.Y = b.X+14, b.Y+headHeight+itemHeight*i+14
		b.Items = append(b.Items, it)
	}
	s.boxes = append(s.boxes, b)
	s.y += b.H + boxGap
}

// Of draws a world. Databases for which wrong is true are marked, and so are their points; nil: none is.
func Of(w *topology.World, wrong map[string]bool) Drawing {
	left := &side{x: leftX, w: leftW, y: boxGap}
	right := &side{x: rightX, w: rightW, y: boxGap}
	clients(left, w)
	points := w.Points()
	for _, p := range points {
		kind := "host of shared databases"
		if p.Model == topology.Dedicated {
			kind = "gateway"
		}
		class := "point"
		if slices.ContainsFunc(p.Databases, func(d string) bool { return wrong[d] }) {
			class = "point wrong"
		}
		right.add(class, p.Name, kind+" in "+p.Region, databases(w, p, wrong))
	}
	d := Drawing{Width: rightX + rightW + leftX, Height: max(left.y, right.y), Boxes: slices.Concat(left.boxes, right.boxes)}
	d.Wires = wires(w, points, left.boxes, right.boxes)
	d.Words = inWords(left.boxes, right.boxes)
	return d
}

func clients(left *side, w *topology.World) {
	var hosts []Item
	for _, h := range w.Internet() {
		hosts = append(hosts, Item{Class: "client", Text: fmt.Sprintf("%s  %s", h.Name, h.Addresses[0])})
	}
	left.add("internet", "Internet", "hosts anywhere", hosts)
	for _, r := range w.Regions() {
		left.add("region", r.Name, fmt.Sprintf("region, leaves by %s", r.Egress[0]), apps(r.Apps))
	}
	for _, p := range w.Peers() {
		left.add("peer", p.Name, "peered network", apps(p.Hosts))
	}
}

func apps(all []topology.App) []Item {
	var out []Item
	for _, a := range all {
		out = append(out, Item{Class: "client", Text: fmt.Sprintf("%s  %s", a.Name, a.Addresses[0])})
	}
	return out
}

func databases(w *topology.World, p topology.Point, wrong map[string]bool) []Item {
	var out []Item
	for _, name := range p.Databases {
		d, _ := w.Database(name) // the point names it
		if d.Canary {
			continue
		}
		class, sign := "database", "•"
		if wrong[name] {
			class, sign = "database wrong", "✗"
		}
		nodes := "one node"
		if len(d.Nodes) > 1 {
			nodes = fmt.Sprintf("%d nodes", len(d.Nodes))
		}
		out = append(out, Item{Class: class, Text: fmt.Sprintf("%s %s  %s, %s", sign, name, d.Engine, nodes)})
	}
	return out
}

// wires join the Internet to every point, a region to its hosts, and a peered network to the gateways in front of its databases.
func wires(w *topology.World, points []topology.Point, left, right []Box) []Wire {
	var all []Wire
	for i, b := range left {
		for j, p := range points {
			reaches := b.Class == "internet" ||
				b.Class == "region" && p.Model == topology.Shared && p.Region == b.Title ||
				b.Class == "peer" && slices.ContainsFunc(p.Databases, func(d string) bool { return peered(w, d, b.Title) })
			if reaches {
				all = append(all, join(b, right[j], i, len(left)))
			}
		}
	}
	return all
}

func peered(w *topology.World, database, network string) bool {
	d, _ := w.Database(database)
	return d.Peering != nil && d.Peering.Network == network
}

// join draws a wire between two boxes. Wires of different networks end at different heights of the right box.
func join(from, to Box, i, n int) Wire {
	x1, y1 := from.X+from.W, from.Y+from.H/2
	x2, y2 := to.X, to.Y+to.H*(i+1)/(n+1)
	middle := (x1 + x2) / 2
	return Wire{from.Class, fmt.Sprintf("M%d %d C%d %d %d %d %d %d", x1, y1, middle, y1, middle, y2, x2, y2), from.Title, to.Title}
}

func inWords(left, right []Box) string {
	var clients, points []string
	for _, b := range left {
		clients = append(clients, fmt.Sprintf("%s with %d clients", b.Title, len(b.Items)))
	}
	for _, b := range right {
		points = append(points, fmt.Sprintf("%s (%s) with %d databases", b.Title, b.Note, len(b.Items)))
	}
	return "Clients: " + strings.Join(clients, ", ") + ". Enforcement points: " + strings.Join(points, ", ") + "."
}
