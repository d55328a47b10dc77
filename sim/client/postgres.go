package client

import (
	"context"
	"net"
	"sync"

	"github.com/jackc/pgx/v5"

	"drawbridge/sim/endpoint"
)

// pgSettings is parsed once, as it looks at the environment and the home directory. Everything that could come from there
// is set here or by openPostgres.
var pgSettings = sync.OnceValues(func() (*pgx.ConnConfig, error) {
	return pgx.ParseConfig("host=drawbridge port=5432 sslmode=disable target_session_attrs=any connect_timeout=0" +
		" user=" + endpoint.User + " password=" + endpoint.Password + " dbname=" + endpoint.Schema)
})

type postgresDriver struct{ conn *pgx.Conn }

func openPostgres(ctx context.Context, o *only, t Target) (driver, error) {
	settings, err := pgSettings()
	if err != nil {
		return nil, err
	}
	cfg := settings.Copy()
	cfg.Host, cfg.Port, cfg.Fallbacks = t.Addr.Addr().String(), t.Addr.Port(), nil
	if t.TLS {
		cfg.TLSConfig = t.tlsConfig()
	}
	cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	cfg.DialFunc = func(context.Context, string, string) (net.Conn, error) { return o.take() }
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return postgresDriver{conn}, nil
}

func (d postgresDriver) query(ctx context.Context, marker string) (answer string, err error) {
	err = d.conn.QueryRow(ctx, "select '"+marker+"'").Scan(&answer)
	return answer, err
}

func (d postgresDriver) close() error { return d.conn.Close(context.Background()) }
