package driver_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/features/driver"
)

// TestExamplesOfTheManual: what docs/DRIVERS.md shows is what drivers get, and what may be answered.
func TestExamplesOfTheManual(t *testing.T) {
	manual, err := os.ReadFile("../../docs/DRIVERS.md")
	require.NoError(t, err)
	var policies, descriptions int
	schema := compiled(t)
	for _, m := range regexp.MustCompile("(?ms)^```json\n(.*?)^```$").FindAllStringSubmatch(string(manual), -1) {
		if !strings.Contains(m[1], `"databases"`) {
			descriptions++
			program := script(t, "cat <<'END'\n"+m[1]+"END\n")
			d, err := program.Describe(t.Context(), "anywhere")
			require.NoError(t, err, m[1])
			require.Equal(t, driver.FirstBytes, d.ForceTLS)
			continue
		}
		policies++
		require.NoError(t, fits(t, schema, []byte(m[1])), m[1])
		decoder := json.NewDecoder(strings.NewReader(m[1]))
		decoder.DisallowUnknownFields()
		require.NoError(t, decoder.Decode(new(driver.Document)), "what drawbridge writes has no other members")
	}
	require.Equal(t, 2, policies, "a gateway and a shared host")
	require.Equal(t, 1, descriptions)
}
