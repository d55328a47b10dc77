package enforcer_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/sim/netns/netnstest"
)

// TestWhatIsExported is what would be applied: nft(8) takes it, checks it, loads it over what stands there, and what it loads is
// proven to be the policy. Applying the policy then changes nothing.
func TestWhatIsExported(t *testing.T) {
	path := netnstest.Tool(t, "nft")
	for name, document := range map[string]string{"gateway": planted, "host": string(document(wholeRegion, `, "force_tls": true, "internet_accessibility": true`))} {
		t.Run(name, func(t *testing.T) {
			ns := netnstest.New(t)
			text, err := enforcer.Export([]byte(document), enforcer.Options{Name: "a\nb"})
			require.NoError(t, err)
			require.Contains(t, text, "# From a?b, SHA-256 ")
			nft := func(args ...string) {
				cmd := exec.CommandContext(t.Context(), path, args...)
				var out strings.Builder
				cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(text), &out, &out
				require.NoError(t, ns.Start(cmd))
				require.NoError(t, cmd.Wait(), out.String())
			}
			nft("-c", "-f", "-")
			require.False(t, verify(t, ns, document).Proven, "a check loads nothing")
			nft("-f", "-")
			v := verify(t, ns, document)
			require.True(t, v.Proven, "%+v", v)
			nft("-f", "-")
			require.True(t, verify(t, ns, document).Proven, "once more")
			require.Zero(t, mustApply(t, ns, []byte(document)).Changed)
			runNFT(t, ns, path, "flush chain inet drawbridge denied")
			require.False(t, verify(t, ns, document).Proven)
			nft("-f", "-")
			require.True(t, verify(t, ns, document).Proven, "it replaces what was spoiled")
		})
	}
	_, err := enforcer.Export([]byte("{}"), enforcer.Options{})
	require.ErrorIs(t, err, enforcer.ErrRefused)
}
