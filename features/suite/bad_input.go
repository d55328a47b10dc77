package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cucumber/godog"

	"drawbridge/features/driver"
	"drawbridge/features/oracle"
	"drawbridge/topology"
)

// object is a JSON object of a policy that is about to be spoilt.
type object = map[string]any

// mistake spoils a policy (SPEC X-11). Those with a model make sense in the policies of such points alone.
type mistake struct {
	model topology.Model
	spoil func(doc, database object)         // in the document
	text  func(whole []byte) (spoilt []byte) // in its text, afterwards
}

func rule(cidr string) object { return object{"type": string(driver.CustomRange), "cidr": cidr} }

func addRules(d object, rules ...object) {
	list, _ := d["firewall_rules"].([]any)
	for _, r := range rules {
		list = append(list, r)
	}
	d["firewall_rules"] = list
}

// tooMany rules are one more than the limit of SPEC D-12.
func tooMany() (rules []object) {
	for i := range 31 {
		rules = append(rules, rule(fmt.Sprintf("192.0.2.%d/32", i)))
	}
	return rules
}

func firstEndpoint(d object) object { return d["endpoints"].([]any)[0].(object) }

// mistakes are what scenarios may name.
var mistakes = map[string]mistake{
	"unknown member":               {spoil: func(doc, _ object) { doc["frobnicate"] = 1 }},
	"unknown member of a database": {spoil: func(_, d object) { d["frobnicate"] = 1 }},
	"member that is missing":       {spoil: func(_, d object) { delete(d, "engine") }},
	"member that is there twice": {text: func(whole []byte) []byte {
		return []byte(strings.Replace(string(whole), "{", `{"version":1,`, 1))
	}},
	"another version": {spoil: func(doc, _ object) { doc["version"] = driver.Version + 1 }},
	"wrong family": {spoil: func(_, d object) {
		e := firstEndpoint(d)
		e["family"] = map[any]string{"ipv4": "ipv6", "ipv6": "ipv4"}[e["family"]]
	}},
	"port that does not exist":     {spoil: func(_, d object) { firstEndpoint(d)["port"] = 65536 }},
	"database that is there twice": {spoil: func(doc, d object) { doc["databases"] = append(doc["databases"].([]any), d) }},
	"region with host bits set":    {spoil: func(doc, _ object) { doc["region"].(object)["networks"] = []any{"10.10.0.1/16"} }},
	"truncated":                    {text: func(whole []byte) []byte { return whole[:len(whole)*2/3] }},
	"nothing at all":               {text: func([]byte) []byte { return nil }},
	"no JSON":                      {text: func([]byte) []byte { return []byte("databases: all\n") }},
	"second document behind it":    {text: func(whole []byte) []byte { return slices.Concat(whole, whole) }},
	"rule on a shared database": {model: topology.Shared, spoil: func(_, d object) {
		addRules(d, rule("192.0.2.0/24"))
	}},
	"unknown member of a rule": {model: topology.Dedicated, spoil: func(_, d object) {
		r := rule("192.0.2.0/24")
		r["frobnicate"] = 1
		addRules(d, r)
	}},
	"rule with host bits set":  {model: topology.Dedicated, spoil: func(_, d object) { addRules(d, rule("192.0.2.1/24")) }},
	"rule that is there twice": {model: topology.Dedicated, spoil: func(_, d object) { addRules(d, rule("192.0.2.0/24"), rule("192.0.2.0/24")) }},
	"rule of an unknown managed range": {model: topology.Dedicated, spoil: func(_, d object) {
		addRules(d, object{"type": string(driver.ManagedRange), "name": "nowhere"})
	}},
	"one rule too many": {model: topology.Dedicated, spoil: func(_, d object) { addRules(d, tooMany()...) }},
	"Internet accessibility of a dedicated database": {model: topology.Dedicated, spoil: func(_, d object) {
		d["internet_accessibility"] = true
	}},
}

// write makes the mistake in a policy, at a database.
func (m mistake) write(doc driver.Document, database string) ([]byte, error) {
	whole, err := doc.Encode()
	if err != nil {
		return nil, err
	}
	if m.spoil != nil {
		var fields object
		if err := json.Unmarshal(whole, &fields); err != nil {
			return nil, fmt.Errorf("policy of %s: %w", doc.Point.Name, err)
		}
		for _, d := range fields["databases"].([]any) {
			if d.(object)["name"] == database {
				m.spoil(fields, d.(object))
			}
		}
		if whole, err = json.Marshal(fields); err != nil {
			return nil, fmt.Errorf("policy of %s: %w", doc.Point.Name, err)
		}
	}
	if m.text != nil {
		whole = m.text(whole)
	}
	return whole, nil
}

// refusesMistakes hands over spoilt policies: each must be refused in words that name the place, and afterwards a panel of clients
// must find what they found before.
func (s *scenario) refusesMistakes(ctx context.Context, table *godog.Table) error {
	rows, err := records(table, []string{"mistake", "place"}, nil)
	if err != nil {
		return err
	}
	if s.last == nil || s.last.database != s.about.Name {
		return wrongFeature("nothing was decided that mistakes could be made in")
	}
	panel := s.panel(s.about, s.last)
	if err := s.check(ctx, panel, oracle.Unspecified); err != nil {
		return err
	}
	var findings []error
	for _, r := range rows {
		m, ok := mistakes[r["mistake"]]
		if !ok {
			return wrongFeature("there is no mistake %q; known are %q", r["mistake"], slices.Sorted(maps.Keys(mistakes)))
		}
		if m.model != "" && m.model != s.about.Model {
			continue
		}
		finding, err := s.refusesMistake(ctx, m, r["mistake"], r["place"])
		if err != nil {
			return err
		}
		findings = append(findings, finding)
	}
	return worst(append(findings, s.check(ctx, panel, oracle.Unspecified)))
}

func (s *scenario) refusesMistake(ctx context.Context, m mistake, name, place string) (finding, err error) {
	for _, point := range s.pointsOf(s.about.Name) {
		doc, err := driver.Build(s.state, point)
		if err != nil {
			return nil, err
		}
		text, err := m.write(doc, s.about.Name)
		if err != nil {
			return nil, err
		}
		began := time.Now()
		_, err = s.enforcer.Submit(ctx, point, text)
		s.called(time.Since(began))
		refused, ok := errors.AsType[*driver.Refused](err)
		switch {
		case err == nil:
			finding = notConformant("accepted at %s although it is a mistake: %s", point, name)
		case !ok:
			return nil, err
		case strings.TrimSpace(refused.Stderr) == "" || !strings.Contains(refused.Stderr, place):
			finding = notConformant("refused at %s without naming the place (%q): %s: %q", point, place, name, refused.Stderr)
		}
		s.record.noteMistake(point, name, time.Since(began), finding)
		if finding != nil {
			return finding, nil
		}
	}
	return nil, nil
}

func (r *ScenarioReport) noteMistake(point, name string, took time.Duration, finding error) {
	line := AttemptLine{What: "policy at " + point + ": " + name, Must: "refused", Because: []string{"X-11"}, Was: "refused", OK: finding == nil, Millis: millis(took)}
	if finding != nil {
		line.Was, line.Detail = "not refused as it must be", finding.Error()
	}
	r.Attempts = append(r.Attempts, line)
}

func registerMistakes(sc *godog.ScenarioContext, step stepFunc) {
	define(sc, `^each of these mistakes in its policy is refused, naming its place, and nothing changes:$`, func(ctx context.Context, table *godog.Table) error {
		return step(func(ctx context.Context, s *scenario) error { return s.refusesMistakes(ctx, table) })(ctx)
	})
}
