package compile_test

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"drawbridge/enforcer/addrset"
	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/ruleset"
	"drawbridge/sim/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

var update = flag.Bool("update", false, "write the golden files")

var fixtures = []string{"shared_default", "shared_toggles", "cluster", "dedicated", "ipv6"}

func TestGolden(t *testing.T) {
	for _, name := range fixtures {
		t.Run(name, func(t *testing.T) {
			got := ruleset.Print(compiled(t, name, fixture(t, name)))
			golden := filepath.Join("testdata", name+".nft")
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), got)
		})
	}
}

// TestTheKernelHoldsWhatWasCompiled writes every fixture's table and reads it back: nothing is left to change.
func TestTheKernelHoldsWhatWasCompiled(t *testing.T) {
	for _, name := range fixtures {
		t.Run(name, func(t *testing.T) {
			c := openTable(t, netnstest.New(t))
			generation, err := c.Generation(t.Context())
			require.NoError(t, err)
			want := compiled(t, name, fixture(t, name))
			require.NoError(t, c.Commit(t.Context(), ruleset.Diff(ruleset.Table{}, want), generation))
			got, err := c.Read(t.Context())
			require.NoError(t, err)
			require.NoError(t, got.Foreign)
			require.Equal(t, ruleset.Change{Family: ruleset.FamilyINET, Table: compile.TableName}, ruleset.Diff(got.Table, want))
		})
	}
}

// TestOperatorsCanLoadIt gives the printed table to nft(8), and lets it list what it loaded.
func TestOperatorsCanLoadIt(t *testing.T) {
	path := netnstest.Tool(t, "nft")
	for _, name := range fixtures {
		t.Run(name, func(t *testing.T) {
			ns := netnstest.New(t)
			text := ruleset.Print(compiled(t, name, fixture(t, name)))
			for _, args := range [][]string{{"-c", "-f", "-"}, {"-f", "-"}, {"list", "ruleset"}} {
				var out, errs bytes.Buffer
				cmd := exec.Command(path, args...)
				cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(text), &out, &errs
				require.NoError(t, ns.Start(cmd))
				require.NoError(t, cmd.Wait(), "nft %v: %s", args, errs.String())
				if args[0] == "list" {
					require.Contains(t, out.String(), "chain forced_payload")
				}
			}
		})
	}
}

