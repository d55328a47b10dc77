package realserver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"drawbridge/sim/endpoint"

	"github.com/jackc/pgx/v5"
)

// Accounts of PostgreSQL besides endpoint.User: the lab's own, which no network reaches, and that of standby servers.
const (
	postgresAdmin = "postgres"
	Replicator    = "replicator"
)

// postgresTemplate is the directory of the data that was initialised once.
const postgresTemplate = ".postgresql"

// Primary is the server that a standby copies and follows.
type Primary struct{ conninfo string }

// PrimaryAt returns the primary at an address. A standby reaches it over TLS, and not otherwise.
func PrimaryAt(addr netip.AddrPort) *Primary { return &Primary{Conninfo(addr, "require")} }

// Conninfo says in libpq's words how a standby reaches its primary, with an sslmode of libpq's.
func Conninfo(addr netip.AddrPort, sslmode string) string {
	return fmt.Sprintf("host=%s port=%d user=%s password=%s sslmode=%s gssencmode=disable",
		addr.Addr(), addr.Port(), Replicator, endpoint.Password, sslmode)
}

// hba lets in anybody with a password over TLS, and anybody without TLS for nothing: see the package's documentation.
const hba = `local all,replication all trust
hostssl all,replication all all scram-sha-256
hostnossl all,replication all all trust
`

// initPostgres makes the template: some 1.1 s.
func (i *Installation) initPostgres(ctx context.Context) error {
	dir := filepath.Join(i.dir, postgresTemplate)
	err := run(ctx, "", i.programs["initdb"], "-D", dir, "-U", postgresAdmin, "-A", "trust", "-E", "UTF8", "--locale=C",
		"--no-sync", "--no-instructions", "--wal-segsize=1") // 1 MB: the data is copied for every node
	if err != nil {
		return err
	}
	script := fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s';\nCREATE ROLE %s LOGIN REPLICATION PASSWORD '%s';\n"+
		"ALTER DATABASE postgres RENAME TO %s;\nALTER DATABASE %[5]s OWNER TO %[1]s;\n",
		endpoint.User, endpoint.Password, Replicator, endpoint.Password, endpoint.Schema)
	if err := run(ctx, script, i.programs["postgres"], "--single", "-D", dir, "template1"); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "pg_hba.conf"), []byte(hba), 0o600)
}

// postgresServer is the engine of a running PostgreSQL.
type postgresServer struct {
	mu    sync.Mutex // a pgx.Conn is for one goroutine at a time
	admin *pgx.Conn
}

func (i *Installation) startPostgres(ctx context.Context, s *Server) error {
	dir, err := i.postgresData(ctx, s.cfg)
	if err != nil {
		return err
	}
	if err := writeCertificate(dir, s.cfg.Certificate); err != nil {
		return err
	}
	ready := make(chan struct{})
	log := newPostgresLog(s.ledger, func() { close(ready) })
	s.program = i.programs["postgres"]
	args := append([]string{"-D", dir}, postgresSettings(s.cfg.Port, dir)...)
	if s.quiet {
		args = append(args, postgresQuiet...)
	}
	cmd := exec.Command(s.program, args...)
	cmd.Dir, cmd.Env = dir, environment()
	if s.process, err = launch(s.cfg.Node, cmd, log.take); err != nil {
		return err
	}
	if err := s.process.await(ctx, ready); err != nil {
		return err
	}
	admin, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable",
		dir, s.cfg.Port, postgresAdmin, endpoint.Schema))
	if err != nil {
		return err
	}
	s.engine = &postgresServer{admin: admin}
	return admin.QueryRow(ctx, "SELECT 'PostgreSQL ' || current_setting('server_version')").Scan(&s.program)
}

// postgresData prepares the data directory: that of the node's server before, or a copy of the template or of another server.
func (i *Installation) postgresData(ctx context.Context, cfg Config) (string, error) {
	if cfg.Standby != nil {
		return i.data(cfg.Name, func(dir string) error { return i.copyPrimary(ctx, cfg, dir) })
	}
	i.postgres.once.Do(func() { i.postgres.err = i.initPostgres(ctx) })
	if i.postgres.err != nil {
		return "", i.postgres.err
	}
	return i.data(cfg.Name, i.copyOf(postgresTemplate))
}

