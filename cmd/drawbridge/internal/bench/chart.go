package bench

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// Measures of the chart, in pixels.
const (
	chartWidth  = 1240
	chartLeft   = 470 // the words end here
	chartRight  = 940 // and the axis here; figures follow
	chartTop    = 96
	barPitch    = 20
	barHeight   = 12
	titlePitch  = 26
	chartBottom = 24
)

// chartStyle is readable on white and on black: whoever shows the file says which it is.
const chartStyle = `
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.head { font-size: 16px; font-weight: 600 }
.title { font-weight: 600 }
.who { text-anchor: end }
.small { fill: #59636e; font-size: 11px }
.axis { text-anchor: middle; fill: #59636e; font-size: 11px }
.grid { stroke: #d1d9e0 }
.one { stroke: #59636e; stroke-width: 2 }
.better { fill: #1a7f37 }
.worse { fill: #bc4c00 }
.bounds { stroke: #1f2328 }
.ground { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .small, .axis { fill: #9198a1 }
  .grid { stroke: #3d444d }
  .one { stroke: #9198a1 }
  .better { fill: #3fb950 }
  .worse { fill: #f0883e }
  .bounds { stroke: #e6edf3 }
  .ground { fill: #0d1117 }
}
`

// bar is one contender's: how many times as good as it ours is.
type bar struct {
	who, figures        string
	factor, least, most float64
	missing             string // why there is none; empty if there is
}

// advantage turns a ratio of ours to a contender into how many times better ours is: above 1 it is better.
func (c Comparison) advantage(l Line) bar {
	b := bar{who: l.label()}
	ours, ok := c.find("")
	if l.Ratio == nil || !ok || ours.Value == nil {
		b.missing = l.Note
		if b.missing == "" {
			b.missing = "no ratio"
		}
		return b
	}
	b.factor, b.least, b.most = l.Ratio.Median, l.Ratio.Low, l.Ratio.High
	if !c.More {
		b.factor, b.least, b.most = 1/b.factor, 1/b.most, 1/b.least
	}
	b.figures = fmt.Sprintf("%s×  (%s : %s %s)", significant(b.factor), significant(ours.Value.Median), significant(l.Value.Median), c.Unit)
	return b
}

// drawable tells whether a bar has finite ends on a logarithmic axis.
func (b bar) drawable() bool {
	for _, v := range []float64{b.factor, b.least, b.most} {
		if !(v > 0) || math.IsInf(v, 0) {
			return false
		}
	}
	return b.missing == ""
}

// scale is a logarithmic axis between powers of ten, of which 1 is always one.
type scale struct{ low, high int } // exponents

func scaleOf(bars []bar) scale {
	s := scale{-1, 1}
	for _, b := range bars {
		if b.drawable() {
			s.low = min(s.low, int(math.Floor(math.Log10(b.least))))
			s.high = max(s.high, int(math.Ceil(math.Log10(b.most))))
		}
	}
	return s
}

func (s scale) x(v float64) float64 {
	part := (math.Log10(v) - float64(s.low)) / float64(s.high-s.low)
	return chartLeft + 10 + part*(chartRight-chartLeft-10)
}

// chart collects the lines of a drawing.
type chart struct {
	strings.Builder
	y int
}

func (c *chart) text(class string, x float64, y int, words string) {
	fmt.Fprintf(c, `<text class="%s" x="%.1f" y="%d">`, class, x, y)
	_ = xml.EscapeText(c, []byte(words)) // a strings.Builder takes everything
	c.WriteString("</text>\n")
}

// Chart draws how many times better than each contender ours is, on a logarithmic axis, as a file of SVG that needs nothing besides
// itself. What was not measured has a line that says so.
func (s *Summary) Chart() string {
	var bars []bar
	for _, c := range s.Comparisons {
		for _, l := range c.others() {
			bars = append(bars, c.advantage(l))
		}
	}
	axis, body := scaleOf(bars), &chart{y: chartTop}
	for _, c := range s.Comparisons {
		lines := c.others()
		if len(lines) == 0 {
			continue
		}
		body.y += titlePitch
		body.text("title", 16, body.y, c.Title())
		for _, l := range lines {
			body.bar(axis, c.advantage(l))
		}
	}
	height := body.y + barPitch + chartBottom
	out := &chart{}
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-labelledby="head">`+"\n",
		chartWidth, height, chartWidth, height)
	fmt.Fprintf(out, "<style>%s</style>\n<rect class=\"ground\" width=\"%d\" height=\"%d\"/>\n", chartStyle, chartWidth, height)
	s.chartHead(out)
	out.grid(axis, height-chartBottom)
	out.WriteString(body.String())
	out.WriteString("</svg>\n")
	return out.String()
}

// others are the lines that have something to be compared with. A part of ours is no rival of it.
func (c Comparison) others() (lines []Line) {
	for _, l := range c.Lines {
		if !l.Kind.own() {
			lines = append(lines, l)
		}
	}
	return lines
}

func (s *Summary) chartHead(c *chart) {
	fmt.Fprintf(c, `<text class="head" id="head" x="16" y="28">How many times better than each: drawbridge</text>`+"\n")
	c.text("small", 16, 48, fmt.Sprintf("Logarithmic; right of 1 ours is better. Lines are the bounds of the median. Brackets: ours : it. Up to %d rounds.", s.Rounds))
	c.text("small", 16, 64, fmt.Sprintf("%s, %d processors, Linux %s", s.Processor, s.Processors, s.Kernel))
}

func (c *chart) grid(axis scale, bottom int) {
	for e := axis.low; e <= axis.high; e++ {
		x := axis.x(math.Pow10(e))
		fmt.Fprintf(c, `<line class="%s" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`+"\n", either(e == 0, "one", "grid"), x, chartTop, x, bottom)
		c.text("axis", x, chartTop-6, tickLabel(e))
	}
}

func tickLabel(exponent int) string {
	if exponent >= 0 {
		return Thousands(int(math.Pow10(exponent)))
	}
	return fmt.Sprintf("%.*f", -exponent, math.Pow10(exponent))
}

func (c *chart) bar(axis scale, b bar) {
	c.y += barPitch
	c.text("who", chartLeft, c.y, strings.ReplaceAll(b.who, "**", ""))
	if !b.drawable() {
		c.text("small", axis.x(1)+6, c.y, shortened(b.missing))
		return
	}
	from, to := axis.x(1), axis.x(b.factor)
	class := either(b.factor >= 1, "better", "worse")
	top, middle := c.y-barHeight+2, c.y-barHeight/2+2
	fmt.Fprintf(c, `<rect class="%s" x="%.1f" y="%d" width="%.1f" height="%d" rx="2"/>`+"\n", class, min(from, to), top, math.Abs(to-from), barHeight)
	fmt.Fprintf(c, `<line class="bounds" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`+"\n", axis.x(b.least), middle, axis.x(b.most), middle)
	c.text("small", max(axis.x(b.most), from)+6, c.y, b.figures)
}

// shortened keeps a reason on one line.
func shortened(s string) string {
	const most = 60 // characters
	s, _, _ = strings.Cut(s, "\n")
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}
