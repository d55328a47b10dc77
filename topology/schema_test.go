package topology

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(t, c.AddResource("world.schema.json", doc))
	s, err := c.Compile("world.schema.json")
	require.NoError(t, err)
	return s
}

// schemaAccepts validates a document as an editor does: whatever is YAML, whoever wrote it.
func schemaAccepts(t *testing.T, s *jsonschema.Schema, document []byte) error {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(document, &v); err != nil {
		return err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	return s.Validate(instance)
}

// documents are all worlds that the project has.
func documents(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, pattern := range []string{"testdata/*.yaml", "testdata/examples/*.yaml"} {
		paths, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			all[path] = text
		}
	}
	require.GreaterOrEqual(t, len(all), 8)
	return all
}

func TestSchemaAndLoaderAcceptEveryWorld(t *testing.T) {
	s := compiledSchema(t)
	for path, text := range documents(t) {
		require.NoError(t, schemaAccepts(t, s, text), path)
		_, err := Parse(path, text)
		require.NoError(t, err, path)
	}
}

// TestSchemaSeesTheForm has both look at documents with one mistake each. What a schema cannot see is listed: it may become less.
func TestSchemaSeesTheForm(t *testing.T) {
	s := compiledSchema(t)
	var accepted []string
	for _, r := range refusals {
		document := strings.Replace(mistaken(t, r.old, r.new), mark, "", 1)
		_, err := Parse("test", []byte(document))
		require.Error(t, err, r.name)
		if schemaAccepts(t, s, []byte(document)) == nil {
			accepted = append(accepted, r.name)
		}
	}
	slices.Sort(accepted)
	require.Equal(t, onlyTheLoaderSees, accepted)
}

// onlyTheLoaderSees are the mistakes that depend on several places at once, on what numbers mean, or on how YAML was written.
var onlyTheLoaderSees = []string{
	"IPv4-mapped address", "IPv4-mapped network", "Internet host outside its networks", "Internet hosts overlap", "VPC overlaps a VPC",
	"a VPC too small for the canary", "a later network holds an earlier one", "a network too small", "an Internet host's own networks overlap",
	"anchor", "app outside its network", "canary inside an Internet host's network",
	"cluster port of a single node", "cluster port that a client uses", "cluster port twice",
	"dedicated database with IPv6 only", "duplicate address", "duplicate address across kinds", "duplicate address of two nodes",
	"duplicate app", "duplicate name", "duplicate name across kinds", "duplicate port on a host", "duplicate region", "endpoint at another region's egress address",
	"endpoint inside another region's network", "gateway peered twice",
	"host bits set", "host bits set, IPv6", "host with two IPv4 addresses", "loopback address", "machine behind two gateways",
	"machine of a node's name", "multicast address", "name of a canary",
	"name of a planned node", "name of an edge", "name of the core", "network's address as a routed one", "node outside its VPC",
	"nodes in two regions", "nodes without cluster port", "nothing published", "octal port", "one egress address", "own type",
	"peer network without peering", "peer overlaps a region", "peering in a family that the peer lacks",
	"plaintext port of an in-band engine", "port of the canary", "published elsewhere", "published twice", "regions overlap",
	"routed address inside a network", "second document", "shared cluster port that no client uses", "special network",
	"the broadcast address", "the router's address", "the same port for TLS and plaintext", "two addresses of an app",
	"two nodes of a database on a machine", "unknown gateway",
	"unknown host", "unknown peer network", "unknown region of a gateway", "unknown region of a host",
}
