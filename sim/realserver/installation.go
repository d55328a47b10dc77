package realserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// ErrMissing says that a program of the distribution is not installed; MissingError says which.
var ErrMissing = errors.New("not installed")

// MissingError names what is missing, and the packages of Debian and Ubuntu that have it.
type MissingError struct{ Programs, Packages []string }

// Error names programs and packages.
func (e *MissingError) Error() string {
	return fmt.Sprintf("%s: %v; install %s", strings.Join(e.Programs, ", "), ErrMissing, strings.Join(e.Packages, ", "))
}

// Unwrap returns ErrMissing.
func (e *MissingError) Unwrap() error { return ErrMissing }

// packages that have the programs.
var packages = map[string]string{
	"initdb": "postgresql", "postgres": "postgresql", "pg_basebackup": "postgresql-client",
	"mariadbd": "mariadb-server", "redis-server": "redis-server",
}

// Installation is the distribution's servers, and a directory for their data.
type Installation struct {
	// Quiet servers tell nothing of their clients: no event reaches a journal, and Sync and Seen fail with ErrQuiet. It is for
	// measurements, in which a server that logs every statement would be slower than whatever is measured in front of it. It is
	// set before the first Start.
	Quiet bool

	dir      string
	programs map[string]string

	postgres, mariadb template
}

// template is a data directory that was initialised once, to be copied for each server.
type template struct {
	once sync.Once
	err  error
}

// Find finds the servers on the PATH and where Debian puts them. dir is for data: an empty directory that is the caller's
// alone, best in memory, with a path of 40 bytes at most, as sockets lie below it (unix(7): 108 bytes). The error is a
// *MissingError for all that is missing.
func Find(dir string) (*Installation, error) {
	i := &Installation{dir: dir, programs: map[string]string{}}
	var missing MissingError
	for _, name := range []string{"postgres", "initdb", "pg_basebackup", "mariadbd", "redis-server"} {
		path, ok := find(name)
		if ok {
			i.programs[name] = path
			continue
		}
		missing.Programs = append(missing.Programs, name)
		if p := packages[name]; !slices.Contains(missing.Packages, p) {
			missing.Packages = append(missing.Packages, p)
		}
	}
	if len(missing.Programs) > 0 {
		return nil, &missing
	}
	return i, nil
}

// elsewhere are directories of servers that are on nobody's, or only on root's PATH. The newest PostgreSQL is the last.
func elsewhere() []string {
	versions, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well-formed
	slices.Reverse(versions)
	return append(versions, "/usr/local/sbin", "/usr/sbin", "/sbin")
}

func find(name string) (string, bool) {
	if path, err := exec.LookPath(name); err == nil {
		path, err = filepath.Abs(path)
		return path, err == nil
	}
	for _, dir := range elsewhere() {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, true
		}
	}
	return "", false
}

// run runs a program to its end, as a server would run.
func run(ctx context.Context, stdin string, path string, args ...string) error {
	cmd := isolated(exec.CommandContext(ctx, path, args...))
	cmd.Env = environment()
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		var t tail
		for line := range strings.Lines(string(out)) {
			t.add(strings.TrimSuffix(line, "\n"))
		}
		return fmt.Errorf("%s: %w\n%s", filepath.Base(path), err, t.String())
	}
	return nil
}

// environment is that of every program here: messages in English, nothing of the user's configuration of these databases,
// and the one time zone that PostgreSQL knows without files.
func environment() []string {
	foreign := func(v string) bool {
		return strings.HasPrefix(v, "PG") || strings.HasPrefix(v, "MYSQL") || strings.HasPrefix(v, "MARIADB") || strings.HasPrefix(v, "LC_")
	}
	return append(slices.DeleteFunc(os.Environ(), foreign), "LC_ALL=C", "TZ=GMT")
}

// data returns a node's data directory. One that an earlier server of the node has left is used as it is: all engines recover by themselves
// from having been killed. Otherwise fill makes it, and what fill leaves behind when it fails is removed, so that it is never taken for a
// server's.
func (i *Installation) data(node string, fill func(dir string) error) (string, error) {
	dir := filepath.Join(i.dir, node)
	switch _, err := os.Stat(dir); {
	case err == nil:
		return dir, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	if err := fill(dir); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}

// copyOf fills a new directory with a template's data.
func (i *Installation) copyOf(template string) func(dir string) error {
	return func(dir string) error {
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(i.dir, template))); err != nil {
			return fmt.Errorf("copy %s: %w", template, err)
		}
		// Copies of directories get the umask's mode, and PostgreSQL refuses data that others may read.
		return os.Chmod(dir, 0o700)
	}
}

// The names of the certificate's files in a data directory.
const (
	certFile = "drawbridge-cert.pem"
	keyFile  = "drawbridge-key.pem"
)

// writeCertificate stores a certificate and its key, readable for their owner only.
func writeCertificate(dir string, c tls.Certificate) error {
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return err
	}
	var chain []byte
	for _, der := range c.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, certFile), chain, 0o600),
		os.WriteFile(filepath.Join(dir, keyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600),
	)
}
