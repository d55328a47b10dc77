package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/address"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
	mongodriver "go.mongodb.org/mongo-driver/v2/x/mongo/driver"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/description"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/mnet"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/xoptions"
)

// maxMongoReply bounds an answer; a hello of a large replica set stays below.
const maxMongoReply = 1 << 20

// mongoDriver is the driver's public client on a deployment that consists of one connection. The driver's own deployments
// always open another connection to watch the server, which no option turns off; a deployment of one connection is what
// the driver itself uses for handshakes.
type mongoDriver struct {
	client *mongo.Client
	conn   *mongoConn
}

func openMongo(ctx context.Context, o *only, t Target) (driver, error) {
	if err := o.secure(ctx, t); err != nil {
		return nil, err
	}
	conn := &mongoConn{conn: o.Conn, server: description.Server{Addr: address.Address(t.Addr.String())}}
	deployment := mongodriver.SingleConnectionDeployment{C: mnet.NewConnection(conn)}
	if err := conn.handshake(ctx, deployment); err != nil {
		return nil, err
	}
	opts := options.Client().SetRetryReads(false).SetRetryWrites(false)
	if err := xoptions.SetInternalClientOptions(opts, "deployment", deployment); err != nil {
		return nil, err
	}
	client, err := mongo.Connect(opts)
	if err != nil {
		return nil, err
	}
	return mongoDriver{client, conn}, nil
}

// query asks for a document of literals. A ping would do to show that the database answers, but no real server's answer
// to it contains the comment.
func (d mongoDriver) query(ctx context.Context, marker string) (string, error) {
	command := bson.D{
		{Key: "aggregate", Value: 1},
		{Key: "pipeline", Value: bson.A{bson.D{{Key: "$documents", Value: bson.A{bson.D{{Key: "marker", Value: marker}}}}}}},
		{Key: "cursor", Value: bson.D{}},
		{Key: "comment", Value: marker},
	}
	raw, err := d.client.Database("admin").RunCommand(ctx, command).Raw()
	if err != nil {
		return "", err
	}
	value, err := raw.LookupErr("cursor", "firstBatch", "0", "marker")
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrMarker, err)
	}
	answer, _ := value.StringValueOK()
	return answer, nil
}

func (d mongoDriver) close() error { return d.conn.conn.Close() }

// mongoConn is the transport under the driver: whole messages, each beginning with its length.
type mongoConn struct {
	conn   net.Conn
	server description.Server
}

// handshake sends the driver's customary first message, isMaster in OP_QUERY.
func (c *mongoConn) handshake(ctx context.Context, deployment mongodriver.Deployment) error {
	hello := mongodriver.Operation{
		CommandFn: func(dst []byte, _ description.SelectedServer) ([]byte, error) {
			dst = bsoncore.AppendInt32Element(dst, "isMaster", 1)
			return bsoncore.AppendBooleanElement(dst, "helloOk", true), nil
		},
		Name: "isMaster", Database: "admin", Deployment: deployment, Legacy: mongodriver.LegacyHandshake,
		ProcessResponseFn: func(_ context.Context, reply bsoncore.Document, _ mongodriver.ResponseInfo) error {
			return c.describe(reply)
		},
	}
	return hello.Execute(ctx)
}

// describe takes from the server's hello what the driver needs to talk to it.
func (c *mongoConn) describe(hello bsoncore.Document) error {
	highest, ok := hello.Lookup("maxWireVersion").AsInt32OK()
	if !ok || highest == 0 {
		return errors.New("the server's hello names no wire version")
	}
	lowest, _ := hello.Lookup("minWireVersion").AsInt32OK()
	c.server.WireVersion = &description.VersionRange{Min: lowest, Max: highest}
	c.server.Kind = description.ServerKindStandalone
	return nil
}

// Read returns one message.
func (c *mongoConn) Read(ctx context.Context) ([]byte, error) {
	defer c.bound(ctx)()
	var length [4]byte
	if _, err := io.ReadFull(c.conn, length[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(length[:])
	if n < 16 || n > maxMongoReply {
		return nil, fmt.Errorf("a message of %d bytes", n)
	}
	message := make([]byte, n)
	copy(message, length[:])
	_, err := io.ReadFull(c.conn, message[4:])
	return message, err
}

// Write sends one message.
func (c *mongoConn) Write(ctx context.Context, message []byte) error {
	defer c.bound(ctx)()
	_, err := c.conn.Write(message)
	return err
}

// bound ends reads and writes with the context, until the function that it returns is called.
func (c *mongoConn) bound(ctx context.Context) (release func()) {
	deadline, _ := ctx.Deadline()
	_ = c.conn.SetDeadline(deadline) // a closed connection will say so itself
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(past) })
	return func() { stop() }
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// Close does nothing: the driver means to give the connection back to a pool after every operation.
func (c *mongoConn) Close() error { return nil }

// Description returns what the server said of itself.
func (c *mongoConn) Description() description.Server { return c.server }

// ID names the connection.
func (c *mongoConn) ID() string { return c.server.Addr.String() }

// Address returns the server's address.
func (c *mongoConn) Address() address.Address { return c.server.Addr }

// ServerConnectionID is not asked for.
func (c *mongoConn) ServerConnectionID() *int64 { return nil }

// DriverConnectionID is the number of the only connection.
func (c *mongoConn) DriverConnectionID() int64 { return 1 }

// Stale is never true: there is no newer connection.
func (c *mongoConn) Stale() bool { return false }

// OIDCTokenGenID belongs to an authentication that is not used.
func (c *mongoConn) OIDCTokenGenID() uint64 { return 0 }

// SetOIDCTokenGenID belongs to an authentication that is not used.
func (c *mongoConn) SetOIDCTokenGenID(uint64) {}
