package enforcer_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer"
	"drawbridge/enforcer/compile"
	"drawbridge/sim/netns/netnstest"
)

// neighbours are tables of other programs, as they write them.
const neighbours = `
table ip docker {
	chain forward { type filter hook forward priority 0; policy accept; ct state established,related accept; iifname "docker0" accept; }
	chain nat { type nat hook postrouting priority 100; ip saddr 172.17.0.0/16 oifname != "docker0" masquerade; }
}
table inet firewalld {
	chain input { type filter hook input priority 10; policy accept; ct state { established, related } accept; ct state invalid drop; tcp dport 22 accept; }
}
table ip kube {
	chain marking { meta mark set meta mark or 0x4000 }
	chain save { type filter hook prerouting priority 0; ct mark set ct mark or 0x8000; meta mark set ct mark; }
}`

func TestExamine(t *testing.T) {
	for _, tt := range []struct {
		name, rules, where string
		severity           enforcer.Severity
	}{
		{"neighbours", neighbours, "", ""},
		{"a whole mark", `table ip a { chain c { type filter hook input priority 0; ct mark set 0x1; } }`, "table ip a, chain c", enforcer.Undermines},
		{"a saved mark", `table inet a { chain c { type filter hook input priority 0; ct mark set meta mark; } }`, "table inet a, chain c", enforcer.Undermines},
		{"our bits", `table ip a { chain c { ct mark set ct mark or MASK } }`, "table ip a, chain c", enforcer.Undermines},
		{"untracked", `table ip6 a { chain c { type filter hook prerouting priority -300; tcp dport 53 notrack; } }`, "table ip6 a, chain c", enforcer.Weakens},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns := netnstest.New(t)
			h := host{host: ns}
			h.nft(t, "-f", script(t, tt.rules))
			mustApply(t, ns, document(wholeRegion, ""))
			var found []enforcer.Finding
			require.NoError(t, ns.Do(func() (err error) {
				found, err = enforcer.Examine(t.Context(), enforcer.Options{})
				return err
			}))
			var tables []enforcer.Finding
			for _, f := range found {
				if strings.HasPrefix(f.Where, "table ") {
					tables = append(tables, f)
				}
			}
			if tt.where == "" {
				require.Empty(t, tables)
				return
			}
			require.Len(t, tables, 1)
			require.Equal(t, tt.severity, tables[0].Severity)
			require.Contains(t, tables[0].Where, tt.where)
		})
	}
}

// script is a ruleset the way nft reads it from a file.
func script(t *testing.T, rules string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rules.nft")
	rules = strings.ReplaceAll(rules, "MASK", fmt.Sprintf("%#x", compile.DefaultMarkMask))
	require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(rules, " }", "\n}")+"\n"), 0o600))
	return file
}

// TestBesideOtherSoftware: our verdicts hold whatever stands beside them.
func TestBesideOtherSoftware(t *testing.T) {
	h := newHost(t)
	h.nft(t, "-f", script(t, neighbours))
	mustApply(t, h.host, document(wholeRegion, `, "force_tls": true`))
	secure, _ := h.dial(t, true)
	require.NoError(t, say(secure))
	plain, _ := h.dial(t, false)
	require.Error(t, say(plain))
	require.NoError(t, say(secure), "their marks and ours do not meet")
	receipt := mustApply(t, h.host, document("10.10.7.0/24", `, "force_tls": true`))
	require.NotZero(t, receipt.Cut.Cut())
	require.Error(t, say(secure), "their accepting what is established does not keep it")

	mustApply(t, h.host, document(wholeRegion, `, "force_tls": true`))
	h.nft(t, "add table ip raw { chain pre { type filter hook prerouting priority -300; tcp dport 27017 notrack; }; }")
	late, raw := h.dialing(t)
	if late {
		require.Error(t, say(raw), "what is not tracked is not let through in plaintext")
	}
}
