package bench

import (
	"cmp"
	"time"
)

// Goal is what the gate has to leave of the rate without a firewall.
const Goal = 0.97

// Way is what stands between the client and the database. The zero value is none of them.
type Way int

// The ways, in the order of a round.
const (
	Direct Way = iota + 1 // no firewall
	Gate                  // the reference enforcer; Force TLS is on for loads over TLS
	Proxy                 // no firewall, and HAProxy in TCP mode
)

// Ways of a round.
var Ways = []Way{Direct, Gate, Proxy}

// String returns the way's name.
func (w Way) String() string {
	return cmp.Or(map[Way]string{Direct: "no firewall", Gate: "gate", Proxy: "HAProxy"}[w], "unknown")
}

// Sample is one run of a load.
type Sample struct {
	Outcome
	N       int           // transactions
	Elapsed time.Duration // of the whole run of the load generator
	Used    Usage
}

// Verdict says whether a row reached the goal. The zero value is no verdict.
type Verdict string

// Verdicts.
const (
	Met    Verdict = "met"    // the median ratio reaches the goal
	Noise  Verdict = "noise"  // it does not, but its bounds do, or there were too few rounds to tell
	Missed Verdict = "missed" // and its bounds do not either
)

func verdictOf(ratio Spread) Verdict { return judge(ratio, Goal, true) }

// Measured is a row by one way, over all rounds.
type Measured struct {
	PerSecond      Spread `json:"per_second"`
	LatencyMS      Spread `json:"latency_ms"`
	ProcessorMicro Spread `json:"processor_us"` // of all processes of the benchmark, for a transaction
}

func measured(samples []Sample) Measured {
	var rate, latency, used []float64
	for _, s := range samples {
		rate = append(rate, s.PerSecond)
		latency = append(latency, float64(s.Latency)/float64(time.Millisecond))
		used = append(used, float64(s.Used.Processes)/float64(time.Microsecond)/float64(s.N))
	}
	return Measured{NewSpread(rate), NewSpread(latency), NewSpread(used)}
}

// Result is a row of the report. Ratios are to the rate without firewall in the same round.
type Result struct {
	Engine         string   `json:"engine"`
	Model          string   `json:"model"`
	Connections    string   `json:"connections"`
	Transport      string   `json:"transport"`
	Unit           string   `json:"unit"`
	N              int      `json:"transactions_a_run"`
	Direct         Measured `json:"no_firewall"`
	Gate           Measured `json:"gate"`
	Proxy          Measured `json:"haproxy"`
	GateRatio      Spread   `json:"gate_ratio"`
	ProxyRatio     Spread   `json:"haproxy_ratio"`
	GateProcessor  Spread   `json:"gate_processor_ratio"`
	ProxyProcessor Spread   `json:"haproxy_processor_ratio"`
	Noise          float64  `json:"noise"` // Drift of the rates without firewall
	Others         float64  `json:"others"`
	Verdict        Verdict  `json:"verdict"`
}

// NewResult compares the samples of a row, which has at least one for each way; the i-th of each way are of round i.
func NewResult(r Row, samples map[Way][]Sample, processors int) Result {
	direct, gate, proxy := measured(samples[Direct]), measured(samples[Gate]), measured(samples[Proxy])
	result := Result{
		Engine: string(r.Engine), Model: string(r.Model), Connections: r.Connections(), Transport: r.Transport(), Unit: r.Unit(),
		N: samples[Direct][0].N, Direct: direct, Gate: gate, Proxy: proxy,
		GateRatio:      NewSpread(Ratios(gate.PerSecond.Values, direct.PerSecond.Values)),
		ProxyRatio:     NewSpread(Ratios(proxy.PerSecond.Values, direct.PerSecond.Values)),
		GateProcessor:  NewSpread(Ratios(gate.ProcessorMicro.Values, direct.ProcessorMicro.Values)),
		ProxyProcessor: NewSpread(Ratios(proxy.ProcessorMicro.Values, direct.ProcessorMicro.Values)),
		Noise:          Drift(direct.PerSecond.Values),
		Others:         others(samples, processors),
	}
	result.Verdict = verdictOf(result.GateRatio)
	return result
}

// others is the share of the machine that was used by anything but the benchmark, in the median run; kernel threads that
// work for it are among the others.
func others(samples map[Way][]Sample, processors int) float64 {
	var shares []float64
	for _, w := range Ways {
		for _, s := range samples[w] {
			shares = append(shares, max(0, float64(s.Used.Machine-s.Used.Processes)/(float64(processors)*float64(s.Elapsed))))
		}
	}
	return NewSpread(shares).Median
}

// Report is a whole comparison.
type Report struct {
	Kernel     string            `json:"kernel"`
	Processor  string            `json:"processor"`
	Processors int               `json:"processors"`
	Programs   map[string]string `json:"programs"`
	Rounds     int               `json:"rounds"`
	Seconds    float64           `json:"seconds_a_run"`
	Clients    int               `json:"clients"`
	Goal       float64           `json:"goal"`
	// AllGate and AllProxy are the ratios of all rounds of all rows.
	AllGate  Spread   `json:"all_gate_ratio"`
	AllProxy Spread   `json:"all_haproxy_ratio"`
	Verdict  Verdict  `json:"verdict"`
	Results  []Result `json:"results"`
}

// Conclude computes what is said of all rows, of which there is at least one. One row that missed the goal misses it for all, and so do
// all together, in which there is less noise.
func (r *Report) Conclude() {
	r.Goal = Goal
	var gate, proxy []float64
	worst := Met
	for _, row := range r.Results {
		gate, proxy = append(gate, row.GateRatio.Values...), append(proxy, row.ProxyRatio.Values...)
		if row.Verdict == Missed || row.Verdict == Noise && worst == Met {
			worst = row.Verdict
		}
	}
	r.AllGate, r.AllProxy = NewSpread(gate), NewSpread(proxy)
	if verdictOf(r.AllGate) == Missed {
		worst = Missed
	}
	r.Verdict = worst
}
