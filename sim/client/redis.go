package client

import (
	"context"
	"net"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"drawbridge/sim/endpoint"
)

// quiet keeps the driver, whose logger is global, from writing to standard error what it also returns.
var quiet = sync.OnceFunc(logging.Disable)

type redisDriver struct{ client *redis.Client }

func openRedis(ctx context.Context, o *only, t Target) (driver, error) {
	if err := o.secure(ctx, t); err != nil {
		return nil, err
	}
	quiet()
	c := redis.NewClient(&redis.Options{
		Addr:     t.Addr.String(),
		Username: endpoint.User, Password: endpoint.Password,
		Dialer:   func(context.Context, string, string) (net.Conn, error) { return o.take() },
		PoolSize: 1, MaxRetries: -1, DialerRetries: 1,
		ReadTimeout: -1, WriteTimeout: -1, ContextTimeoutEnabled: true, // the context alone decides
		// Notifications of maintenance would cost a round trip, and mean nothing here.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	if err := c.Ping(ctx).Err(); err != nil { // the driver connects with the first command
		_ = c.Close()
		return nil, err
	}
	return redisDriver{c}, nil
}

func (d redisDriver) query(ctx context.Context, marker string) (string, error) {
	return d.client.Echo(ctx, marker).Result()
}

func (d redisDriver) close() error { return d.client.Close() }

// redisDenied recognises the answer of a server that does not take plaintext.
func redisDenied(err error) bool { return strings.Contains(err.Error(), "DENIED plaintext") }
