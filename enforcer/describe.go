package enforcer

// Description is what the driver's describe answers (docs/DRIVERS.md, section 3).
type Description struct {
	Protocol int      `json:"protocol"`
	Name     string   `json:"name"`
	Version  string   `json:"version"`
	Profiles []string `json:"profiles"`
	Features Features `json:"features"`
}

// Features are the choices that a driver declares.
type Features struct {
	ForceTLS string `json:"force_tls"`
	Revoke   string `json:"revoke"`
	// Run: a program of its own runs at each point (enforce resident).
	Run bool `json:"run,omitempty"`
}

// driverProtocol is the version of docs/DRIVERS.md.
const driverProtocol = 1

// Describe tells what this enforcer does: it tells TLS from plaintext by the first bytes, and ends connections that are
// no longer allowed.
func Describe(version string) Description {
	return Description{
		Protocol: driverProtocol, Name: "drawbridge", Version: version,
		Profiles: []string{"core", "extended"},
		Features: Features{ForceTLS: "first-bytes", Revoke: "cut"},
	}
}
