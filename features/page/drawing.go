package page

import "drawbridge/features/suite"

// wrongAt names the databases with an attempt that did not end as it must.
func wrongAt(r *suite.Report) map[string]bool {
	wrong := map[string]bool{}
	for _, s := range r.Scenarios {
		for _, a := range s.Attempts {
			if !a.OK {
				wrong[a.To] = true
			}
		}
	}
	return wrong
}
