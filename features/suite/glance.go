package suite

import "regexp"

// GlanceFile is the feature that holds the at-a-glance table of the specification, cell by cell.
const GlanceFile = "at_a_glance.feature"

// glanceRE takes the name of one of its scenarios apart; who connects how is left.
var glanceRE = regexp.MustCompile(`^(.+?) of (Shared|Dedicated) Resources: (.+?): .+$`)

// GlanceCell returns which cell of the at-a-glance table a scenario of GlanceFile verifies a part of: the table's row, its column
// (Shared or Dedicated), and the cell's text.
func GlanceCell(scenario string) (row, column, text string, ok bool) {
	m := glanceRE.FindStringSubmatch(scenario)
	if m == nil {
		return "", "", "", false
	}
	return m[1], m[2], m[3], true
}
