package oracle

import (
	"fmt"
	"net/netip"
	"strings"

	"drawbridge/features/platform"
	"drawbridge/topology"
)

// Connection is one attempt as its client makes it.
type Connection struct {
	From   topology.Vantage
	Source netip.Addr // the address the client binds; the zero value is the vantage's first of the endpoint's family
	To     topology.Endpoint
	TLS    bool
}

// Arrival is what the connection looks like where it reaches the enforcement point.
type Arrival struct {
	Zone   topology.Zone
	Source netip.Addr // after the region's source NAT
}

// Arrive follows a connection through the fabric of a platform: apps leave their region from its egress addresses, unless
// the endpoint is a shared host of that region; peers reach their gateway over the peering; everybody else comes from
// the Internet.
func Arrive(p *platform.State, c Connection) (Arrival, error) {
	src, err := source(c)
	if err != nil {
		return Arrival{}, err
	}
	point, ok := locate(p.World(), c.To.Point)
	if !ok {
		return Arrival{}, fmt.Errorf("endpoint %s of %s: no enforcement point %q", c.To.Addr, c.To.Database, c.To.Point)
	}
	switch c.From.Kind {
	case topology.VantageInternet:
		return Arrival{topology.ZoneInternet, src}, nil
	case topology.VantageApp:
		return arriveFromApp(p, c.From, src, point)
	case topology.VantagePeer:
		return arriveFromPeer(p.World(), c.From, src, point)
	case topology.VantageNode:
		return arriveFromNode(p.World(), c.From, src, point)
	}
	return Arrival{}, fmt.Errorf("vantage %s: unknown kind %q", c.From.Name, c.From.Kind)
}

// location is what there is to know of an enforcement point here. topology.Point also lists its databases, which may be thousands.
type location struct {
	name   string
	model  topology.Model
	region string
}

func locate(w *topology.World, point string) (location, bool) {
	if h, ok := w.Host(point); ok {
		return location{h.Name, topology.Shared, h.Region}, true
	}
	g, ok := w.Gateway(point)
	return location{g.Name, topology.Dedicated, g.Region}, ok
}

// source is the address the client's packets leave the vantage with.
func source(c Connection) (netip.Addr, error) {
	dst := c.To.Addr.Addr()
	if c.Source.IsValid() {
		if c.Source.Is4() != dst.Is4() {
			return netip.Addr{}, fmt.Errorf("source %s and endpoint %s are of different families", c.Source, dst)
		}
		return c.Source, nil
	}
	for _, a := range c.From.Addresses {
		if a.Is4() == dst.Is4() {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("vantage %s has no address of the family of %s", c.From.Name, dst)
}

func arriveFromApp(p *platform.State, app topology.Vantage, src netip.Addr, point location) (Arrival, error) {
	if point.model == topology.Shared && point.region == app.Region {
		return Arrival{topology.ZoneRegional, src}, nil
	}
	egress, ok := p.AppEgress(app.Region, strings.TrimPrefix(app.Name, app.Region+"/"), src)
	if !ok {
		return Arrival{}, fmt.Errorf("app %s has no egress address of the family of %s", app.Name, src)
	}
	return Arrival{topology.ZoneInternet, egress}, nil
}

// arriveFromPeer: the peering is a peer's only link. Behind their own gateway, peers arrive in zone peering; anything
// else they reach only by passing that gateway.
func arriveFromPeer(w *topology.World, peer topology.Vantage, src netip.Addr, point location) (Arrival, error) {
	network, _, ok := strings.Cut(peer.Name, "/")
	if !ok {
		return Arrival{}, fmt.Errorf("vantage %s: not the name of a peer's host", peer.Name)
	}
	for _, d := range w.Databases() {
		if d.Peering != nil && d.Peering.Network == network && d.Gateway == point.name {
			return Arrival{topology.ZonePeering, src}, nil
		}
	}
	return Arrival{topology.ZoneInternet, src}, nil
}

// arriveFromNode: nodes behind a gateway come from its VPC; the shared hosts of one region reach each other over the
// regional network.
func arriveFromNode(w *topology.World, node topology.Vantage, src netip.Addr, point location) (Arrival, error) {
	d, ok := w.Database(node.Database)
	if !ok {
		return Arrival{}, fmt.Errorf("node %s: no database %q", node.Name, node.Database)
	}
	switch {
	case d.Gateway != "" && d.Gateway == point.name:
		return Arrival{topology.ZoneCluster, src}, nil
	case d.Model == topology.Shared && point.model == topology.Shared && d.Region == point.region:
		return Arrival{topology.ZoneRegional, src}, nil
	}
	return Arrival{topology.ZoneInternet, src}, nil
}
