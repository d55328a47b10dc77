package topology

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAFleetHasWhatItSays(t *testing.T) {
	for _, f := range []Fleet{{"a", 50, 50}, {"b", 1, 0}, {"c", 0, 1}, {"d", 1100, 20}} {
		t.Run(fmt.Sprintf("%d and %d", f.Dedicated, f.Shared), func(t *testing.T) {
			text, err := NewFleet(f)
			require.NoError(t, err)
			w, err := Parse("fleet.yaml", text)
			require.NoError(t, err)
			if f.Dedicated < onMachine { // it looks at everything several times
				sound(t, w)
			}
			of := map[Model]int{}
			for _, d := range w.Databases() {
				if !d.Canary {
					of[d.Model]++
				}
			}
			require.Equal(t, map[Model]int{Dedicated: f.Dedicated, Shared: f.Shared}, map[Model]int{Dedicated: of[Dedicated], Shared: of[Shared]})
			machines := 0
			if f.Dedicated > 0 {
				machines = (f.Dedicated+onMachine-1)/onMachine + 1 // and the canary's
			}
			require.Len(t, w.MachinesBehind("gateway"), machines)
		})
	}
}

func TestAFleetOfNoneOrTooManyIsRefused(t *testing.T) {
	for _, f := range []Fleet{{}, {Dedicated: -1}, {Dedicated: MostDedicated + 1}, {Shared: -1}, {Shared: MostShared + 1}} {
		_, err := NewFleet(f)
		require.Error(t, err, "%+v", f)
	}
}

// TestTheGreatestFleetIsParsed: what is quadratic takes minutes there.
func TestTheGreatestFleetIsParsed(t *testing.T) {
	text, err := NewFleet(Fleet{"greatest", MostDedicated, MostShared})
	require.NoError(t, err)
	began := time.Now()
	w, err := Parse("fleet.yaml", text)
	require.NoError(t, err)
	t.Logf("%d bytes parsed in %s", len(text), time.Since(began))
	require.Len(t, w.Databases(), MostDedicated+MostShared+2)
}
