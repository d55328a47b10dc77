// Package features is the specification in executable form: the .feature files, and how many scenarios they hold.
package features

import "embed"

// Files holds the .feature files.
//
//go:embed *.feature
var Files embed.FS

// Expected is how many scenarios each profile runs when nothing is selected by tag: committed, so that scenarios cannot get
// lost unnoticed. "extended" counts the extended scenarios alone.
var Expected = map[string]int{
	"core":     93,
	"extended": 52,
}
