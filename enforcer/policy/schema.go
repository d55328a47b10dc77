package policy

import _ "embed"

//go:embed policy.schema.json
var schema []byte

// Schema returns the policy's JSON Schema (draft 2020-12), for editors and for whoever writes policies. Parse is stricter: it also
// refuses what only a look at the whole document shows.
func Schema() []byte { return append([]byte(nil), schema...) }
