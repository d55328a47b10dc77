//go:build !manual

package main

import "github.com/spf13/cobra"

// addBuildVerbs adds nothing: packages are not built by this program.
func (p *program) addBuildVerbs(*cobra.Command) {}
