//go:build manual

package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// addBuildVerbs adds the verb that writes the manual and the shells' completions. It is for packaging and in no program that is
// handed out.
func (p *program) addBuildVerbs(root *cobra.Command) {
	root.AddCommand(&cobra.Command{
		Use: "manual DIRECTORY", Short: "Write manual pages (section 8) and shell completions", Hidden: true, Args: exactly("DIRECTORY"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := writeManual(c.Root(), args[0]); err != nil {
				return unable("manual", err)
			}
			return nil
		},
	})
}

func writeManual(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root.DisableAutoGenTag = true // two builds of one version are the same
	header := &doc.GenManHeader{Section: "8", Source: "drawbridge " + currentVersion(), Manual: "System Manager's Manual"}
	if err := doc.GenManTree(root, header, dir); err != nil {
		return err
	}
	for name, write := range map[string]func(string) error{
		"drawbridge.bash": func(f string) error { return root.GenBashCompletionFileV2(f, true) },
		"_drawbridge":     root.GenZshCompletionFile,
		"drawbridge.fish": func(f string) error { return root.GenFishCompletionFile(f, true) },
	} {
		if err := write(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
