// Package drawbridge_test keeps the rules of docs/ARCHITECTURE.md that a compiler cannot keep.
package drawbridge_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	module          = "drawbridge"
	maxFileLines    = 500
	maxFuncLines    = 100
	nftablesLibrary = "github.com/google/nftables"
)

// source is one parsed Go file of the project; path is relative to the module's root, with slashes.
type source struct {
	path string
	file *ast.File
	fset *token.FileSet
}

func parse(t *testing.T, name string, text any) source {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	require.NoError(t, err)
	return source{path: filepath.ToSlash(name), file: file, fset: fset}
}

func (s source) dir() string  { return path.Dir(s.path) }
func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

func (s source) imports() []string {
	var paths []string
	for _, spec := range s.file.Imports {
		// The parser has already accepted the literal.
		p, _ := strconv.Unquote(spec.Path.Value)
		paths = append(paths, p)
	}
	return paths
}

func (s source) at(pos token.Pos) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(pos).Line)
}

// within tells whether a slash-separated path is dir or lies under it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func withinAny(p string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return within(p, d) })
}

// internalImports holds, for every tree of the project, the trees that it may import besides itself. The longest match
// decides. Test files may import more, see testImports.
var internalImports = map[string][]string{
	".":                 {},
	"topology":          {},
	"topology/flow":     {},
	"sim":               {"topology"},
	"enforcer":          {"topology/flow"},
	"enforcer/ruleset":  {},
	"enforcer/policy":   {"topology/flow"},
	"enforcer/addrset":  {},
	"enforcer/reach":    {"enforcer/addrset", "enforcer/ruleset"},
	"enforcer/denied":   {"enforcer/nlsocket"},
	"enforcer/intent":   {"enforcer/addrset", "enforcer/policy"},
	"enforcer/proof":    {"enforcer/addrset", "enforcer/intent", "enforcer/policy", "enforcer/reach", "enforcer/ruleset"},
	"enforcer/compile":  {"topology/flow", "enforcer/policy", "enforcer/ruleset"},
	"enforcer/nft":      {"enforcer/ruleset", "enforcer/nlsocket"},
	"enforcer/nlsocket": {},
	"features":          {"topology", "sim"},
	"features/oracle":   {"topology", "features/platform"},
	"features/platform": {"topology"},
	"cmd":               {"topology", "sim", "enforcer", "features"},
}

var testImports = map[string][]string{
	".":        {},
	"topology": {},
	"sim":      {},
	"enforcer": {"enforcer", "sim/netns"}, // kernel tests need a namespace of their own
	"features": {},
	"cmd":      {},
}

// treeOf returns the longest key of rules that contains dir.
func treeOf[V any](rules map[string]V, dir string) (string, bool) {
	for d := dir; ; d = path.Dir(d) {
		if _, ok := rules[d]; ok {
			return d, d != "." || dir == "."
		}
		if d == "." {
			return "", false
		}
	}
}

func importsWhatItMay(s source) []string {
	tree, ok := treeOf(internalImports, s.dir())
	if !ok {
		return []string{s.path + ": not in a tree that docs/ARCHITECTURE.md knows"}
	}
	allowed := append([]string{tree}, internalImports[tree]...)
	if s.isTest() {
		if top, ok := treeOf(testImports, s.dir()); ok {
			allowed = append(allowed, testImports[top]...)
		}
	}
	var found []string
	for _, imported := range s.imports() {
		internal, ok := strings.CutPrefix(imported, module+"/")
		if ok && !withinAny(internal, allowed...) {
			found = append(found, fmt.Sprintf("%s: %s may not import %s", s.path, tree, imported))
		}
	}
	return found
}

// nftablesImporters: the judged and the lab each have their own one; they share no code (docs/ARCHITECTURE.md). Tests may
// build a network of their own with it.
var nftablesImporters = []string{"enforcer/nft", "sim/nat"}

// namespaceLibraries change the namespace of a thread.
var namespaceLibraries = []string{"github.com/vishvananda/netns", "github.com/containernetworking/plugins/pkg/ns"}

func importsLibrariesWhereItMay(s source) []string {
	var found []string
	for _, imported := range s.imports() {
		switch {
		case within(imported, nftablesLibrary) && !s.isTest() && !slices.Contains(nftablesImporters, s.dir()):
			found = append(found, fmt.Sprintf("%s: only %s import %s", s.path, nftablesImporters, imported))
		case withinAny(imported, namespaceLibraries...) && s.dir() != "sim/netns":
			found = append(found, fmt.Sprintf("%s: only sim/netns imports %s", s.path, imported))
		}
	}
	return found
}

