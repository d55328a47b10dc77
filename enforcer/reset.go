package enforcer

import (
	"context"
	"errors"
	"fmt"

	"drawbridge/enforcer/compile"
	"drawbridge/enforcer/nft"
	"drawbridge/enforcer/reconcile"
	"drawbridge/enforcer/ruleset"
)

// managed are the families in which this enforcer has a table.
var managed = []ruleset.Family{ruleset.FamilyINET, ruleset.FamilyIP, ruleset.FamilyIP6}

// Reset takes everything out of force that Apply ever brought into force here. It is no error if that is nothing.
// Classes stay in the marks of connections: nothing reads them without the table, and a table that comes later judges
// whoever still has one by what was seen of its beginning.
func Reset(ctx context.Context) error {
	for _, family := range managed {
		if err := remove(ctx, family, compile.TableName); err != nil {
			return fmt.Errorf("table %s %s: %w", family, compile.TableName, err)
		}
	}
	if err := remove(ctx, ruleset.FamilyINET, DryRunTable); err != nil {
		return fmt.Errorf("table %s: %w", DryRunTable, err)
	}
	return nil
}

func remove(ctx context.Context, family ruleset.Family, name string) (err error) {
	kernel, err := nft.OpenFamily(family, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	return reconcile.Reconciler{Kernel: kernel}.Remove(ctx)
}
