package topology

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryWorldOfTestdataLoads(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		w, err := Load(file)
		require.NoError(t, err)
		require.NotEmpty(t, w.Name())
		require.NotEmpty(t, w.Points())
		sound(t, w)
	}
}

func TestLoadSaysWhichFileIsMissing(t *testing.T) {
	_, err := Load("testdata/no-such-world.yaml")
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "testdata/no-such-world.yaml")
}

func TestLoadDoesNotReadWithoutEnd(t *testing.T) {
	_, err := Load("/dev/zero")
	require.Len(t, Problems(err), 1)
	require.Contains(t, Problems(err)[0].Reason, "at most 8388608")
}
