package realserver

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"drawbridge/sim/capture"
	"drawbridge/sim/endpoint"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sys/unix"
)

// mariadbTemplate is the directory of the data that was initialised once.
const mariadbTemplate = ".mariadb"

// Names of files in a data directory: the socket of the lab's own connection, and the pipe for the general query log.
const (
	mariadbSocket = "s"
	mariadbPipe   = "general-log"
)

// mariadbShare finds the messages and SQL files that belong to a server program.
func (i *Installation) mariadbShare() (string, error) {
	bin := filepath.Dir(i.programs["mariadbd"])
	for _, dir := range []string{
		filepath.Join(bin, "../share/mysql"), filepath.Join(bin, "../share/mariadb"), "/usr/share/mysql", "/usr/share/mariadb",
	} {
		if _, err := os.Stat(filepath.Join(dir, "mysql_system_tables.sql")); err == nil {
			return dir, nil
		}
	}
	return "", &MissingError{Programs: []string{"mysql_system_tables.sql"}, Packages: []string{"mariadb-server"}}
}

// mariadbBasics are settings of both initialisation and service. --no-defaults has to be the first.
func mariadbBasics(share, dir string) []string {
	return []string{
		"--no-defaults", "--datadir=" + dir, "--lc-messages-dir=" + share, "--character-sets-dir=" + filepath.Join(share, "charsets"),
		"--skip-log-bin", "--performance-schema=OFF", "--skip-name-resolve",
		// Small, and nothing that has to outlive the lab.
		"--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M", "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0",
		"--innodb-data-file-path=ibdata1:2M:autoextend", "--innodb-temp-data-file-path=ibtmp1:1M:autoextend",
	}
}

// initMariaDB makes the template as mariadb-install-db(1) does, which is a script that wants its programs in their places:
// some 0.6 s.
func (i *Installation) initMariaDB(ctx context.Context) error {
	share, err := i.mariadbShare()
	if err != nil {
		return err
	}
	dir := filepath.Join(i.dir, mariadbTemplate)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	var script strings.Builder
	script.WriteString("CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket = NULL;\n")
	for _, name := range []string{"mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql"} {
		text, err := os.ReadFile(filepath.Join(share, name))
		if err != nil {
			return err
		}
		script.Write(text)
	}
	fmt.Fprintf(&script, "\nFLUSH PRIVILEGES;\nCREATE DATABASE %s;\nCREATE USER %s@'%%' IDENTIFIED BY '%s';\nGRANT ALL ON %s.* TO %s@'%%';\n",
		endpoint.Schema, endpoint.User, endpoint.Password, endpoint.Schema, endpoint.User)
	return run(ctx, script.String(), i.programs["mariadbd"], append(mariadbBasics(share, dir), "--bootstrap")...)
}

// mariadbServer is the engine of a running MariaDB.
type mariadbServer struct {
	ledger *ledger
	admin  *sql.DB
	log    *os.File // the pipe
	tap    *capture.Tap
}

func (i *Installation) startMariaDB(ctx context.Context, s *Server) error {
	i.mariadb.once.Do(func() { i.mariadb.err = i.initMariaDB(ctx) })
	if i.mariadb.err != nil {
		return i.mariadb.err
	}
	dir, err := i.data(s.cfg.Name, i.copyOf(mariadbTemplate))
	if err != nil {
		return err
	}
	if err := writeCertificate(dir, s.cfg.Certificate); err != nil {
		return err
	}
	m := &mariadbServer{ledger: s.ledger}
	s.engine = m
	if !s.quiet {
		if err := m.listen(s.cfg, dir); err != nil {
			return err
		}
	}
	ready := make(chan struct{})
	log := newMariadbLog(s.ledger, func() { close(ready) })
	cmd, err := i.mariadbCommand(s.cfg, dir, s.quiet)
	if err != nil {
		return err
	}
	if s.process, err = launch(s.cfg.Node, cmd, log.takeError); err != nil {
		return err
	}
	if m.log != nil {
		go eachLine(m.log, log.takeGeneral)
	}
	if err := s.process.await(ctx, ready); err != nil {
		return err
	}
	if err := m.connect(filepath.Join(dir, mariadbSocket)); err != nil {
		return err
	}
	return m.admin.QueryRowContext(ctx, "SELECT CONCAT('MariaDB ', @@version)").Scan(&s.program)
}

