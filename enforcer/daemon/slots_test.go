package daemon

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestSlotsAlwaysHoldTheLatest: whatever is written, copied and killed half-way in whatever order, and whatever the machine lost of what was
// not on disk when it stopped, the latest document is loaded, or a later one that was on its way.
func TestSlotsAlwaysHoldTheLatest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "slots")
		require.NoError(t, err)
		defer os.RemoveAll(dir)
		s := newSlots(dir)
		defer func() { require.NoError(t, s.close()) }()
		written, onDisk := 0, 0 // the latest document, and the latest that the machine cannot lose
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			step := rapid.SampledFrom([]string{"write", "write", "secure", "killed in a write", "killed in a copy", "started again", "lost"}).Draw(t, "step")
			if len(s.files) == 0 && step != "lost" {
				require.NoError(t, s.open())
				onDisk = written
			}
			switch step {
			case "write":
				written++
				require.NoError(t, s.write(numbered(t, written)))
			case "secure":
				require.NoError(t, s.secure())
				onDisk = written
			case "killed in a write":
				tear(t, s.files[s.free()])
				s = reopened(t, s)
			case "killed in a copy":
				if from, f := s.last(); f != nil {
					_, to, err := s.beginCopy(from, f)
					require.NoError(t, err)
					onDisk = written
					tear(t, to)
				}
				s = reopened(t, s)
			case "started again":
				s = reopened(t, s)
			case "lost": // with the machine
				s = reopened(t, s)
				loseAllBut(t, dir, onDisk)
				written = onDisk
			}
			document, err := Snapshots{Dir: dir}.Load()
			if written == 0 {
				require.ErrorIs(t, err, ErrNoSnapshot)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, written, numberOf(t, document))
		}
	})
}

// numbered is a document of any length.
func numbered(t *rapid.T, n int) summed {
	length := rapid.SampledFrom([]int{10, 1000, 20_000}).Draw(t, "length")
	return withSum(fmt.Appendf(nil, "%d %s", n, bytes.Repeat([]byte("x"), length+n)))
}

func numberOf(t *rapid.T, document []byte) (n int) {
	_, err := fmt.Sscan(string(document), &n)
	require.NoError(t, err)
	return n
}

// loseAllBut damages all documents but one.
func loseAllBut(t *rapid.T, dir string, kept int) {
	for i := range slotCount {
		path := filepath.Join(dir, slotName(i))
		if _, document, err := loadSlot(path); err == nil && numberOf(t, document) != kept {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			require.NoError(t, err)
			tear(t, f)
			require.NoError(t, f.Close())
		}
	}
}

func reopened(t *rapid.T, s *slots) *slots {
	require.NoError(t, s.close())
	return newSlots(s.dir)
}

// tear leaves half of a document in a slot.
func tear(t *rapid.T, f *os.File) {
	_, err := f.WriteAt([]byte("half"), headLen+3)
	require.NoError(t, err)
}

// TestSlotsOfAnEarlierVersion: what it has kept is there until something later is.
func TestSlotsOfAnEarlierVersion(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{snapshotName, copyName} {
		require.NoError(t, replace(filepath.Join(dir, name), withSum([]byte("old"))))
	}
	document, err := Snapshots{Dir: dir}.Load()
	require.NoError(t, err)
	require.Equal(t, "old", string(document))
	s := newSlots(dir)
	require.NoError(t, s.write(withSum([]byte("new"))))
	document, err = Snapshots{Dir: dir}.Load()
	require.NoError(t, err)
	require.Equal(t, "new", string(document))
	require.NoFileExists(t, filepath.Join(dir, snapshotName))
	require.NoFileExists(t, filepath.Join(dir, copyName))
	require.NoError(t, s.close())
}

// TestSlotsThatWereTakenAway are made again with the next document.
func TestSlotsThatWereTakenAway(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := newSlots(dir)
	require.NoError(t, s.write(withSum([]byte("one"))))
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, s.write(withSum([]byte("two"))))
	require.NoError(t, s.secure())
	document, err := Snapshots{Dir: dir}.Load()
	require.NoError(t, err)
	require.Equal(t, "two", string(document))
	require.NoError(t, s.close())
}

// FuzzHead: what is read as a head is written so, and nothing else is one.
func FuzzHead(f *testing.F) {
	f.Add(head{sum: withSum(nil).sum, sequence: 1, length: 2}.marshal())
	f.Add(make([]byte, headLen))
	f.Fuzz(func(t *testing.T, line []byte) {
		name := filepath.Join(t.TempDir(), "slot")
		require.NoError(t, os.WriteFile(name, line, 0o600))
		file, err := os.Open(name)
		require.NoError(t, err)
		defer file.Close()
		if h, err := readHead(file); err == nil {
			require.Equal(t, line[:headLen], h.marshal())
		}
	})
}
