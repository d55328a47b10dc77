package suite

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"drawbridge/features/oracle"
)

func (s *scenario) decided() (*decision, error) {
	if s.last == nil || s.last.refused != nil || len(s.last.receipts) == 0 {
		return nil, wrongFeature("no change came into force that this could speak of")
	}
	return s.last, nil
}

func (s *scenario) warned(literal bool) error {
	d, err := s.decided()
	if err != nil {
		return err
	}
	if want := oracle.Warned(d.asked); want != literal {
		return wrongFeature("by the oracle, the owner of %s must be warned: %t", d.database, want)
	}
	is := false
	for _, r := range d.receipts {
		is = is || slices.ContainsFunc(r.Warnings, names(d.database))
	}
	if is != literal {
		return notConformant("the owner of %s must be warned: %t; a warning on standard error that names it: %t", d.database, literal, is)
	}
	return nil
}

// generation checks that every point answered with a generation. That it differs from the one before was checked at once.
func (s *scenario) generation() error {
	d, err := s.decided()
	if err != nil {
		return err
	}
	for _, r := range d.receipts {
		if r.Generation == "" {
			return notConformant("point %s: the receipt names no generation", r.Point)
		}
	}
	return nil
}

func (s *scenario) within(ms string) error {
	limit, err := strconv.Atoi(ms)
	if err != nil {
		return wrongFeature("%v", err)
	}
	d, err := s.decided()
	if err != nil {
		return err
	}
	for _, r := range d.receipts {
		s.record.Notes = append(s.record.Notes, fmt.Sprintf("in force at %s after %s, generation %s", r.Point, r.Duration.Round(time.Microsecond), r.Generation))
		if r.Duration > time.Duration(limit)*time.Millisecond {
			return notConformant("point %s: in force after %s, not within %d ms", r.Point, r.Duration, limit)
		}
	}
	return nil
}

// names reports whether a warning names a database.
func names(database string) func(string) bool {
	whole := regexp.MustCompile(`(^|[^a-z0-9-])` + regexp.QuoteMeta(database) + `($|[^a-z0-9-])`)
	return whole.MatchString
}
