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

// withTable opens a connection for one table, and closes it.
func withTable(family ruleset.Family, do func(*nft.Conn) error) (err error) {
	kernel, err := nft.OpenFamily(family, compile.TableName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	return do(kernel)
}

// applyEndings brings the ending tables into force (compile.Mark.Endings). They admit nothing, so that a kernel that
// cannot have them is worth a warning and no error.
func applyEndings(ctx context.Context, mark compile.Mark) (warnings []string, err error) {
	for _, want := range mark.Endings() {
		err := withTable(want.Family, func(kernel *nft.Conn) error {
			_, err := reconcile.Reconciler{Kernel: kernel}.Apply(ctx, want)
			return err
		})
		switch {
		case errors.Is(err, nft.ErrRejected):
			warnings = append(warnings, fmt.Sprintf("the servers' halves of refused connections stay open until the servers' own time-outs: "+
				"this kernel refuses the table %s %s (CONFIG_NFT_DUP_IPV4, CONFIG_NFT_DUP_IPV6): %v", want.Family, want.Name, err))
		case err != nil:
			return warnings, fmt.Errorf("table %s %s: %w", want.Family, want.Name, err)
		}
	}
	return warnings, nil
}

// managed are the families in which this enforcer has a table.
var managed = []ruleset.Family{ruleset.FamilyINET, ruleset.FamilyIP, ruleset.FamilyIP6}

// Reset takes everything out of force that Apply ever brought into force here. It is no error if that is nothing.
// Classes stay in the marks of connections: nothing reads them without the table, and a table that comes later judges
// whoever still has one by what was seen of its beginning.
func Reset(ctx context.Context) error {
	for _, family := range managed {
		err := withTable(family, func(kernel *nft.Conn) error { return reconcile.Reconciler{Kernel: kernel}.Remove(ctx) })
		if err != nil {
			return fmt.Errorf("table %s %s: %w", family, compile.TableName, err)
		}
	}
	return nil
}
