package suite

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"drawbridge/features/driver"
)

// policyDir is where in the report directory the policies of failed scenarios are.
const policyDir = "policies"

// policies returns the policies of the points that the scenario speaks of or changed (of all points, if it did neither), by
// point: what is in force, and under POINT.asked what was asked for instead if it did not come into force.
func (s *scenario) policies() map[string]driver.Document {
	points := append(slices.Collect(maps.Keys(s.dirty)), s.pointsOf(s.about.Name)...)
	if len(points) == 0 {
		points = s.points()
	}
	all := map[string]driver.Document{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range points {
		force, ok := s.inForce[p]
		if ok {
			all[p] = force
		}
		if asked := s.asked[p]; asked.Version != 0 && !same(asked, force) && s.dirty[p] && !s.free[p] {
			all[p+".asked"] = asked
		}
	}
	return all
}

// same compares two policies by what a driver gets to see of them.
func same(a, b driver.Document) bool {
	one, errA := a.Encode()
	other, errB := b.Encode()
	return errA == nil && errB == nil && string(one) == string(other)
}

// keep makes the policies of a scenario that did not pass part of the report.
func (r *runner) keep(record *ScenarioReport, policies map[string]driver.Document) {
	if r.ReportDir == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(policies)) {
		name := fmt.Sprintf("%03d-%s.json", record.number, p)
		r.policies[name] = policies[p]
		record.Policies = append(record.Policies, filepath.Join(policyDir, name))
	}
}

func (r *runner) write() error {
	if r.ReportDir == "" {
		return nil
	}
	dir := filepath.Join(r.ReportDir, policyDir)
	if err := os.MkdirAll(r.ReportDir, 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := r.writePolicies(dir); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	f, err := os.Create(filepath.Join(r.ReportDir, "report.json"))
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return errors.Join(r.report.WriteJSON(f), f.Close())
}

// writePolicies replaces what an earlier run left.
func (r *runner) writePolicies(dir string) error {
	old, err := filepath.Glob(filepath.Join(dir, "[0-9][0-9][0-9]-*.json"))
	if err != nil {
		return err
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	if len(r.policies) == 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, doc := range r.policies {
		text, err := doc.Encode()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