// copyPrimary fills a standby's directory. It connects from the node, as the standby does afterwards; -R leaves the connection's settings
// for that.
func (i *Installation) copyPrimary(ctx context.Context, cfg Config, dir string) error {
	cmd := isolated(exec.CommandContext(ctx, i.programs["pg_basebackup"], "-D", dir, "-d", cfg.Standby.conninfo, "-R", "-X", "stream",
		"-c", "fast", "--no-sync"))
	cmd.Env = environment()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cfg.Node.Start(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("pg_basebackup: %w: %s", err, strings.TrimSpace(out.String()))
	}
	return nil
}

// postgresSettings are the server's, on its command line, so that a copied directory has nothing of another node's.
func postgresSettings(port uint16, dir string) []string {
	var args []string
	for _, setting := range []string{
		"port=" + strconv.Itoa(int(port)), "listen_addresses=*", "unix_socket_directories=" + dir, "external_pid_file=",
		"ssl=on", "ssl_cert_file=" + certFile, "ssl_key_file=" + keyFile,
		// Of what the log tells, the levels down to debug2 hold the end of TLS handshakes and of processes.
		"logging_collector=off", "log_destination=stderr", "log_line_prefix=" + postgresPrefix, "log_min_messages=debug2", "log_timezone=GMT",
		"log_connections=on", "log_disconnections=on", "log_statement=all", "log_replication_commands=on",
		"shared_buffers=1MB", "dynamic_shared_memory_type=mmap", "max_connections=100", "huge_pages=off", // many servers on one machine
		"max_wal_size=32MB", "min_wal_size=2MB", "wal_keep_size=16MB", "autovacuum=off", "wal_retrieve_retry_interval=200ms", "jit=off",
		"fsync=off", "full_page_writes=off", // the data ends with the lab, but what was committed outlives the server
	} {
		args = append(args, "-c", setting)
	}
	return args
}

// postgresQuiet overrides what would log, and what would have every query read files: of a setting that is given twice, the
// server takes the last. The message that it is ready is of level log.
var postgresQuiet = []string{
	"-c", "log_min_messages=log", "-c", "log_connections=off", "-c", "log_disconnections=off", "-c", "log_statement=none",
	"-c", "log_replication_commands=off", "-c", "shared_buffers=32MB",
	"-c", "synchronous_commit=off",
}

func (p *postgresServer) barrier(ctx context.Context, text string) error {
	_, err := p.query(ctx, "SELECT '"+text+"'")
	return err
}

func (p *postgresServer) query(ctx context.Context, statement string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var answer string
	err := p.admin.QueryRow(ctx, statement).Scan(&answer)
	return answer, err
}

func (p *postgresServer) reconcile(context.Context) error { return nil } // the log tells everything

func (p *postgresServer) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.admin.Close(context.Background()) // the server is gone
	return nil
}

// ErrNotPostgres is returned by Ask for another engine's server.
var ErrNotPostgres = errors.New("not a PostgreSQL server")

// Ask puts a statement to a PostgreSQL server, as its administrator and by way of its socket file, past every network. It
// returns the first column of the first row, which has to be a text.
func (s *Server) Ask(ctx context.Context, statement string) (string, error) {
	p, ok := s.engine.(*postgresServer)
	if !ok {
		return "", ErrNotPostgres
	}
	answer, err := p.query(ctx, statement)
	if err != nil {
		return "", s.because("ask", err)
	}
	return answer, nil
}

// Do is Ask for a statement without an answer.
func (s *Server) Do(ctx context.Context, statement string) error {
	p, ok := s.engine.(*postgresServer)
	if !ok {
		return ErrNotPostgres
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.admin.Exec(ctx, statement); err != nil {
		return s.because("do", err)
	}
	return nil
}
