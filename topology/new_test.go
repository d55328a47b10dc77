package topology

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNewWorldsAreValid(t *testing.T) {
	s := compiledSchema(t)
	for _, engine := range Engines() {
		for _, sketch := range []Sketch{
			{Regions: 1, Apps: 1, Internet: 1, Nodes: 1},
			{Regions: mostRegions, Apps: 3, Internet: mostInternet, Shared: mostDatabases, Dedicated: mostDatabases, Nodes: mostNodes, Peering: true},
			{Regions: 2, Apps: mostApps, Internet: 2, Dedicated: 1, Nodes: 1},
		} {
			sketch.Name, sketch.Engine = "new", engine
			text, err := New(sketch)
			require.NoError(t, err)
			require.NoError(t, schemaAccepts(t, s, text))
			w, err := Parse("new", text)
			require.NoError(t, err)
			points := sketch.Shared
			if sketch.Dedicated > 0 {
				points++
			}
			require.Len(t, w.Databases(), sketch.Shared+sketch.Dedicated+points, "and a canary for each point")
		}
	}
	_, err := New(Sketch{Name: "new", Engine: PostgreSQL, Regions: 9, Apps: 1, Internet: 1, Nodes: 1})
	require.EqualError(t, err, "9 regions: must be 1 to 8")
	_, err = New(Sketch{Name: "No", Engine: PostgreSQL, Regions: 1, Apps: 1, Internet: 1, Nodes: 1})
	require.ErrorContains(t, err, `"No" is not a name`)
}
