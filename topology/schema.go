package topology

import (
	"bytes"
	_ "embed"
)

//go:embed world.schema.json
var worldSchema []byte

// Schema returns the JSON Schema (draft 2020-12) of the form of a topology document, for editors. It accepts every document that Parse
// accepts, and some more: it does not see what depends on several places at once.
func Schema() []byte { return bytes.Clone(worldSchema) }