// bannedSelectors are uses of a package's member that have one home, or none.
var bannedSelectors = map[string]string{ // "package.Member": the one directory that may use it
	"time.Sleep":          "",
	"unix.Setns":          "sim/netns",
	"unix.Unshare":        "sim/netns",
	"unix.SYS_SETNS":      "sim/netns",
	"unix.SYS_UNSHARE":    "sim/netns",
	"syscall.Unshare":     "sim/netns",
	"syscall.SYS_SETNS":   "sim/netns",
	"syscall.SYS_UNSHARE": "sim/netns",
}

func usesNothingBanned(s source) []string {
	var found []string
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			pkg, ok := n.X.(*ast.Ident)
			if !ok {
				return true
			}
			name := pkg.Name + "." + n.Sel.Name
			if home, banned := bannedSelectors[name]; banned && (home == "" || s.dir() != home) {
				found = append(found, fmt.Sprintf("%s: %s may not be used here", s.at(n.Pos()), name))
			}
		case *ast.KeyValueExpr:
			if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Unshareflags" && s.dir() != "sim/netns" {
				found = append(found, fmt.Sprintf("%s: only sim/netns unshares", s.at(n.Pos())))
			}
		}
		return true
	})
	return found
}

func staysShort(s source) []string {
	if ast.IsGenerated(s.file) {
		return nil
	}
	var found []string
	if lines := s.fset.File(s.file.Pos()).LineCount(); lines > maxFileLines {
		found = append(found, fmt.Sprintf("%s: %d lines, at most %d", s.path, lines, maxFileLines))
	}
	for _, decl := range s.file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if lines := s.fset.Position(fn.End()).Line - s.fset.Position(fn.Pos()).Line + 1; lines > maxFuncLines {
			found = append(found, fmt.Sprintf("%s: %s has %d lines, at most %d", s.at(fn.Pos()), fn.Name.Name, lines, maxFuncLines))
		}
	}
	return found
}

var emptyNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "base"}

func isNamedAndFinished(s source) []string {
	var found []string
	if slices.Contains(emptyNames, strings.TrimSuffix(s.file.Name.Name, "_test")) {
		found = append(found, fmt.Sprintf("%s: package %s is not named for what it owns", s.path, s.file.Name.Name))
	}
	for _, group := range s.file.Comments {
		for _, mark := range []string{"TODO", "FIXME", "XXX"} {
			if strings.Contains(group.Text(), mark+":") || strings.HasPrefix(strings.TrimSpace(group.Text()), mark) {
				found = append(found, fmt.Sprintf("%s: %s", s.at(group.Pos()), mark))
			}
		}
	}
	return found
}

var rules = map[string]func(source) []string{
	"internal imports": importsWhatItMay,
	"libraries":        importsLibrariesWhereItMay,
	"banned calls":     usesNothingBanned,
	"length":           staysShort,
	"names and marks":  isNamedAndFinished,
}

// TestArchitecture checks every Go file of the project against every rule.
func TestArchitecture(t *testing.T) {
	sources := projectSources(t)
	require.Greater(t, len(sources), 4, "too few files found: the walk is broken")
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) {
			for _, s := range sources {
				for _, violation := range rule(s) {
					t.Error(violation)
				}
			}
		})
	}
}

// makesNetworks and looksForLeaks are what tests call that bring up networks, and the TestMain that fails them if anything is left.
var (
	makesNetworks = []string{"sim.Up", "netnstest.New", "netnstest.Require", "netnstest.NoLeaks", "netns.New", "netns.Spawn"}
	looksForLeaks = "netnstest.Main"
)

// calls lists what a file calls of other packages, as package.Member.
func calls(s source) (all []string) {
	ast.Inspect(s.file, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if f, ok := call.Fun.(*ast.SelectorExpr); ok {
				if pkg, ok := f.X.(*ast.Ident); ok {
					all = append(all, pkg.Name+"."+f.Sel.Name)
				}
			}
		}
		return true
	})
	return all
}

