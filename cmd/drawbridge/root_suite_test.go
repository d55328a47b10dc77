//go:build !operator

package main

import "testing"

// TestWrongUseOfTheSuite is of the verbs that the operators' program leaves out.
func TestWrongUseOfTheSuite(t *testing.T) {
	broken, dir := brokenFile(t), t.TempDir()
	refusesAll(t, []refusal{
		{"", "which verb? one of bench, conform, enforce, sim, topology, version (see drawbridge --help)"},
		{"confrom", `unknown verb "confrom", did you mean "conform"? (see drawbridge --help)`},
		{"conform --nope", "conform: unknown flag: --nope (see drawbridge conform --help)"},
		{"conform now", `conform: unexpected argument "now"`},
		{"conform --profile gold", `conform: invalid argument "gold" for "--profile" flag: must be core or extended`},
		{"conform --servers some", `conform: invalid argument "some" for "--servers" flag: must be embedded or real`},
		{"sim up --servers some", `sim up: invalid argument "some" for "--servers" flag: must be embedded or real`},
		{"conform --format html", `conform: --format: "html": must be one of pretty, progress, junit, cucumber`},
		{"conform --tags S-06", `conform: --tags: tags "S-06": "S-06" is not a tag`},
		{"conform --tags @Z-99", `conform: --tags: tags "@Z-99" select no scenario`},
		{"conform --list --tags @Z-99", `conform: --tags: tags "@Z-99" select no scenario`},
		{"conform --profile core --tags @X-02", "conform: --tags: tags "},
		{"conform --list --schema", "conform: --list and --schema exclude each other (see drawbridge conform --help)"},
		{"conform --json --format pretty", "conform: --format and --json exclude each other"},
		{"conform --world /nowhere.yaml", "topology: open /nowhere.yaml: no such file or directory"},
		{"conform --list --world " + broken, broken + ":1:1: version: is missing\ndrawbridge: "},
		{"conform --world " + broken, broken + ":1:1: version: is missing\ndrawbridge: "},
		{"bench", "bench: which verb? one of all, lab, packets, rules, suite, tls (see drawbridge bench --help)"},
		{"bench rules now", `bench rules: unexpected argument "now"`},
		{"bench all --rounds 0", "bench all: --rounds: 0: must be at least 1"},
		{"bench all --budget 0s", "bench all: --budget: 0s: must be positive"},
		{"bench rules --databases 0", "bench rules: --databases: 0: must be from 1 to 30000"},
		{"bench rules --hosts 3", "bench rules: unknown flag: --hosts"},
		{"bench lab --hosts 3,5000", "bench lab: --hosts: 5000: must be from 1 to 4000"},
		{"bench tls now", `bench tls: unexpected argument "now" (see drawbridge bench tls --help)`},
		{"bench tls --rounds 0", "bench tls: --rounds: 0: must be at least 1"},
		{"bench tls --length 1ms", "bench tls: --length: 1ms: must be at least 100ms"},
		{"bench tls --clients 65", "bench tls: --clients: 65: must be from 1 to 64"},
		{"bench tls --rows (", "bench tls: --rows: error parsing regexp"},
		{"bench tls --rows mongodb", "bench tls: --rows: no row matches"},
		{"conform --driver /nowhere", `conform: --driver: exec: "/nowhere": stat /nowhere: no such file or directory`},
		{"conform --driver " + broken, `conform: --driver: exec: "` + broken + `": permission denied`},
		{"conform --driver " + dir, `conform: --driver: exec: "` + dir + `": is a directory`},
		{"conform --world ../../topology/testdata/minimal.yaml --tags @G-02", "conform: --world: ../../topology/testdata/minimal.yaml lacks what the scenarios name: shared databases my-shared ("},
		{"conform --list --world ../../topology/testdata/minimal.yaml", "conform: --world: ../../topology/testdata/minimal.yaml lacks what the scenarios name: shared databases "},
		{"conform --report /a,b", `conform: --report: "/a,b": `},
		{"sim", "sim: which verb? one of break, capture, check, doctor, down, enforce, exec, graph, ls, matrix, policy, probe, rules, up, watch (see drawbridge sim --help)"},
		{"sim dwon", `sim: unknown verb "dwon", did you mean "down"? (see drawbridge sim --help)`},
		{"sim up --lab a/b", `sim up: --lab: lab name "a/b": must be 1 to 32 letters`},
		{"sim up --world " + broken, broken + ":1:1: version: is missing\ndrawbridge: "},
		{"sim exec", "sim exec: NODE is missing"},
		{"sim exec -- ls", "sim exec: NODE is missing"},
		{"sim exec office", "sim exec: COMMAND is missing"},
		{"sim exec office ls", "sim exec: put -- between NODE and COMMAND"},
		{"sim exec office -- sh", "sim exec: lab lab: no such lab is up; start it with: drawbridge sim up --lab lab"},
		{"sim probe office", "sim probe: TO is missing"},
		{"sim probe office pg --source here", `sim probe: --source: "here" is not an address`},
		{"sim probe office pg --tls --plain", "sim probe: --tls and --plain exclude each other"},
		{"sim matrix --lab other", "sim matrix: lab other: no such lab is up; start it with: drawbridge sim up --lab other"},
		{"sim down", "sim down: lab lab: no such lab is up"},
	})
}

func TestHelpOfTheSuite(t *testing.T) {
	helps(t, "conform --help", "sim --help", "sim exec --help")
}
