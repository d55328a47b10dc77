package suite

import _ "embed"

//go:embed report.schema.json
var schema []byte

// Schema returns the JSON Schema (draft 2020-12) of a report as WriteJSON writes it.
func Schema() []byte { return append([]byte(nil), schema...) }