// unguarded lists the directories whose tests bring up networks without looking for what is left of them.
func unguarded(sources []source) (dirs []string) {
	makes, looks := map[string]bool{}, map[string]bool{}
	for _, s := range sources {
		if !s.isTest() {
			continue
		}
		called := calls(s)
		makes[s.dir()] = makes[s.dir()] || slices.ContainsFunc(called, func(c string) bool { return slices.Contains(makesNetworks, c) })
		looks[s.dir()] = looks[s.dir()] || slices.Contains(called, looksForLeaks) || s.dir() == "sim/netns/netnstest" // where it is called by its own name
	}
	for dir := range makes {
		if makes[dir] && !looks[dir] {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// TestEveryLabIsLookedAfter: no package's tests can forget to look for what their labs leave behind.
func TestEveryLabIsLookedAfter(t *testing.T) {
	require.Empty(t, unguarded(projectSources(t)), "their TestMain must call %s", looksForLeaks)
	maker := parse(t, "x/a_test.go", `package x; func f() { sim.Up() }`)
	main := parse(t, "x/b_test.go", `package x; func TestMain(m *testing.M) { netnstest.Main(m) }`)
	require.Equal(t, []string{"x"}, unguarded([]source{maker}))
	require.Empty(t, unguarded([]source{maker, main}))
	require.Empty(t, unguarded([]source{parse(t, "x/a.go", `package x; func f() { sim.Up() }`)}))
}

func projectSources(t *testing.T) []source {
	t.Helper()
	var sources []source
	err := filepath.WalkDir(".", func(p string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && p != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata"):
			return filepath.SkipDir
		case !entry.IsDir() && strings.HasSuffix(p, ".go"):
			sources = append(sources, parse(t, p, nil))
		}
		return nil
	})
	require.NoError(t, err)
	return sources
}

// TestArchitectureRulesBite shows every rule a file that breaks it, and one that does not.
func TestArchitectureRulesBite(t *testing.T) {
	longFunction := "package x\nfunc f() {\n" + strings.Repeat("_ = 0\n", maxFuncLines) + "}\n"
	for _, c := range []struct {
		name, rule, path, text string
		want                   int
	}{
		{"judged sees judge", "internal imports", "enforcer/policy/x.go", `package x; import _ "drawbridge/features/oracle"`, 1},
		{"judged sees lab", "internal imports", "enforcer/nft/x.go", `package x; import _ "drawbridge/sim/netns"`, 1},
		{"judged's test in a namespace", "internal imports", "enforcer/nft/x_test.go", `package x; import _ "drawbridge/sim/netns/netnstest"`, 0},
		{"judged's test sees lab", "internal imports", "enforcer/nft/x_test.go", `package x; import _ "drawbridge/sim"`, 1},
		{"judge sees judged", "internal imports", "features/suite/x_test.go", `package x; import _ "drawbridge/enforcer/policy"`, 1},
		{"lab sees judge", "internal imports", "sim/probe/x.go", `package x; import _ "drawbridge/features/oracle"`, 1},
		{"oracle sees lab", "internal imports", "features/oracle/x.go", `package x; import _ "drawbridge/sim"`, 1},
		{"ruleset sees policy", "internal imports", "enforcer/ruleset/x.go", `package x; import _ "drawbridge/enforcer/policy"`, 1},
		{"what rules say sees the compiler", "internal imports", "enforcer/reach/x.go", `package x; import _ "drawbridge/enforcer/compile"`, 1},
		{"what a policy means sees rules", "internal imports", "enforcer/intent/x.go", `package x; import _ "drawbridge/enforcer/ruleset"`, 1},
		{"command sees both", "internal imports", "cmd/drawbridge/x.go", `package x; import (_ "drawbridge/sim"; _ "drawbridge/enforcer")`, 0},
		{"command imported", "internal imports", "sim/x.go", `package x; import _ "drawbridge/cmd/drawbridge"`, 1},
		{"a tree of its own", "internal imports", "pkg/x.go", `package x`, 1},
		{"prefix is not a tree", "internal imports", "sim/x.go", `package x; import _ "drawbridge/topologyx"`, 1},
		{"nftables at home", "libraries", "enforcer/nft/x.go", `package x; import _ "github.com/google/nftables/expr"`, 0},
		{"nftables elsewhere", "libraries", "enforcer/reconcile/x.go", `package x; import _ "github.com/google/nftables"`, 1},
		{"nftables in a test", "libraries", "enforcer/cut/x_test.go", `package x; import _ "github.com/google/nftables"`, 0},
		{"namespace library elsewhere", "libraries", "sim/x.go", `package x; import _ "github.com/vishvananda/netns"`, 1},
		{"sleep", "banned calls", "sim/x_test.go", `package x; func f() { time.Sleep(1) }`, 1},
		{"setns at home", "banned calls", "sim/netns/x.go", `package x; func f() { unix.Setns(0, 0) }`, 0},
		{"setns elsewhere", "banned calls", "sim/netns/netnstest/x.go", `package x; func f() { unix.Setns(0, 0) }`, 1},
		{"unshare by attribute", "banned calls", "sim/x.go", `package x; var a = syscall.SysProcAttr{Unshareflags: 1}`, 1},
		{"function as long as it may be", "length", "sim/x.go", strings.Replace(longFunction, "_ = 0\n_ = 0\n", "", 1), 0},
		{"function too long", "length", "sim/x.go", longFunction, 1},
		{"file too long", "length", "sim/x.go", "package x\n" + strings.Repeat("\n", maxFileLines), 1},
		{"empty name", "names and marks", "sim/util/x.go", `package util`, 1},
		{"unfinished", "names and marks", "sim/x.go", "package x\n// TODO: later\n", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Len(t, rules[c.rule](parse(t, c.path, c.text)), c.want)
		})
	}
}
