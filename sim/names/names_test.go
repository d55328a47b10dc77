package names_test

import (
	"strings"
	"testing"

	"drawbridge/sim/names"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

func TestHosts(t *testing.T) {
	text := string(names.Hosts(topology.Default()))
	for _, line := range []string{
		"127.0.0.1\tlocalhost",
		"203.0.113.129\tpg-dedicated.postgresql.osc-fr1.example",
		"172.31.0.5\tprivate.pg-dedicated.postgresql.osc-fr1.example",
		"198.51.100.131\tredis-shared.redis.osc-fr1.example",
		"198.51.100.133\tredis-shared.redis.osc-fr1.example",
		"2001:db8:9a::1\tmongo-dedicated.mongodb.osc-fr1.example",
		"10.10.0.2\tweb.osc-fr1", "198.51.100.1\toffice", "198.51.100.129\tshared-a", "172.16.0.10\tdesk.corp",
	} {
		require.Equal(t, 1, strings.Count(text, line+"\n"), line)
	}
	require.NotContains(t, text, "2001:db8:5a::1\tpg-shared.", "not published there (SPEC G-03)")
	require.NotContains(t, text, "203.0.113.129\tprivate.")
}

func TestHostname(t *testing.T) {
	long := strings.Repeat("x", 40)
	for node, want := range map[string]string{"office": "office", "osc-fr1/web": "web.osc-fr1", long + "/" + long: long} {
		require.Equal(t, want, names.Hostname(node))
	}
}

func TestSources(t *testing.T) {
	require.Equal(t, "passwd: files\n# end\nhosts: files dns\n",
		string(names.Sources([]byte("passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n# end\n"))))
	require.Equal(t, "hosts: files dns\n", string(names.Sources(nil)))
}
