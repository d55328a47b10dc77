package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// The files of a report.
const (
	jsonFile     = "bench-tls.json"
	markdownFile = "bench-tls.md"
)

// Write writes the report's files into a directory, which is made if it is not there.
func (r *Report) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	var b strings.Builder
	err = r.WriteMarkdown(&b)
	return errors.Join(err,
		os.WriteFile(filepath.Join(dir, jsonFile), append(text, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, markdownFile), []byte(b.String()), 0o644))
}

// WriteMarkdown writes the report for people, in Markdown whose columns are aligned.
func (r *Report) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# The gate, no firewall, and HAProxy\n\n")
	r.introduce(&b)
	b.WriteString("\nTransactions (persistent connections) or connections (new ones) in a second, median; ratios with their bounds:\n\n")
	writeTable(&b, r.rates())
	b.WriteString("\nMean latency in ms, processor time of all processes of the benchmark in µs for a transaction:\n\n")
	writeTable(&b, r.costs())
	fmt.Fprintf(&b, "\nAll rows together: gate %s, HAProxy %s of the rate without firewall. Goal of the gate: %.2f. %s.\n",
		ratio(r.AllGate), ratio(r.AllProxy), r.Goal, r.conclusion())
	if n := r.disturbed(); n > 0 {
		fmt.Fprintf(&b, "\nOther work used more than %.0f %% of the machine during %d of %d rows: what they say is worth little before "+
			"it was repeated on an idle machine.\n", 100*disturbing, n, len(r.Results))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// disturbing is the share of the machine from which on other work is worth a warning: kernel threads alone take a few per cent.
const disturbing = 0.2

func (r *Report) disturbed() (n int) {
	for _, row := range r.Results {
		if row.Others > disturbing {
			n++
		}
	}
	return n
}

func (r *Report) introduce(b *strings.Builder) {
	fmt.Fprintf(b, "* Machine: %s, %d processors, Linux %s\n", r.Processor, r.Processors, r.Kernel)
	var programs []string
	for _, name := range slices.Sorted(maps.Keys(r.Programs)) {
		programs = append(programs, name+": "+r.Programs[name])
	}
	fmt.Fprintf(b, "* Programs: %s\n", strings.Join(programs, "; "))
	fmt.Fprintf(b, "* Rounds: %d for each row, in each one run without firewall, one through the gate and one through HAProxy, "+
		"%g s each, %d clients\n", r.Rounds, r.Seconds, r.Clients)
	b.WriteString("* Ratios are of the runs of one round; what is told is their median and, in brackets, the bounds of the true median " +
		"by at least 90 % confidence (with fewer than 5 rounds, smallest and greatest)\n" +
		"* Noise: how much a run without firewall differs from the one a round earlier, in the median; others: the share of the " +
		"machine that was used by anything else, the kernel's threads included\n")
}

func (r *Report) conclusion() string {
	var missed, unclear []string
	if verdictOf(r.AllGate) == Missed {
		missed = append(missed, "all together")
	}
	for _, row := range r.Results {
		switch row.Verdict {
		case Missed:
			missed = append(missed, row.name())
		case Noise:
			unclear = append(unclear, row.name())
		}
	}
	switch {
	case len(missed) > 0:
		return "Missed beyond noise: " + strings.Join(missed, ", ")
	case len(unclear) > 0:
		return "Missed nowhere beyond noise; not reached by the median: " + strings.Join(unclear, ", ")
	}
	return "Reached everywhere"
}

func (r Result) name() string {
	return strings.Join([]string{r.Engine, r.Model, r.Connections, r.Transport}, " ")
}

func (r *Report) rates() [][]string {
	table := [][]string{{"load", "no firewall", "gate", "HAProxy", "gate / none", "HAProxy / none", "noise", "others", "goal"}}
	for _, row := range r.Results {
		table = append(table, []string{
			row.name(), figure(row.Direct.PerSecond.Median), figure(row.Gate.PerSecond.Median), figure(row.Proxy.PerSecond.Median),
			ratio(row.GateRatio), ratio(row.ProxyRatio), percent(row.Noise), percent(row.Others), string(row.Verdict),
		})
	}
	return table
}

func (r *Report) costs() [][]string {
	table := [][]string{{"load", "latency: none", "gate", "HAProxy", "processor: none", "gate", "HAProxy", "gate / none", "HAProxy / none"}}
	for _, row := range r.Results {
		cells := []string{row.name()}
		for _, m := range []Measured{row.Direct, row.Gate, row.Proxy} {
			cells = append(cells, fmt.Sprintf("%.3f", m.LatencyMS.Median))
		}
		for _, m := range []Measured{row.Direct, row.Gate, row.Proxy} {
			cells = append(cells, figure(m.ProcessorMicro.Median))
		}
		table = append(table, append(cells, ratio(row.GateProcessor), ratio(row.ProxyProcessor)))
	}
	return table
}

func figure(v float64) string  { return fmt.Sprintf("%.0f", v) }
func percent(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }
func ratio(s Spread) string    { return fmt.Sprintf("%.3f [%.3f, %.3f]", s.Median, s.Low, s.High) }

// writeTable writes a table of Markdown whose first row is its head; all columns but the first are aligned to the right.
func writeTable(b *strings.Builder, table [][]string) {
	widths := make([]int, len(table[0]))
	for _, row := range table {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for n, row := range table {
		for i, cell := range row {
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				fmt.Fprintf(b, "| %s%s ", cell, space)
			} else {
				fmt.Fprintf(b, "| %s%s ", space, cell)
			}
		}
		b.WriteString("|\n")
		if n == 0 {
			for i, width := range widths {
				b.WriteString("|" + either(i == 0, ":"+strings.Repeat("-", width+1), strings.Repeat("-", width+1)+":"))
			}
			b.WriteString("|\n")
		}
	}
}
