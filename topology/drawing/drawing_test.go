package drawing_test

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"drawbridge/topology"
	"drawbridge/topology/drawing"

	"github.com/stretchr/testify/require"
)

func written(t *testing.T, d drawing.Drawing, f drawing.Format) string {
	t.Helper()
	var out strings.Builder
	require.NoError(t, d.Write(&out, f))
	return out.String()
}

func TestEveryFormatHasEveryThing(t *testing.T) {
	w := topology.Default()
	d := drawing.Of(w, nil)
	for _, f := range drawing.Formats() {
		text := written(t, d, drawing.Format(f))
		for _, db := range w.Databases() {
			require.Equal(t, !db.Canary, strings.Contains(text, db.Name), "%s: %s", f, db.Name)
		}
		for _, want := range []string{"office", "web", "desk", "shared-a", "gw-fr1", "osc-secnum-fr1"} {
			require.Contains(t, text, want, f)
		}
	}
	require.Error(t, d.Write(io.Discard, "gif"))
}

func TestWires(t *testing.T) {
	d := drawing.Of(topology.Default(), nil)
	joined := map[[2]string]bool{}
	for _, w := range d.Wires {
		joined[[2]string{w.From, w.To}] = true
	}
	for pair, want := range map[[2]string]bool{
		{"Internet", "gw-fr1"}: true, {"osc-fr1", "shared-a"}: true, {"osc-fr1", "shared-s"}: false, {"corp", "gw-fr1"}: true, {"corp", "gw-secnum"}: false,
	} {
		require.Equal(t, want, joined[pair], pair)
	}
	require.Equal(t, len(d.Wires), strings.Count(written(t, d, drawing.DOT), " -- "))
	require.Equal(t, len(d.Wires), strings.Count(written(t, d, drawing.Mermaid), " --- "))
	require.NotContains(t, written(t, d, drawing.Mermaid), "b-1", "every wire joins boxes that are there")
}

func TestSVGIsXML(t *testing.T) {
	text := written(t, drawing.Of(topology.Default(), map[string]bool{"pg-shared": true}), drawing.SVG)
	parser := xml.NewDecoder(strings.NewReader(text))
	for {
		_, err := parser.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
	}
	require.Contains(t, text, `class="point wrong"`)
}
