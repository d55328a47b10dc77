package topology

import (
	"net/netip"

	"go.yaml.in/yaml/v3"
)

// formatVersion is the one version of the document format there is.
const formatVersion = "1"

// The document as it was written: each value is well-formed by itself, nothing is checked against anything else.
type (
	document struct {
		name      val[string]
		regions   vals[rawRegion]
		internet  vals[rawInternetHost]
		peers     vals[rawPeer]
		hosts     vals[rawHost]
		gateways  vals[rawGateway]
		databases vals[rawDatabase]
	}
	rawRegion struct {
		name          val[string]
		networks      vals[netip.Prefix]
		egress, spare vals[netip.Addr]
		apps          vals[rawApp]
	}
	rawApp struct {
		name      val[string]
		addresses vals[netip.Addr]
	}
	rawInternetHost struct {
		name      val[string]
		networks  vals[netip.Prefix]
		addresses vals[netip.Addr]
	}
	rawPeer struct {
		name     val[string]
		networks vals[netip.Prefix]
		hosts    vals[rawApp]
	}
	rawHost struct {
		name, region val[string]
		addresses    vals[netip.Addr]
		canaryPort   val[uint16]
	}
	rawGateway struct {
		name, region val[string]
		networks     vals[netip.Prefix]
		canary       vals[netip.Addr]
	}
	rawDatabase struct {
		name, model, engine, gateway val[string]
		addresses                    vals[netip.Addr]
		port, plainPort              val[uint16]
		nodes                        vals[rawNode]
		clusterPorts                 vals[rawClusterPort]
		peering                      val[rawPeering]
	}
	rawNode struct {
		name, host, machine  val[string]
		addresses, published vals[netip.Addr]
		port, plainPort      val[uint16]
	}
	rawClusterPort struct {
		port   val[uint16]
		shared val[bool]
	}
	rawPeering struct {
		network   val[string]
		addresses vals[netip.Addr]
	}
)

// readDocument reads the whole document; what is wrong with its form is in r afterwards.
func readDocument(r reader, data []byte) document {
	root, ok := r.root(data)
	if !ok {
		return document{}
	}
	f := r.mapping(root, place{root.Line, root.Column, ""}, required{"version", "name", "regions", "internet"},
		optional{"peers", "hosts", "gateways", "databases"})
	read(f, "version", readVersion)
	return document{
		name:      read(f, "name", readName),
		regions:   readAll(f, "regions", readRegion),
		internet:  readAll(f, "internet", readInternetHost),
		peers:     readAll(f, "peers", readPeer),
		hosts:     readAll(f, "hosts", readHost),
		gateways:  readAll(f, "gateways", readGateway),
		databases: readAll(f, "databases", readDatabase),
	}
}

func readVersion(r reader, n *yaml.Node, at place) (string, bool) {
	if s, ok := r.scalar(n, at, "!!int", "a version number"); !ok || s == formatVersion {
		return s, ok
	}
	r.add(at, "write version: "+formatVersion, "version %.20s of the format is not known", n.Value)
	return "", false
}

func readRegion(r reader, n *yaml.Node, at place) (rawRegion, bool) {
	f := r.mapping(n, at, required{"name", "networks", "egress", "apps"}, optional{"spare"})
	return rawRegion{
		name:     read(f, "name", readName),
		networks: readAll(f, "networks", readPrefix),
		egress:   readAll(f, "egress", readAddr),
		spare:    readAll(f, "spare", readAddr),
		apps:     readAll(f, "apps", readApp),
	}, true
}

func readApp(r reader, n *yaml.Node, at place) (rawApp, bool) {
	f := r.mapping(n, at, required{"name"}, optional{"addresses"})
	return rawApp{name: read(f, "name", readName), addresses: readAll(f, "addresses", readAddr)}, true
}

func readInternetHost(r reader, n *yaml.Node, at place) (rawInternetHost, bool) {
	f := r.mapping(n, at, required{"name", "networks"}, optional{"addresses"})
	return rawInternetHost{
		name:      read(f, "name", readName),
		networks:  readAll(f, "networks", readPrefix),
		addresses: readAll(f, "addresses", readAddr),
	}, true
}

func readPeer(r reader, n *yaml.Node, at place) (rawPeer, bool) {
	f := r.mapping(n, at, required{"name", "networks", "hosts"}, nil)
	return rawPeer{
		name:     read(f, "name", readName),
		networks: readAll(f, "networks", readPrefix),
		hosts:    readAll(f, "hosts", readApp),
	}, true
}

func readHost(r reader, n *yaml.Node, at place) (rawHost, bool) {
	f := r.mapping(n, at, required{"name", "region", "addresses"}, optional{"canary_port"})
	return rawHost{
		name:       read(f, "name", readName),
		region:     read(f, "region", readName),
		addresses:  readAll(f, "addresses", readAddr),
		canaryPort: read(f, "canary_port", readPort),
	}, true
}

func readGateway(r reader, n *yaml.Node, at place) (rawGateway, bool) {
	f := r.mapping(n, at, required{"name", "region", "networks", "canary"}, nil)
	return rawGateway{
		name:     read(f, "name", readName),
		region:   read(f, "region", readName),
		networks: readAll(f, "networks", readPrefix),
		canary:   readAll(f, "canary", readAddr),
	}, true
}

func readDatabase(r reader, n *yaml.Node, at place) (rawDatabase, bool) {
	f := r.mapping(n, at, required{"name", "model", "engine", "nodes"},
		optional{"gateway", "addresses", "port", "plain_port", "cluster_ports", "peering"})
	return rawDatabase{
		name:         read(f, "name", readName),
		model:        read(f, "model", readWord),
		engine:       read(f, "engine", readWord),
		gateway:      read(f, "gateway", readName),
		addresses:    readAll(f, "addresses", readAddr),
		port:         read(f, "port", readPort),
		plainPort:    read(f, "plain_port", readPort),
		nodes:        readAll(f, "nodes", readNode),
		clusterPorts: readAll(f, "cluster_ports", readClusterPort),
		peering:      read(f, "peering", readPeering),
	}, true
}

func readNode(r reader, n *yaml.Node, at place) (rawNode, bool) {
	f := r.mapping(n, at, nil, optional{"name", "host", "machine", "addresses", "published", "port", "plain_port"})
	return rawNode{
		name:      read(f, "name", readName),
		host:      read(f, "host", readName),
		machine:   read(f, "machine", readName),
		addresses: readAll(f, "addresses", readAddr),
		published: readAll(f, "published", readAddr),
		port:      read(f, "port", readPort),
		plainPort: read(f, "plain_port", readPort),
	}, true
}

func readClusterPort(r reader, n *yaml.Node, at place) (rawClusterPort, bool) {
	f := r.mapping(n, at, required{"port", "shared"}, nil)
	return rawClusterPort{port: read(f, "port", readPort), shared: read(f, "shared", readBool)}, true
}

func readPeering(r reader, n *yaml.Node, at place) (rawPeering, bool) {
	f := r.mapping(n, at, required{"network", "addresses"}, nil)
	return rawPeering{network: read(f, "network", readName), addresses: readAll(f, "addresses", readAddr)}, true
}
