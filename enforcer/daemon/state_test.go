package daemon

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestALoopThatIsStuckIsNotHealthy, however much is in force.
func TestALoopThatIsStuckIsNotHealthy(t *testing.T) {
	s := newState()
	health := func() int {
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
		return w.Code
	}
	require.Equal(t, http.StatusOK, health())
	long := time.Now().Add(-2 * stuck)
	s.beat.Store(&long)
	require.Equal(t, http.StatusServiceUnavailable, health())
	s.alive()
	require.Equal(t, http.StatusOK, health())
}
