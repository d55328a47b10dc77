// Package driver is the suite's only way to an enforcer: the policy documents it is given, and the protocol of the
// program that brings them into force (docs/DRIVERS.md).
package driver

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/netip"
)

// Version is the version of the policy format, and Protocol that of the calls.
const (
	Version  = 1
	Protocol = 1
)

// CanaryPrefix begins the name of the one database in every document that must be served at all times.
const CanaryPrefix = "canary-"

//go:embed policy.schema.json
var schema []byte

// Schema returns the policy's JSON Schema (draft 2020-12).
func Schema() []byte { return append([]byte(nil), schema...) }

// Document is one enforcement point's whole policy. What no user ever touched is absent from its JSON form.
type Document struct {
	Version       int                       `json:"version"`
	Point         Point                     `json:"point"`
	Interfaces    []Interface               `json:"interfaces"`
	Region        Region                    `json:"region"`
	ManagedRanges map[string][]netip.Prefix `json:"managed_ranges"`
	Databases     []Database                `json:"databases"`
}

// Point names the enforcement point.
type Point struct {
	Name  string `json:"name"`
	Model string `json:"model"`
}

// Interface is one of the point's interfaces and the zone of what arrives there.
type Interface struct {
	Name string `json:"name"`
	Zone string `json:"zone"`
}

// Region is the region in which the point stands.
type Region struct {
	Name     string         `json:"name"`
	Networks []netip.Prefix `json:"networks"`
}

// Database is one database at the point.
type Database struct {
	Name                  string        `json:"name"`
	Model                 string        `json:"model"`
	Engine                string        `json:"engine"`
	Endpoints             []Endpoint    `json:"endpoints"`
	Nodes                 []Node        `json:"nodes"`
	ClusterPorts          []ClusterPort `json:"cluster_ports,omitempty"`
	ForceTLS              *bool         `json:"force_tls,omitempty"`
	InternetAccessibility *bool         `json:"internet_accessibility,omitempty"`
	FirewallRules         []Rule        `json:"firewall_rules,omitempty"`
	UnknownConnections    string        `json:"unknown_connections,omitempty"`
}

// Endpoint is where clients connect. DNAT is nil at shared hosts.
type Endpoint struct {
	Kind    string     `json:"kind"`
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
	Family  string     `json:"family"`
	TLS     string     `json:"tls"`
	DNAT    *Target    `json:"dnat,omitempty"`
}

// Target is where the fabric's destination NAT sends an endpoint's traffic now.
type Target struct {
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
}

// Node is one node of a database. Here: its server is on this host or behind this gateway.
type Node struct {
	Name      string       `json:"name"`
	Here      bool         `json:"here"`
	Addresses []netip.Addr `json:"addresses"`
	Ports     []Port       `json:"ports"`
}

// Port is one port that a node listens on.
type Port struct {
	Port uint16 `json:"port"`
	TLS  string `json:"tls"`
}

// ClusterPort is a port on which nodes reach each other. Shared: clients use it too.
type ClusterPort struct {
	Port   uint16 `json:"port"`
	Shared bool   `json:"shared"`
}

// Rule is one firewall rule: CIDR for a custom range, Name for a managed range.
type Rule struct {
	Type  string        `json:"type"`
	CIDR  *netip.Prefix `json:"cidr,omitempty"`
	Label string        `json:"label,omitempty"`
	Name  string        `json:"name,omitempty"`
}

// Rule types.
const (
	CustomRange  = "custom_range"
	ManagedRange = "managed_range"
)

// Encode returns the document's JSON form, which ends with a newline.
func (d Document) Encode() ([]byte, error) {
	out, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("policy of %s: %w", d.Point.Name, err)
	}
	return append(out, '\n'), nil
}
