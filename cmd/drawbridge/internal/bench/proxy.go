package bench

import (
	"fmt"
	"net/netip"
	"strings"
)

// ProxyOffset is added to a database's port for the proxy's. Clusters have the ports 10000 above.
const ProxyOffset = 20000

// Forward is one port of a proxy.
type Forward struct {
	FD int // the listening socket, as the process inherits it
	To netip.AddrPort
}

// ProxySettings is the whole configuration of HAProxy in TCP mode: no TLS of its own, and everything else as HAProxy comes. The time-outs
// are for connections that stand idle; none here does.
func ProxySettings(forwards []Forward) string {
	var b strings.Builder
	b.WriteString("global\n\tmaxconn 1000\ndefaults\n\tmode tcp\n\ttimeout connect 5s\n\ttimeout client 1m\n\ttimeout server 1m\n")
	for i, f := range forwards {
		fmt.Fprintf(&b, "listen l%d\n\tbind fd@%d\n\tserver s %s\n", i, f.FD, f.To)
	}
	return b.String()
}
