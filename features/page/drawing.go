package page

import (
	"fmt"
	"slices"
	"strings"

	"drawbridge/features/suite"
	"drawbridge/topology"
)

// drawing is the lab: clients on the left, enforcement points with their databases on the right, and the networks between.
type drawing struct {
	Width, Height int
	Boxes         []box
	Wires         []wire
	Words         string // the same for those who do not see it
}

// box is a group of clients, or an enforcement point with what is at it. Lengths are in the units of the drawing.
type box struct {
	X, Y, W, H         int
	Class, Title, Note string
	Items              []item
}

// Places of the words in a box.
func (b box) TextX() int  { return b.X + 14 }
func (b box) TitleY() int { return b.Y + 20 }
func (b box) NoteY() int  { return b.Y + 37 }

type item struct {
	X, Y        int
	Class, Text string
}

// wire is a network that joins two boxes.
type wire struct {
	Class, Path string
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
	boxes   []box
}

func (s *side) add(class, title, note string, items []item) {
	b := box{X: s.x, Y: s.y, W: s.w, H: headHeight + itemHeight*len(items) + boxEnd, Class: class, Title: title, Note: note}
	for i, it := range items {
		it.X, it.Y = b.X+14, b.Y+headHeight+itemHeight*i+14
		b.Items = append(b.Items, it)
	}
	s.boxes = append(s.boxes, b)
	s.y += b.H + boxGap
}

func draw(w *topology.World, r *suite.Report) drawing {
	left := &side{x: leftX, w: leftW, y: boxGap}
	right := &side{x: rightX, w: rightW, y: boxGap}
	clients(left, w)
	wrong := wrongAt(r)
	for _, p := range w.Points() {
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
	d := drawing{Width: rightX + rightW + leftX, Height: max(left.y, right.y), Boxes: slices.Concat(left.boxes, right.boxes)}
	d.Wires = wires(w, left.boxes, right.boxes)
	d.Words = inWords(left.boxes, right.boxes)
	return d
}

func clients(left *side, w *topology.World) {
	var hosts []item
	for _, h := range w.Internet() {
		hosts = append(hosts, item{Class: "client", Text: fmt.Sprintf("%s  %s", h.Name, h.Addresses[0])})
	}
	left.add("internet", "Internet", "hosts anywhere", hosts)
	for _, r := range w.Regions() {
		left.add("region", r.Name, fmt.Sprintf("region, leaves by %s", r.Egress[0]), apps(r.Apps))
	}
	for _, p := range w.Peers() {
		left.add("peer", p.Name, "peered network", apps(p.Hosts))
	}
}

func apps(all []topology.App) []item {
	var out []item
	for _, a := range all {
		out = append(out, item{Class: "client", Text: fmt.Sprintf("%s  %s", a.Name, a.Addresses[0])})
	}
	return out
}

// wrongAt names the databases with an attempt that did not end as it must.
func wrongAt(r *suite.Report) map[string]bool {
	wrong := map[string]bool{}
	for _, s := range r.Scenarios {
		for _, a := range s.Attempts {
			if !a.OK {
				wrong[a.To] = true
			}
		}
	}
	return wrong
}

func databases(w *topology.World, p topology.Point, wrong map[string]bool) []item {
	var out []item
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
		out = append(out, item{Class: class, Text: fmt.Sprintf("%s %s  %s, %s", sign, name, d.Engine, nodes)})
	}
	return out
}

// wires join the Internet to every point, a region to its hosts, and a peered network to the gateways in front of its databases.
func wires(w *topology.World, left, right []box) []wire {
	var all []wire
	for i, b := range left {
		for j, p := range w.Points() {
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
func join(from, to box, i, n int) wire {
	x1, y1 := from.X+from.W, from.Y+from.H/2
	x2, y2 := to.X, to.Y+to.H*(i+1)/(n+1)
	middle := (x1 + x2) / 2
	return wire{from.Class, fmt.Sprintf("M%d %d C%d %d %d %d %d %d", x1, y1, middle, y1, middle, y2, x2, y2)}
}

func inWords(left, right []box) string {
	var clients, points []string
	for _, b := range left {
		clients = append(clients, fmt.Sprintf("%s with %d clients", b.Title, len(b.Items)))
	}
	for _, b := range right {
		points = append(points, fmt.Sprintf("%s (%s) with %d databases", b.Title, b.Note, len(b.Items)))
	}
	return "Clients: " + strings.Join(clients, ", ") + ". Enforcement points: " + strings.Join(points, ", ") + "."
}
