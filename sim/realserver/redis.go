package realserver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"drawbridge/sim/endpoint"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// redisAdmin is the lab's own account, which needs no password and is used by way of the socket file.
const redisAdmin = "lab"

const (
	redisSocket = "s"
	redisConfig = "redis.conf"
)

// redisSettings is the whole configuration. What was written outlives the server, and not the lab. The default user has the password, too, as an embedded server's has.
func redisSettings(cfg Config, dir string) string {
	return fmt.Sprintf(`bind 0.0.0.0 ::
protected-mode no
tls-port %d
port %d
tls-cert-file %[3]s/%[4]s
tls-key-file %[3]s/%[5]s
tls-ca-cert-file %[3]s/%[4]s
tls-auth-clients no
unixsocket %[3]s/%[6]s
dir %[3]s
save ""
appendonly yes
appendfsync no
auto-aof-rewrite-percentage 0
loglevel verbose
logfile ""
user default on >%[7]s ~* +@all
user %[8]s on >%[7]s ~* +@all -@dangerous -@admin +info
user %[9]s on nopass ~* +@all
`, cfg.Port, cfg.PlainPort, dir, certFile, keyFile, redisSocket, endpoint.Password, endpoint.User, redisAdmin)
}

// redisQuiet overrides the level that names clients. The message that the server is ready is a notice.
const redisQuiet = "loglevel notice\nappendonly no\n"

// redisServer is the engine of a running Redis.
type redisServer struct {
	cfg     Config
	ledger  *ledger
	admin   *redis.Client
	monitor net.Conn
	nudges  chan struct{} // has room for one: the list of clients has something to tell
	done    chan struct{}
}

func (i *Installation) startRedis(ctx context.Context, s *Server) error {
	dir, err := i.data(s.cfg.Name, func(dir string) error { return os.Mkdir(dir, 0o700) })
	if err != nil {
		return err
	}
	if err := writeCertificate(dir, s.cfg.Certificate); err != nil {
		return err
	}
	settings := redisSettings(s.cfg, dir)
	if s.quiet {
		settings += redisQuiet
	}
	if err := os.WriteFile(filepath.Join(dir, redisConfig), []byte(settings), 0o600); err != nil {
		return err
	}
	r := &redisServer{cfg: s.cfg, ledger: s.ledger, nudges: make(chan struct{}, 1), done: make(chan struct{})}
	s.engine = r
	ready := make(chan struct{})
	log := &redisLog{ledger: s.ledger, ready: func() { close(ready) }, nudge: r.nudge, tlsPort: s.cfg.Port}
	cmd := exec.Command(i.programs["redis-server"], filepath.Join(dir, redisConfig))
	cmd.Dir, cmd.Env = dir, environment()
	if s.process, err = launch(s.cfg.Node, cmd, log.take); err != nil {
		return err
	}
	if err := s.process.await(ctx, ready); err != nil {
		return err
	}
	s.program = "Redis " + log.version
	r.connect(filepath.Join(dir, redisSocket))
	if s.quiet {
		return nil
	}
	if err := r.watch(ctx, filepath.Join(dir, redisSocket)); err != nil {
		return err
	}
	go r.attend()
	return nil
}

func (r *redisServer) connect(socket string) {
	r.admin = redis.NewClient(&redis.Options{
		Network: "unix", Addr: socket, Username: redisAdmin, Password: redisAdmin, PoolSize: 1, MaxRetries: -1, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

// watch subscribes to every command that the server carries out. The protocol is spoken by hand: lines come unasked.
func (r *redisServer) watch(ctx context.Context, socket string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	r.monitor = c
	if _, err := fmt.Fprintf(c, "AUTH %s %s\r\nMONITOR\r\n", redisAdmin, redisAdmin); err != nil {
		return err
	}
	on, oks := make(chan struct{}), 0
	go eachLine(c, func(line string) {
		line = strings.TrimSuffix(line, "\r")
		if line == "+OK" {
			if oks++; oks == 2 {
				close(on)
			}
			return
		}
		r.ledger.arrived(line)
		takeMonitor(r.ledger, strings.TrimPrefix(line, "+"))
	})
	select {
	case <-on:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("MONITOR: %w", ctx.Err())
	}
}

func (r *redisServer) nudge() {
	select {
	case r.nudges <- struct{}{}:
	default: // a look is due already
	}
}

// attend looks at the list of clients whenever the log gives reason to.
func (r *redisServer) attend() {
	for {
		select {
		case <-r.nudges:
			_ = r.reconcile(context.Background()) // the server may be ending; whoever relies on it calls Sync
		case <-r.done:
			return
		}
	}
}

func (r *redisServer) barrier(ctx context.Context, text string) error {
	return r.admin.Echo(ctx, text).Err()
}

// reconcile compares the connections that the log named with those that the server lists: that tells by which port each
// came, and which have ended without a word in the log.
func (r *redisServer) reconcile(ctx context.Context) error {
	before := r.ledger.open() // what is opened later may be missing from the list
	list, err := r.admin.ClientList(ctx).Result()
	if err != nil {
		return err
	}
	var there []string
	for line := range strings.Lines(list) {
		c := parseRedisClient(line)
		if !c.remote.IsValid() {
			continue
		}
		there = append(there, c.remote.String())
		r.ledger.identify(c.remote.String(), c.remote, c.local, c.local.Port() == r.cfg.Port)
	}
	for _, key := range before {
		if slices.Contains(there, key) {
			continue
		}
		remote, _ := netip.ParseAddrPort(key) // the key was made from one
		r.ledger.identify(key, remote, netip.AddrPort{}, false)
		r.ledger.closed(key, "no longer in the server's list of clients")
	}
	return nil
}

func (r *redisServer) close() error {
	close(r.done)
	if r.monitor != nil {
		_ = r.monitor.Close() // the server is gone
	}
	if r.admin != nil {
		_ = r.admin.Close()
	}
	return nil
}