func (i *Installation) mariadbCommand(cfg Config, dir string, quiet bool) (*exec.Cmd, error) {
	share, err := i.mariadbShare()
	if err != nil {
		return nil, err
	}
	args := append(mariadbBasics(share, dir),
		"--socket="+filepath.Join(dir, mariadbSocket), "--port="+strconv.Itoa(int(cfg.Port)), "--pid-file="+filepath.Join(dir, "pid"),
		"--ssl-cert="+filepath.Join(dir, certFile), "--ssl-key="+filepath.Join(dir, keyFile))
	if quiet {
		args = append(args, "--general-log=0", "--log-warnings=0")
	} else {
		// Warnings of level 4 and more name each connection that ended before its login.
		args = append(args, "--general-log=1", "--general-log-file="+filepath.Join(dir, mariadbPipe), "--log-warnings=9",
			"--innodb-flush-log-at-trx-commit=2") // what was committed outlives the server
	}
	cmd := exec.Command(i.programs["mariadbd"], args...)
	cmd.Dir, cmd.Env = dir, environment()
	return cmd, nil
}

// listen opens the pipe that the server will write to, and the capture of its greetings.
func (m *mariadbServer) listen(cfg Config, dir string) error {
	pipe := filepath.Join(dir, mariadbPipe)
	if err := unix.Mkfifo(pipe, 0o600); err != nil && !errors.Is(err, unix.EEXIST) { // of the node's server before
		return &os.PathError{Op: "mkfifo", Path: pipe, Err: err}
	}
	var err error
	// Open for writing as well, so that there is no end of file between two writers, and no wait for the first.
	if m.log, err = os.OpenFile(pipe, os.O_RDWR|unix.O_NONBLOCK, 0); err != nil {
		return err
	}
	if m.tap, err = capture.Open(cfg.Node); err != nil {
		return err
	}
	greetings, _ := m.tap.Subscribe(func(p capture.Packet) bool {
		return p.Outgoing && p.Flow.Src.Port() == cfg.Port && len(p.Payload) > 0
	})
	go func() {
		for p := range greetings {
			if thread, ok := greetingThread(p.Payload); ok {
				m.ledger.greeted(thread, p.Flow.Dst, p.Flow.Src)
			}
		}
	}()
	return nil
}

func (m *mariadbServer) connect(socket string) error {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr = "root", "unix", socket
	cfg.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return err
	}
	m.admin = sql.OpenDB(connector)
	return nil
}

func (m *mariadbServer) barrier(ctx context.Context, text string) error {
	_, err := m.admin.ExecContext(ctx, "DO '"+text+"'")
	return err
}

// greetingLimit is how long the capture may be behind the log: it reads a ring in memory that was filled before the log was
// written.
const greetingLimit = time.Second

// reconcile waits until the greetings of all connections that the log named have been seen. One whose greeting an enforcer
// did not let out is resolved by the server's list of threads while it lasts, and has port 0 after.
func (m *mariadbServer) reconcile(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, greetingLimit)
	defer cancel()
	for {
		keys, changed := m.ledger.pending()
		if len(keys) == 0 {
			return nil
		}
		select {
		case <-changed:
			continue
		case <-limit.Done():
		}
		return m.resolve(ctx, keys)
	}
}

func (m *mariadbServer) resolve(ctx context.Context, threads []string) error {
	for _, thread := range threads {
		var host string
		err := m.admin.QueryRowContext(ctx, "SELECT HOST FROM information_schema.PROCESSLIST WHERE ID = ?", thread).Scan(&host)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			m.ledger.identify(thread, m.ledger.remoteOf(thread), netip.AddrPort{}, false)
		case err != nil:
			return err
		default:
			remote, _ := netip.ParseAddrPort(host) // "localhost" is no client of the network
			m.ledger.identify(thread, remote, netip.AddrPort{}, false)
		}
	}
	return nil
}

func (m *mariadbServer) close() error {
	var errs []error
	if m.admin != nil {
		_ = m.admin.Close() // the server is gone
	}
	if m.log != nil {
		errs = append(errs, m.log.Close())
	}
	if m.tap != nil {
		errs = append(errs, m.tap.Close())
	}
	return errors.Join(errs...)
}
