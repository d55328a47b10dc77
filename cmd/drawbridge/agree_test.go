//go:build !operator

package main

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"drawbridge/features/driver"
	"drawbridge/features/oracle"
	"drawbridge/features/platform"
	"drawbridge/sim/endpoint"
	"drawbridge/sim/netns/netnstest"
	"drawbridge/sim/probe"
	"drawbridge/topology"

	"github.com/stretchr/testify/require"
)

// byHand is a lab that is kept up, with the reference enforcer brought in by sim exec, as a user does it.
type byHand struct {
	lab        string
	self       string
	state      *platform.State
	nmap, psql string
}

func (h *byHand) sim(t *testing.T, verb string, args ...string) result {
	t.Helper()
	return invoke(t, map[string]string{}, append([]string{"sim", verb, "--lab", h.lab}, args...)...)
}

// enforce brings the state's policy into force at every point.
func (h *byHand) enforce(t *testing.T) {
	t.Helper()
	for _, p := range h.state.World().Points() {
		document, err := driver.Build(h.state, p.Name)
		require.NoError(t, err)
		text, err := json.Marshal(document)
		require.NoError(t, err)
		file := filepath.Join(t.TempDir(), p.Name+".json")
		require.NoError(t, os.WriteFile(file, text, 0o600))
		got := h.sim(t, "exec", p.Name, "--", h.self, "enforce", "apply", "--policy", file)
		require.Equal(t, exitOK, got.code, "%s: %s", p.Name, got.err)
	}
}

// attempt is one way to ask for an endpoint.
type attempt struct {
	to   netip.AddrPort
	mode string
}

// said asks the lab's own probes, whose verdicts the report of conform is made of, for all endpoints of a database.
func (h *byHand) said(t *testing.T, from, database string) map[attempt]string {
	t.Helper()
	got := h.sim(t, "probe", from, database, "--json")
	require.Equal(t, exitOK, got.code, got.err)
	var all []seen
	require.NoError(t, json.Unmarshal([]byte(got.out), &all))
	require.NotEmpty(t, all)
	verdicts := map[attempt]string{}
	for _, s := range all {
		verdicts[attempt{s.To, s.Mode}] = s.Verdict
	}
	return verdicts
}

// expected is what the specification says.
func (h *byHand) expected(t *testing.T, from string, to topology.Endpoint, tls bool) oracle.Verdict {
	t.Helper()
	vantage, ok := h.state.World().Vantage(from)
	require.True(t, ok, from)
	v, err := oracle.Expect(h.state, oracle.Connection{From: vantage, To: to, TLS: tls})
	require.NoError(t, err)
	return v
}

// scan is what nmap finds from a vantage: "open", "closed" or "filtered" for each port at each address, all of one family.
func (h *byHand) scan(t *testing.T, from string, addresses []netip.Addr, ports []uint16) map[netip.AddrPort]string {
	t.Helper()
	var list []string
	for _, p := range ports {
		list = append(list, strconv.Itoa(int(p)))
	}
	args := []string{
		from, "--", h.nmap, "-n", "-Pn", "-sS", "--initial-rtt-timeout", "50ms", "--max-rtt-timeout", "200ms", "--max-retries", "2",
		"-oX", "-", "-p", strings.Join(list, ","),
	}
	for _, a := range addresses {
		args = append(args, a.String())
	}
	if addresses[0].Is6() {
		args = append(args, "-6")
	}
	got := h.sim(t, "exec", args...)
	require.Equal(t, exitOK, got.code, got.err)
	found, err := scanned(got.out)
	require.NoError(t, err, got.out)
	require.Len(t, found, len(addresses)*len(ports), got.out)
	return found
}

// scanned reads nmap's XML.
func scanned(text string) (map[netip.AddrPort]string, error) {
	var report struct {
		Hosts []struct {
			Address struct {
				Addr netip.Addr `xml:"addr,attr"`
			} `xml:"address"`
			Ports []struct {
				ID    uint16 `xml:"portid,attr"`
				State struct {
					State string `xml:"state,attr"`
				} `xml:"state"`
			} `xml:"ports>port"`
		} `xml:"host"`
	}
	err := xml.Unmarshal([]byte(text), &report)
	found := map[netip.AddrPort]string{}
	for _, host := range report.Hosts {
		for _, p := range host.Ports {
			found[netip.AddrPortFrom(host.Address.Addr, p.ID)] = p.State.State
		}
	}
	return found, err
}

// query has psql ask one question and reports whether the database answered it.
func (h *byHand) query(t *testing.T, from string, to netip.AddrPort, tls bool) bool {
	t.Helper()
	mode := "disable"
	if tls {
		mode = "require"
	}
	dsn := fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=%s connect_timeout=10",
		to.Addr(), to.Port(), endpoint.User, endpoint.Password, endpoint.Schema, mode)
	got := h.sim(t, "exec", from, "--", h.psql, "-X", "-w", "-A", "-t", dsn, "-c", "SELECT 'the answer'")
	answered := got.code == 0 && strings.TrimSpace(got.out) == "the answer"
	require.Equal(t, answered, got.code == 0, "%s%s", got.out, got.err)
	return answered
}

// filtered is what nmap calls a port that does not answer.
const filtered = "filtered"

// Ports that no database listens on.
const nobodysPort, otherNobodysPort uint16 = 22, 9999

