//go:build !operator

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"drawbridge/enforcer/compile"
	"drawbridge/sim/netns"

	"github.com/spf13/cobra"
)

// rulesOrder asks for what a node's packet filter holds.
type rulesOrder struct {
	Node string `json:"node"`
	// NFT is the path of nft(8); empty where there is none.
	NFT string `json:"nft,omitempty"`
}

func (p *program) simRulesCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "rules NODE",
		Short: "Print a node's packet filter out of the kernel, with the policy behind each element",
		Long: `Prints the tables of a node in the syntax of nft(8). At the elements of the reference enforcer's tables stands what they are there
for, in the policy that sim enforce brought into force last. Tables of others, the lab's own address translation included, are
printed by nft(8), where it is installed.`,
		Example: `  drawbridge sim rules gw-fr1
  drawbridge sim rules shared-a | grep pg-shared`,
		Args: exactly("NODE"),
		RunE: func(c *cobra.Command, args []string) error {
			const verb = "sim rules"
			a, err := ask(c.Context(), verb, *name, order{Rules: &rulesOrder{args[0], findNFT()}})
			if err != nil {
				return err
			}
			return p.print(verb, escaped(a.Text, "\n\t"))
		},
	}
}

// findNFT looks for nft(8) where distributions put it: not on everybody's PATH.
func findNFT() string {
	for _, name := range []string{"nft", "/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft"} {
		if path, err := exec.LookPath(name); err == nil {
			if path, err = filepath.Abs(path); err == nil {
				return path
			}
		}
	}
	return ""
}

func (h *holder) rules(ctx context.Context, o rulesOrder) (answer, error) {
	node, ok := h.lab.Node(o.Node)
	if !ok {
		return answer{}, misuse("", unknownNode(o.Node))
	}
	own, err := h.ownRules(ctx, o.Node, node)
	if err != nil {
		return answer{}, err
	}
	if o.NFT == "" {
		return answer{Text: own + "# Tables of others are not shown: nft(8) is not installed.\n"}, nil
	}
	others, err := rulesOfOthers(ctx, node, o.NFT)
	return answer{Text: own + others}, err
}

// ownRules asks the reference enforcer, which runs as a program like any other.
func (h *holder) ownRules(ctx context.Context, name string, node *netns.Handle) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	args := []string{"enforce", "rules"}
	if document := h.enforced.at(name).document; document != nil {
		file := filepath.Join(h.scratch, policyDirectory, name+".json")
		if err := os.WriteFile(file, document, 0o600); err != nil {
			return "", err
		}
		args = append(args, "--policy", file)
	}
	return output(ctx, node, self, args...)
}

// rulesOfOthers prints all tables but those of the reference enforcer.
func rulesOfOthers(ctx context.Context, node *netns.Handle, nft string) (string, error) {
	tables, err := output(ctx, node, nft, "list", "tables")
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for line := range strings.Lines(tables) {
		fields := strings.Fields(line) // table FAMILY NAME
		if len(fields) != 3 || fields[2] == compile.TableName {
			continue
		}
		text, err := output(ctx, node, nft, "list", "table", fields[1], fields[2])
		if err != nil {
			return "", err
		}
		out.WriteString(text)
	}
	return out.String(), nil
}

// output runs a program in a node and returns what it printed.
func output(ctx context.Context, node *netns.Handle, program string, args ...string) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	var complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = w, &complaints
	err = node.Start(cmd)
	_ = w.Close() // the program has its own
	if err != nil {
		return "", fmt.Errorf("%s: %w", filepath.Base(program), err)
	}
	text, err := io.ReadAll(r)
	if failed := cmd.Wait(); failed != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), failed, strings.TrimSpace(complaints.String()))
	}
	return string(text), errors.Join(ctx.Err(), err)
}
