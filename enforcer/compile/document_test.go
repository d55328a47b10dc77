package compile_test

// document is the policy of docs/DRIVERS.md, as this test writes it.
type document struct {
	Version    int                 `json:"version"`
	Point      point               `json:"point"`
	Interfaces []iface             `json:"interfaces,omitempty"`
	Region     region              `json:"region"`
	Ranges     map[string][]string `json:"managed_ranges"`
	Databases  []database          `json:"databases"`
}

type point struct {
	Name  string `json:"name"`
	Model string `json:"model"`
}

type iface struct {
	Name string `json:"name"`
	Zone string `json:"zone"`
}

type region struct {
	Name     string   `json:"name"`
	Networks []string `json:"networks"`
}

type database struct {
	Name      string        `json:"name"`
	Model     string        `json:"model"`
	Engine    string        `json:"engine"`
	Endpoints []endpoint    `json:"endpoints"`
	Nodes     []node        `json:"nodes"`
	Cluster   []clusterPort `json:"cluster_ports,omitempty"`
	ForceTLS  *bool         `json:"force_tls,omitempty"`
	Access    *bool         `json:"internet_accessibility,omitempty"`
	Rules     []rule        `json:"firewall_rules,omitempty"`
}

type endpoint struct {
	Kind    string `json:"kind"`
	Address string `json:"address"`
	Port    uint16 `json:"port"`
	Family  string `json:"family"`
	TLS     string `json:"tls"`
}

type node struct {
	Name      string     `json:"name"`
	Here      bool       `json:"here"`
	Addresses []string   `json:"addresses"`
	Ports     []nodePort `json:"ports"`
}

type nodePort struct {
	Port uint16 `json:"port"`
	TLS  string `json:"tls"`
}

type clusterPort struct {
	Port   uint16 `json:"port"`
	Shared bool   `json:"shared"`
}

type rule struct {
	Type string `json:"type"`
	CIDR string `json:"cidr,omitempty"`
	Name string `json:"name,omitempty"`
}