// TestEndings: the tables that end refused connections are what operators can read and load, and what the kernel gives back.
func TestEndings(t *testing.T) {
	m, err := compile.NewMark(compile.DefaultMarkMask)
	require.NoError(t, err)
	for _, want := range m.Endings() {
		ns := netnstest.New(t)
		text := ruleset.Print(want)
		golden := filepath.Join("testdata", "ending_"+string(want.Family)+".nft")
		if *update {
			require.NoError(t, os.WriteFile(golden, []byte(text), 0o644))
		}
		committed, err := os.ReadFile(golden)
		require.NoError(t, err)
		require.Equal(t, string(committed), text)
		var c *nft.Conn
		require.NoError(t, ns.Do(func() (err error) {
			c, err = nft.OpenFamily(want.Family, want.Name)
			return err
		}))
		require.NoError(t, c.Commit(t.Context(), ruleset.Diff(ruleset.Table{}, want), 0))
		got, err := c.Read(t.Context())
		require.NoError(t, err)
		require.NoError(t, got.Foreign)
		require.True(t, ruleset.Diff(got.Table, want).IsEmpty())
		require.NoError(t, c.Close())
		var out bytes.Buffer
		for _, args := range [][]string{{"list", "ruleset"}, {"flush", "ruleset"}, {"-f", "-"}} {
			cmd := exec.Command(netnstest.Tool(t, "nft"), args...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(text), &out, &out
			require.NoError(t, ns.Start(cmd))
			require.NoError(t, cmd.Wait(), out.String())
		}
		require.Contains(t, out.String(), "asks the server where it stands")
	}
}

func TestDeterministic(t *testing.T) {
	for _, name := range fixtures {
		first := compiled(t, name, fixture(t, name))
		require.Equal(t, first, compiled(t, name, fixture(t, name)))
	}
}

// TestRulesAndTogglesAreElements: whatever users change, no set, chain or rule is added or removed.
func TestRulesAndTogglesAreElements(t *testing.T) {
	for _, tt := range []struct{ name, policy, old, new string }{
		{"force tls on", "dedicated", `"force_tls": false`, `"force_tls": true`},
		{"the last custom rules go", "dedicated", `{"type": "custom_range", "cidr": "198.51.100.0/28", "label": "office"},
        {"type": "custom_range", "cidr": "198.51.100.3/32"},`, ""},
		{"the managed rule goes", "dedicated", `,
        {"type": "managed_range", "name": "osc-fr1"}`, ""},
		{"the platform moves a range", "dedicated", `"192.0.2.129/32", "192.0.2.130/32"`, `"192.0.2.131/32"`},
		{"a plaintext port opens", "dedicated", `"name": "canary-gw-orders", "model"`, `"name": "canary-gw-orders", "force_tls": false, "model"`},
		{"fail-over", "dedicated", `"dnat": {"address": "10.64.1.11"`, `"dnat": {"address": "10.64.1.12"`},
		{"keep", "dedicated", `"force_tls": false`, `"unknown_connections": "keep"`},
		{"accessibility off", "shared_toggles", `"internet_accessibility": true,`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := string(fixture(t, tt.policy))
			require.Contains(t, before, tt.old)
			after := strings.ReplaceAll(before, tt.old, tt.new)
			change := ruleset.Diff(compiled(t, "before", []byte(before)), compiled(t, "after", []byte(after)))
			if tt.name != "fail-over" {
				require.False(t, change.IsEmpty())
			}
			require.Equal(t, ruleset.Change{
				Family: change.Family, Table: change.Table,
				DeleteElements: change.DeleteElements, AddElements: change.AddElements,
			}, change)
			for _, e := range append(slices.Clone(change.DeleteElements), change.AddElements...) {
				name := strings.TrimRight(e.Set.Name, "46")
				require.NotContains(t, []string{"protected", "speakers", "ours", "watched"}, name, "it says what is judged, not how")
				if tt.policy == "dedicated" {
					require.NotContains(t, []string{"inbound", "outbound"}, name, "what is not found there passes")
				}
			}
		})
	}
}

// TestARedundantRuleChangesNobodysAccess: another rule still covers what it covered (D-10), though the pieces are others.
func TestARedundantRuleChangesNobodysAccess(t *testing.T) {
	admitted := func(table ruleset.Table) (all []addrset.Interval) {
		for _, s := range table.Sets {
			for _, e := range s.Elements {
				first, ok := netip.AddrFromSlice([]byte(e.Key))
				last, _ := netip.AddrFromSlice([]byte(e.End))
				if ok && strings.HasPrefix(s.Name, "custom") {
					all = append(all, addrset.Interval{First: first, Last: last})
				}
			}
		}
		return all
	}
	before := string(fixture(t, "dedicated"))
	after := strings.Replace(before, `{"type": "custom_range", "cidr": "198.51.100.3/32"},`, "", 1)
	require.NotEqual(t, before, after)
	with, without := admitted(compiled(t, "before", []byte(before))), admitted(compiled(t, "after", []byte(after)))
	require.NotEmpty(t, with)
	require.Greater(t, len(with), len(without))
	require.True(t, addrset.Of(with...).Equal(addrset.Of(without...)))
}

func TestMarkMask(t *testing.T) {
	p := parse(t, "dedicated", fixture(t, "dedicated"))
	for _, mask := range []uint32{1, 0x00f10000, 0x00700000, 0xffffffff, 0xe0000000} {
		_, err := compile.Options{MarkMask: mask}.Compile(p)
		require.Error(t, err, "%#x", mask)
	}
	for _, mask := range []uint32{0xf, 0xf0000000, 0x00000780} {
		table, err := compile.Options{MarkMask: mask}.Compile(p)
		require.NoError(t, err, "%#x", mask)
		for _, c := range table.Chains {
			for _, r := range c.Rules {
				for _, s := range r.Statements {
					if m, ok := s.(ruleset.SetMark); ok {
						require.Zero(t, (m.Mask|m.Value)&^mask, "bits of others in %s", c.Name)
					}
				}
			}
		}
		m, err := compile.NewMark(mask)
		require.NoError(t, err)
		require.Equal(t, mask, m.Mask())
		require.Equal(t, compile.ClassRefused, m.Class(mask))
		require.Equal(t, compile.ClassUnknown, m.Class(^mask))
	}
}
