package enforcer

import (
	"context"
	"errors"
	"sync"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/denied"
	"drawbridge/enforcer/nft"
)

// Denials listens to what the table tells of packets that it denies, and remembers the latest of each database.
type Denials struct {
	listener  *denied.Listener
	kernel    *nft.Conn
	inventory compile.Inventory
	read      uint32 // the generation of inventory; 0: none yet

	mu     sync.Mutex // guards memory
	memory denied.Memory
}

// Denial is one packet that was denied.
type Denial struct {
	Database string `json:"database"`
	denied.Event
}

// ListenDenied listens in the network namespace of the calling thread, wherever it is used then. There is one listener in each: denied.ErrTaken. It needs
// CAP_NET_ADMIN. The caller closes it.
func ListenDenied(ctx context.Context) (*Denials, error) {
	kernel, err := nft.Open(compile.TableName)
	if err != nil {
		return nil, err
	}
	_, err = kernel.Generation(ctx) // needs CAP_NET_ADMIN as well
	var listener *denied.Listener
	if err == nil {
		listener, err = denied.Listen(ctx, compile.DeniedGroup)
	}
	if err != nil {
		return nil, errors.Join(err, kernel.Close())
	}
	return &Denials{listener: listener, kernel: kernel}, nil
}

// Close stops listening. Nothing else may be under way.
func (d *Denials) Close() error { return errors.Join(d.listener.Close(), d.kernel.Close()) }

// Next waits for packets that were denied, and remembers them. Use it from one goroutine at a time. It ends with the context.
func (d *Denials) Next(ctx context.Context) ([]Denial, error) {
	events, err := d.listener.Next(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Denial, 0, len(events))
	for _, e := range events {
		database, err := d.database(ctx, e)
		if err != nil {
			return out, err
		}
		out = append(out, Denial{database, e})
		d.mu.Lock()
		d.memory.Add(database, e)
		d.mu.Unlock()
	}
	return out, nil
}

// database names the database that a packet was for; where the table knows none, the address. The table is read again for a port
// that is not known, if the ruleset has changed since.
func (d *Denials) database(ctx context.Context, e denied.Event) (string, error) {
	if name := d.inventory.Database(e.To); name != "" {
		return name, nil
	}
	generation, err := d.kernel.Generation(ctx)
	if err != nil {
		return "", err
	}
	if generation != d.read {
		state, err := d.kernel.Read(ctx)
		if err != nil {
			return "", err
		}
		d.inventory, d.read = compile.InventoryOf(state.Table), state.Generation
	}
	if name := d.inventory.Database(e.To); name != "" {
		return name, nil
	}
	return e.To.Addr().String(), nil
}

// Recent lists the sources that were denied lately, by database, latest first. It may be called from any goroutine.
func (d *Denials) Recent() []denied.Sighting {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.memory.Recent()
}

// Sources counts what Recent lists. It may be called from any goroutine.
func (d *Denials) Sources() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.memory.Len()
}
