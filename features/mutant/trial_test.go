package mutant

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestJudge(t *testing.T) {
	wrong, right := Mutant{Name: "w", Statement: "S-01"}, Mutant{Name: "r", Conforms: true}
	nobody := Mutant{Name: "n"}
	for name, c := range map[string]struct {
		m    Mutant
		r    Run
		want string
	}{
		"killed":                      {wrong, Run{Result: "failed", Failed: []string{"S-02", "S-01"}, Executed: 3}, Killed},
		"survived":                    {wrong, Run{Result: "passed", Executed: 3}, Survived},
		"failed by something else":    {wrong, Run{Result: "failed", Failed: []string{"S-02"}, Executed: 3}, Survived},
		"could not be judged":         {wrong, Run{Result: "unjudged"}, Unjudged},
		"failed, but not all of it":   {wrong, Run{Result: "failed", Failed: []string{"S-01"}, Executed: 3, Unjudged: 1}, Unjudged},
		"no answer at all":            {wrong, Run{}, Unjudged},
		"right, and passed":           {right, Run{Result: "passed", Executed: 3}, Equivalent},
		"right, and failed":           {right, Run{Result: "failed", Failed: []string{"S-01"}, Executed: 3}, Accused},
		"right, and not judged":       {right, Run{Result: "unjudged"}, Unjudged},
		"nobody is let in":            {nobody, Run{Result: "failed", Error: "a canary must be served at all times"}, Killed},
		"nobody, for another reason":  {nobody, Run{Result: "failed", Error: "x"}, Survived},
		"nobody, but scenarios began": {nobody, Run{Result: "failed", Error: "a canary must be served", Executed: 1}, Survived},
	} {
		got := c.m.Judge(c.r)
		require.Equal(t, c.want, got.Verdict, name)
		require.Equal(t, c.want == Killed || c.want == Equivalent, got.OK(), name)
	}
}

func TestScore(t *testing.T) {
	killed := Trial{Mutant: "a", Verdict: Killed, Statement: "S-01", Killers: []string{"one", "two", "three", "four"}}
	s := Score{Trials: []Trial{killed, {Mutant: "b", Verdict: Equivalent, Equivalent: true, Breaks: "nothing"}}}
	s.Count()
	require.True(t, s.OK)
	require.Equal(t, 1.0, s.Score)
	var b bytes.Buffer
	require.NoError(t, s.Write(&b))
	require.Contains(t, b.String(), "and 1 more")
	require.Contains(t, b.String(), "1 of 1 wrong enforcers killed (100.0 %), 1 of 1 right ones passed")

	s = Score{Trials: []Trial{killed, {Mutant: "c", Verdict: Survived, Statement: "S-02"}}}
	s.Count()
	require.False(t, s.OK)
	require.Equal(t, 0.5, s.Score)
	require.False(t, func() bool { var none Score; none.Count(); return none.OK }())
}
