package suite_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"drawbridge/features/suite"
)

// fits checks a report by its schema.
func fits(t *testing.T, report []byte) error {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(suite.Schema()))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(t, c.AddResource("report.json", doc))
	s, err := c.Compile("report.json")
	require.NoError(t, err)
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(report))
	require.NoError(t, err)
	return s.Validate(v)
}

func TestReportsFitTheirSchema(t *testing.T) {
	for name, m := range map[string]*model{
		"right": newModel(faults{}), "wrong": newModel(faults{openNeighbour: true}), "late": newModel(faults{late: true}),
	} {
		var b bytes.Buffer
		require.NoError(t, run(t, config(m)).WriteJSON(&b))
		require.NoError(t, fits(t, b.Bytes()), name)
		require.Error(t, fits(t, bytes.Replace(b.Bytes(), []byte(`"result"`), []byte(`"outcome"`), 1)), name)
	}
	if path := os.Getenv("DRAWBRIDGE_REPORT"); path != "" { // a run of one's own
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, fits(t, text))
	}
}
