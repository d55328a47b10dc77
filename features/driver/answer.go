package driver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Profiles that an enforcer can be judged on.
const (
	Core     = "core"
	Extended = "extended"
)

// ForceTLS says who tells TLS from plaintext.
type ForceTLS string

// Values of features.force_tls.
const (
	FirstBytes ForceTLS = "first-bytes" // the enforcer, by the client's first bytes
	ByDatabase ForceTLS = "database"    // the database's own setting, which the lab configures
)

// Revoke says what becomes of established connections when the rule goes that let them in.
type Revoke string

// Values of features.revoke.
const (
	Cut  Revoke = "cut"
	Keep Revoke = "keep"
)

// Description is what a driver says of itself.
type Description struct {
	Name     string
	Version  string
	Profiles []string
	ForceTLS ForceTLS
	Revoke   Revoke
	// Run: the enforcer has a program of its own that runs for as long as a point lives (verb run).
	Run bool
}

// Has reports whether the enforcer asks to be judged on a profile.
func (d Description) Has(profile string) bool { return slices.Contains(d.Profiles, profile) }

// Receipt is a driver's answer to a successful apply.
type Receipt struct {
	Point string
	// Generation is the JSON text of the generation, a string with its quotes or a number.
	Generation string
	// Members is the whole receipt as the driver printed it.
	Members  json.RawMessage
	Warnings []string
	Duration time.Duration
}

type rawDescription struct {
	Protocol *int     `json:"protocol"`
	Name     string   `json:"name"`
	Version  string   `json:"version"`
	Profiles []string `json:"profiles"`
	Features struct {
		ForceTLS ForceTLS `json:"force_tls"`
		Revoke   Revoke   `json:"revoke"`
		Run      bool     `json:"run"`
	} `json:"features"`
}

func parseDescription(data []byte) (Description, error) {
	var raw rawDescription
	if err := decodeOne(data, &raw); err != nil {
		return Description{}, err
	}
	if raw.Features.Revoke == "" {
		raw.Features.Revoke = Keep
	}
	unknown := slices.IndexFunc(raw.Profiles, func(p string) bool { return p != Core && p != Extended })
	switch {
	case raw.Protocol == nil || *raw.Protocol != Protocol:
		return Description{}, fmt.Errorf("protocol: must be %d", Protocol)
	case raw.Name == "":
		return Description{}, errors.New("name: is missing")
	case raw.Version == "":
		return Description{}, errors.New("version: is missing")
	case unknown >= 0:
		return Description{}, fmt.Errorf("profiles: unknown profile %q", raw.Profiles[unknown])
	case !slices.Contains(raw.Profiles, Core):
		return Description{}, errors.New(`profiles: "core" is missing, and every profile builds on it`)
	case raw.Features.ForceTLS != FirstBytes && raw.Features.ForceTLS != ByDatabase:
		return Description{}, fmt.Errorf("features.force_tls: %q is neither %q nor %q", raw.Features.ForceTLS, FirstBytes, ByDatabase)
	case raw.Features.Revoke != Cut && raw.Features.Revoke != Keep:
		return Description{}, fmt.Errorf("features.revoke: %q is neither %q nor %q", raw.Features.Revoke, Cut, Keep)
	case slices.Contains(raw.Profiles, Extended) && raw.Features.Revoke != Cut:
		return Description{}, fmt.Errorf("features.revoke: profile %q needs %q", Extended, Cut)
	}
	return Description{raw.Name, raw.Version, raw.Profiles, raw.Features.ForceTLS, raw.Features.Revoke, raw.Features.Run}, nil
}

func parseReceipt(data []byte) (Receipt, error) {
	var members map[string]json.RawMessage
	if err := decodeOne(data, &members); err != nil {
		return Receipt{}, err
	}
	generation := bytes.TrimSpace(members["generation"])
	var value any
	if len(generation) == 0 || json.Unmarshal(generation, &value) != nil {
		return Receipt{}, errors.New("receipt: generation: is missing")
	}
	switch v := value.(type) {
	case float64:
	case string:
		if v == "" {
			return Receipt{}, errors.New("receipt: generation: is empty")
		}
	default:
		return Receipt{}, errors.New("receipt: generation: is neither a string nor a number")
	}
	return Receipt{Generation: string(generation), Members: bytes.TrimSpace(data)}, nil
}

// decodeOne decodes exactly one JSON value.
func decodeOne(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(into); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("no JSON object")
		}
		return fmt.Errorf("not the JSON object of the protocol: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}
