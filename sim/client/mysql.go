package client

import (
	"context"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"net"

	"github.com/go-sql-driver/mysql"

	"drawbridge/sim/endpoint"
)

// mysqlDriver uses the driver's own connection: database/sql on top would add a pool that reconnects.
type mysqlDriver struct{ conn sqldriver.Conn }

func openMySQL(ctx context.Context, o *only, t Target) (driver, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.DBName = endpoint.User, endpoint.Password, endpoint.Schema
	cfg.Net, cfg.Addr = "tcp", t.Addr.String()
	cfg.DialFunc = func(context.Context, string, string) (net.Conn, error) { return o.take() }
	cfg.Logger = &mysql.NopLogger{}
	if t.TLS {
		cfg.TLS = t.tlsConfig()
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	conn, err := connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return mysqlDriver{conn}, nil
}

func (d mysqlDriver) query(ctx context.Context, marker string) (answer string, err error) {
	q, ok := d.conn.(sqldriver.QueryerContext)
	if !ok {
		return "", errors.New("the driver has no QueryContext")
	}
	rows, err := q.QueryContext(ctx, "SELECT '"+marker+"'", nil)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]sqldriver.Value, len(rows.Columns()))
	if err := rows.Next(row); err != nil {
		return "", err
	}
	if len(row) != 1 {
		return "", fmt.Errorf("%w: %d columns", ErrMarker, len(row))
	}
	return fmt.Sprintf("%s", row[0]), nil
}

func (d mysqlDriver) close() error { return d.conn.Close() }
