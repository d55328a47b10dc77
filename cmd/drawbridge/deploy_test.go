package main

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const deployed = "../../deploy"

// TestDashboardAndAlertsAskForWhatThereIs: every metric that they name is one that the daemon has.
func TestDashboardAndAlertsAskForWhatThereIs(t *testing.T) {
	k := newKeeper(t)
	k.start()
	_, metrics := k.get("/metrics")
	for _, name := range []string{"grafana/drawbridge.json", "prometheus/drawbridge.rules.yaml"} {
		text, err := os.ReadFile(filepath.Join(deployed, name))
		require.NoError(t, err)
		var parsed any
		if strings.HasSuffix(name, ".json") {
			require.NoError(t, json.Unmarshal(text, &parsed))
		} else {
			require.NoError(t, yaml.Unmarshal(text, &parsed))
		}
		asked := regexp.MustCompile(`\b(drawbridge|process)_[a-z_]+`).FindAllString(string(text), -1)
		require.NotEmpty(t, asked)
		for _, metric := range asked {
			require.Regexp(t, `(?m)^`+metric+`[ {]`, metrics, name)
		}
	}
}

// TestUnits: systemd knows every setting of the units and the order that they ask for, and the program every flag.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not on the PATH")
	}
	dir := t.TempDir()
	for name, verb := range map[string]string{"drawbridge.service": "run", "drawbridge-boot.service": "boot"} {
		text, err := os.ReadFile(filepath.Join(deployed, "systemd", name))
		require.NoError(t, err)
		help := exec.Command(os.Args[0], "enforce", verb, "--help")
		help.Env = append(os.Environ(), asProgram+"=1")
		flags, err := help.Output()
		require.NoError(t, err)
		start := regexp.MustCompile(`(?m)^ExecStart=.*$`).FindString(string(text))
		for _, flag := range regexp.MustCompile(`--[a-z-]+`).FindAllString(start, -1) {
			require.Contains(t, string(flags), flag+" ", name)
		}
		unit := filepath.Join(dir, name) // with a program that is there
		require.NoError(t, os.WriteFile(unit, []byte(strings.ReplaceAll(string(text), "/usr/sbin/drawbridge", "/bin/true")), 0o600))
		out, err := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.NotContains(t, string(out), filepath.Base(unit)+":", "%s", out)
	}
}

// TestDefaults: every setting that the package's file of settings names is one of a unit's, and takes effect where it is left out.
func TestDefaults(t *testing.T) {
	settings, err := os.ReadFile(filepath.Join(deployed, "deb", "default"))
	require.NoError(t, err)
	var units []byte
	for _, name := range []string{"drawbridge.service", "drawbridge-boot.service"} {
		text, err := os.ReadFile(filepath.Join(deployed, "systemd", name))
		require.NoError(t, err)
		units = append(units, text...)
	}
	named := regexp.MustCompile(`(?m)^#(DRAWBRIDGE_[A-Z_]+)=`).FindAllSubmatch(settings, -1)
	require.Len(t, named, 4)
	for _, setting := range named {
		require.Regexp(t, `(?m)^ExecStart=.*\$\{?`+string(setting[1])+`\b`, string(units))
	}
}

// TestTheOperatorsProgramHasNoSuite: what judges enforcers is not in the program that is installed.
func TestTheOperatorsProgramHasNoSuite(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("go is not on the PATH")
	}
	out, err := exec.Command(goTool, "list", "-deps", "-tags", "operator", ".").Output()
	require.NoError(t, err)
	require.Contains(t, string(out), "drawbridge/enforcer/daemon\n")
	for _, left := range []string{"drawbridge/sim", "drawbridge/features", "drawbridge/cmd/drawbridge/internal", "github.com/cucumber", "github.com/stretchr"} {
		require.NotContains(t, string(out), left)
	}
}

// TestTheServiceManagerIsTold that the daemon is ready, and then that its loop is alive, again and again.
func TestTheServiceManagerIsTold(t *testing.T) {
	k := newKeeper(t)
	address := &net.UnixAddr{Name: filepath.Join(k.dir, "notify"), Net: "unixgram"}
	manager, err := net.ListenUnixgram("unixgram", address)
	require.NoError(t, err)
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", address.Name)
	t.Setenv("WATCHDOG_USEC", "3000000")
	k.start()
	require.NoError(t, manager.SetReadDeadline(time.Now().Add(20*time.Second)))
	for _, want := range []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1"} {
		b := make([]byte, 64)
		n, err := manager.Read(b)
		require.NoError(t, err)
		require.Equal(t, want, string(b[:n]))
	}
}
