package bench

import (
	"fmt"
	"net/netip"
	"strings"

	"drawbridge/sim/fabric"
	"drawbridge/topology"
)

// MostHosts is how many hosts a Crowd may have.
const MostHosts = 4000

// crowdRegion is the region of a crowd.
const crowdRegion = "here"

// CrowdRouter is the node to which all hosts of a crowd are linked.
var CrowdRouter = fabric.Edge(crowdRegion)

// Crowd is a world of n apps in one region, with a database on a shared host and an Internet host.
func Crowd(n int) (*topology.World, error) {
	var apps strings.Builder
	for i := range n {
		fmt.Fprintf(&apps, "      - name: app-%d\n", i)
	}
	return topology.Parse("crowd.yaml", []byte(`
version: 1
name: crowd
regions:
  - name: `+crowdRegion+`
    networks: [10.10.0.0/16, "fd00:10::/48"]
    egress: [192.0.2.129, 192.0.2.130, "2001:db8:f1::1"]
    apps:
`+apps.String()+`
internet:
  - name: somebody
    networks: [203.0.113.0/25, "2001:db8:a::/64"]
hosts:
  - name: host-a
    region: `+crowdRegion+`
    addresses: [198.51.100.129, "2001:db8:5a::1"]
databases:
  - name: orders
    model: shared
    engine: postgresql
    nodes:
      - host: host-a
`))
}

// IPHost is one host of a lab that ip(8) builds.
type IPHost struct {
	Name string
	// Batch is what ip -batch does in the host's namespace.
	Batch string
}

// IPLab is what ip -batch is given to build n hosts, each with one link to a router, in both families: first, in the router's
// namespace, then each host's part, and at the end what takes the namespaces away. No link is moved or renamed, which costs a multiple.
func IPLab(n int) (router string, hosts []IPHost, end string) {
	var create, destroy strings.Builder
	for i := range n {
		name := fmt.Sprint("h", i)
		v4 := netip.AddrFrom4([4]byte{10, 20, byte(i / 250), byte(i%250 + 1)})
		v6 := netip.MustParseAddr(fmt.Sprintf("fd00:20::%x", i+1))
		fmt.Fprintf(&create, "netns add %s\n", name)
		fmt.Fprintf(&create, "link add l%d numtxqueues 1 numrxqueues 1 type veth peer name eth0 numtxqueues 1 numrxqueues 1 netns %s\n", i, name)
		fmt.Fprintf(&create, "link set l%d up\n", i)
		fmt.Fprintf(&create, "route add %s/32 dev l%d\nroute add %s/128 dev l%d\n", v4, i, v6, i)
		hosts = append(hosts, IPHost{name, fmt.Sprintf("link set lo up\nlink set eth0 up\naddr add %s/32 dev eth0\naddr add %s/128 dev eth0 nodad\n"+
			"route add 0.0.0.0/0 dev eth0\nroute add ::/0 dev eth0\n", v4, v6)})
		fmt.Fprintf(&destroy, "netns delete %s\n", name)
	}
	return create.String(), hosts, destroy.String()
}

// Mininet is a program of Python that builds n hosts at one Linux bridge with Mininet, says on its standard output how many seconds that
// took, waits for a line, takes all down and says how many seconds that took. Mininet would raise limits of the whole machine,
// which are none of a benchmark's business.
const Mininet = `import sys, time
import mininet.net
from mininet.net import Mininet
from mininet.nodelib import LinuxBridge
from mininet.topo import SingleSwitchTopo
mininet.net.fixLimits = lambda: None
def tell(began):
    print(time.monotonic() - began, flush=True)
began = time.monotonic()
net = Mininet(topo=SingleSwitchTopo(k=int(sys.argv[1])), switch=LinuxBridge, controller=None)
net.start()
tell(began)
sys.stdin.readline()
began = time.monotonic()
net.stop()
tell(began)
`

// MininetMost is how many hosts one Linux bridge can have (net/bridge/br_private.h: BR_MAX_PORTS).
const MininetMost = 1023
