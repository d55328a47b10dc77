package cell

import (
	"path/filepath"
	"slices"
	"strings"
)

// systemDirectories have the programs that are for root. In a cell everybody is root, and ordinary users' PATH lacks them on some systems.
var systemDirectories = []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}

// Path returns a PATH that leads to root's programs too, such as nft(8), behind all others. The worker's own is made so.
func Path(path string) string {
	dirs := filepath.SplitList(path)
	for _, d := range systemDirectories {
		if !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	return strings.Join(dirs, string(filepath.ListSeparator))
}
