package suite

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/cucumber/godog"

	"drawbridge/features/driver"
)

// chapters says how many statements each chapter of the specification has, and which profile it belongs to.
var chapters = []struct {
	letter  string
	count   int
	profile string
}{
	{"G", 3, driver.Core}, {"S", 12, driver.Core}, {"C", 4, driver.Core}, {"D", 17, driver.Core}, {"X", 11, driver.Extended},
}

// statements lists the IDs of a profile's statements in the specification's order.
func statements(profile string) []string {
	var ids []string
	for _, c := range chapters {
		if c.profile != profile {
			continue
		}
		for i := range c.count {
			ids = append(ids, fmt.Sprintf("%s-%02d", c.letter, i+1))
		}
	}
	return ids
}

var tagRE = regexp.MustCompile(`^~?@[A-Za-z0-9][A-Za-z0-9-]*$`)

// checkTags reads a tag expression in godog's own notation: "&&" means and, "," means or, "~" means not.
func checkTags(expr string) error {
	if expr == "" {
		return nil
	}
	for _, all := range strings.Split(expr, "&&") {
		for _, any := range strings.Split(all, ",") {
			if !tagRE.MatchString(strings.TrimSpace(any)) {
				return fmt.Errorf("tags %q: %q is not a tag; write @S-06, ~@extended, @S-06,@S-07 (or), @core && @D-09 (and)", expr, any)
			}
		}
	}
	return nil
}

// classify reads a scenario's profile and statement IDs from its tags.
func classify(p *godog.Scenario) (profile string, ids []string, err error) {
	for _, t := range p.Tags {
		name := strings.TrimPrefix(t.Name, "@")
		switch {
		case name == driver.Core || name == driver.Extended:
			if profile != "" && profile != name {
				return "", nil, wrongFeature("scenario %q is tagged with two profiles", p.Name)
			}
			profile = name
		case slices.Contains(statements(driver.Core), name) || slices.Contains(statements(driver.Extended), name):
			ids = append(ids, name)
		default:
			return "", nil, wrongFeature("scenario %q: tag @%s is neither a profile nor a statement", p.Name, name)
		}
	}
	if len(p.Steps) == 0 {
		return "", nil, wrongFeature("scenario %q has no steps", p.Name)
	}
	if profile == "" || len(ids) == 0 {
		return "", nil, wrongFeature("scenario %q needs a profile and at least one statement as tags", p.Name)
	}
	return profile, ids, nil
}