// agree compares what nmap and psql find from a vantage with what the specification says, and for endpoints with what the
// lab's probes say: every endpoint, every way round it, and two ports that are nobody's.
func (h *byHand) agree(t *testing.T, from string, databases ...string) {
	t.Helper()
	w := h.state.World()
	v, _ := w.Vantage(from)
	var asked []topology.Endpoint
	for _, e := range slices.Concat(w.Endpoints(), w.Bypasses()) {
		if slices.Contains(databases, e.Database) && speaksFamily(v, netip.Addr{}, e) {
			asked = append(asked, e)
		}
	}
	found := h.scanAll(t, from, asked)
	said := map[string]map[attempt]string{}
	for _, d := range databases {
		said[d] = h.said(t, from, d)
	}
	for _, e := range asked {
		h.agreeOn(t, from, e, found[e.Addr], said[e.Database])
		if d, _ := w.Database(e.Database); d.Model == topology.Dedicated { // SPEC X-02
			for _, p := range []uint16{nobodysPort, otherNobodysPort} {
				require.Equal(t, filtered, found[netip.AddrPortFrom(e.Addr.Addr(), p)], "from %s to %s, port %d", from, e.Addr, p)
			}
		}
	}
}

// scanAll scans the addresses of endpoints, each for the ports of all and two that are nobody's.
func (h *byHand) scanAll(t *testing.T, from string, endpoints []topology.Endpoint) map[netip.AddrPort]string {
	t.Helper()
	ports := []uint16{nobodysPort, otherNobodysPort}
	families := map[topology.Family][]netip.Addr{}
	for _, e := range endpoints {
		f := topology.FamilyOf(e.Addr.Addr())
		if !slices.Contains(families[f], e.Addr.Addr()) {
			families[f] = append(families[f], e.Addr.Addr())
		}
		if !slices.Contains(ports, e.Addr.Port()) {
			ports = append(ports, e.Addr.Port())
		}
	}
	found := map[netip.AddrPort]string{}
	for _, addresses := range families {
		maps.Copy(found, h.scan(t, from, addresses, ports))
	}
	return found
}

func (h *byHand) agreeOn(t *testing.T, from string, e topology.Endpoint, state string, said map[attempt]string) {
	t.Helper()
	for _, tls := range []bool{false, true} {
		want := h.expected(t, from, e, tls)
		mode := probe.Plain
		if tls {
			mode = probe.TLS
		}
		about := fmt.Sprintf("from %s to %s of %s, %s: %s; nmap: %s", from, e.Addr, e.Database, mode, want, state)
		if want.Class == oracle.Unspecified {
			continue
		}
		served := want.Class == oracle.Served
		if e.Kind != topology.WayRound {
			verdict := said[attempt{e.Addr, mode.String()}]
			require.Equal(t, served, verdict == probe.Served.String(), "%s; probe: %q", about, verdict)
		}
		switch {
		case served:
			require.Equal(t, "open", state, about)
		case !want.Talk: // denied for where it comes from, and not for what it says: psql would hear nothing, for long
			require.Equal(t, filtered, state, about)
			continue
		}
		if e.Engine == topology.PostgreSQL {
			require.Equal(t, served, h.query(t, from, e.Addr, tls), about)
		}
	}
}

// TestOrdinaryToolsAgree lets nmap and psql try in the lab's nodes what the report speaks of.
func TestOrdinaryToolsAgree(t *testing.T) {
	nmap, psql := netnstest.Tool(t, "nmap"), netnstest.Tool(t, "psql")
	netnstest.Require(t)
	t.Setenv(asProgram, "1") // the enforcer that the lab is asked to run is this binary
	lab := fmt.Sprintf("agree-%d", os.Getpid())
	up := start(t, "is ready", "sim", "up", "--lab", lab)
	self, err := os.Executable()
	require.NoError(t, err)
	h := &byHand{lab: lab, self: self, state: platform.Start(topology.Default()), nmap: nmap, psql: psql}
	h.enforce(t)
	t.Run("by default", func(t *testing.T) {
		h.agree(t, "office", "pg-dedicated", "pg-shared", "mongo-dedicated", "redis-shared")
		h.agree(t, "osc-fr1/web", "pg-dedicated", "pg-shared", "my-shared")
		h.agree(t, "osc-secnum-fr1/api", "pg-shared")
	})
	t.Run("a rule for the office", func(t *testing.T) {
		rule, err := platform.Custom("198.51.100.0/28")
		require.NoError(t, err)
		h.state.Set("pg-dedicated", platform.Settings{Rules: []platform.Rule{rule}})
		h.enforce(t)
		h.agree(t, "office", "pg-dedicated", "mongo-dedicated")
		h.agree(t, "home", "pg-dedicated")
		h.agree(t, "osc-fr1/web", "pg-dedicated")
	})
	t.Run("Force TLS off", func(t *testing.T) {
		s := h.state.Of("pg-dedicated")
		s.ForceTLS = platform.Off
		h.state.Set("pg-dedicated", s)
		h.enforce(t)
		h.agree(t, "office", "pg-dedicated")
	})
	t.Run("the managed rule in place of the office's, and Internet accessibility", func(t *testing.T) {
		h.state.Set("pg-dedicated", platform.Settings{Rules: []platform.Rule{platform.Managed("osc-fr1")}})
		h.state.Set("pg-shared", platform.Settings{ForceTLS: platform.On, InternetAccessibility: platform.On})
		h.enforce(t)
		h.agree(t, "osc-fr1/web", "pg-dedicated", "pg-shared")
		h.agree(t, "osc-secnum-fr1/api", "pg-dedicated")
		h.agree(t, "office", "pg-dedicated", "pg-shared", "my-shared")
	})
	require.Equal(t, result{}, h.sim(t, "down"))
	require.NoError(t, up.Wait(), up.complaints)
}
