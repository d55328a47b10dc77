package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"go.mongodb.org/mongo-driver/v2/mongo"
	mongodriver "go.mongodb.org/mongo-driver/v2/x/mongo/driver"
)

// Errors by which databases say that they want TLS.
const (
	pgInvalidAuthorization       = "28000" // SQLSTATE; pg_hba.conf has no entry
	mysqlSecureTransportRequired = 3159    // ER_SECURE_TRANSPORT_REQUIRED
	mongoSSLHandshakeFailed      = 141     // SSLHandshakeFailed
)

// conclude adds to a driver's error what the database's own words allow to conclude, and the context's end if that was it.
func conclude(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case refusedPlaintext(err):
		return fmt.Errorf("%w: %w", ErrRefusedByDatabase, err)
	case noTLS(err):
		return fmt.Errorf("%w: %w", ErrTLSNotOffered, err)
	case cause != nil && !errors.Is(err, cause):
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

func noTLS(err error) bool {
	var header tls.RecordHeaderError // the answer to a ClientHello was not TLS
	return errors.As(err, &header) || errors.Is(err, mysql.ErrNoTLS) || strings.Contains(err.Error(), pgRefusedTLS)
}

// pgRefusedTLS is how pgconn puts the answer N to its SSLRequest, for which it has no type.
const pgRefusedTLS = "server refused TLS connection"

func refusedPlaintext(err error) bool {
	var pg *pgconn.PgError
	var my *mysql.MySQLError
	var handshake mongodriver.Error
	var command mongo.CommandError
	var status *statusError
	switch {
	case errors.As(err, &pg):
		return pg.Code == pgInvalidAuthorization && strings.Contains(pg.Message, "no encryption")
	case errors.As(err, &my):
		return my.Number == mysqlSecureTransportRequired
	case errors.As(err, &handshake):
		return handshake.Code == mongoSSLHandshakeFailed
	case errors.As(err, &command):
		return command.Code == mongoSSLHandshakeFailed
	case errors.As(err, &status):
		return status.code == http.StatusUpgradeRequired || status.code == http.StatusBadRequest && strings.Contains(status.body, "HTTPS")
	}
	return redisDenied(err)
}
