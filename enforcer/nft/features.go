package nft

import (
	"context"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/nlsocket"
	"drawbridge/enforcer/ruleset"
)

// Feature is something that not every kernel's nf_tables can do.
type Feature string

// The features that a ruleset of this enforcer may need, with the kernel that brought them.
const (
	InnerPayload       Feature = "inner payload match (@ih, kernel 6.2)"
	ConntrackID        Feature = "ct id (kernel 5.2)"
	DynamicDelete      Feature = "delete from a set in a rule (kernel 5.4)"
	RejectInPrerouting Feature = "reject in prerouting (kernel 5.9)"
	ResetOption        Feature = "reset tcp option (kernel 5.18)"
	LogGroup           Feature = "log to an nflog group (CONFIG_NETFILTER_NETLINK_LOG)"
	OwnedTable         Feature = "owned, persistent tables (kernel 6.9)"
)

// probes are one rule for each feature that shows in a rule.
var probes = []struct {
	feature   Feature
	statement ruleset.Statement
}{
	{InnerPayload, ruleset.Match{Field: ruleset.InnerField(0, 1), Op: ruleset.Eq, Value: []byte{0x16}}},
	{ConntrackID, ruleset.InSet{Key: []ruleset.Field{ruleset.F(ruleset.CTID)}, Set: probeSet}},
	{DynamicDelete, ruleset.Dynset{Op: ruleset.DeleteElement, Key: []ruleset.Field{ruleset.F(ruleset.CTMark)}, Set: probeSet}},
	{RejectInPrerouting, ruleset.Reject{}},
	{LogGroup, ruleset.Log{Group: probeGroup, Prefix: probeTable}},
	{ResetOption, ruleset.ResetTCPOption{Kind: tcpOptionMPTCP}},
}

// Names inside of the transaction that never happens.
const (
	probeTable = "drawbridge_probe"
	probeOwned = "drawbridge_probe_owned"
	probeChain = "prerouting"
	probeSet   = "dynamic"
	probeGroup = 1
)

// Missing asks the kernel which features it lacks. It sends a transaction without an end, which the kernel checks and
// then drops: nothing of it ever comes into force, and the generation stays.
func (c *Conn) Missing(ctx context.Context) ([]Feature, error) {
	messages, features, err := c.encodeProbes()
	if err != nil {
		return nil, err
	}
	sent, refused, err := c.probe(ctx, messages)
	if err != nil {
		return nil, err
	}
	var missing []Feature
	for i := range sent {
		cause, ok := refused[i]
		if !ok {
			continue
		}
		feature, probed := features[i]
		if !probed {
			return nil, fmt.Errorf("probe the kernel: %s: %w", describe(sent[i]), cause)
		}
		missing = append(missing, feature)
	}
	return missing, nil
}

// probe sends a transaction without an end, and returns what of it the kernel refuses, by its place among what was sent.
func (c *Conn) probe(ctx context.Context, messages []netlink.Message) (sent []netlink.Message, refused map[int]*nlsocket.Error, err error) {
	if sent, err = c.socket.Send(messages...); err == nil {
		refused, err = c.refusals(ctx, sent)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("probe the kernel: %w", err)
	}
	return sent, refused, nil
}

// encodeProbes writes the transaction, and which of its messages stands for which feature.
func (c *Conn) encodeProbes() ([]netlink.Message, map[int]Feature, error) {
	b := newBatch(ruleset.FamilyINET, probeTable)
	b.addTable()
	b.addChain(ruleset.Chain{Name: probeChain, Hook: ruleset.HookPrerouting, Policy: ruleset.Verdict{Kind: ruleset.Accept}})
	b.addSet(ruleset.Set{Name: probeSet, Key: []ruleset.DataType{ruleset.TypeMark}, Dynamic: true, Size: 1})
	features := map[int]Feature{}
	for _, p := range probes {
		b.addRules(probeChain, []ruleset.Rule{{Statements: []ruleset.Statement{p.statement}}})
		features[len(b.messages)] = p.feature
	}
	b.addOwnedTable(probeOwned)
	features[len(b.messages)] = OwnedTable
	messages, err := b.finish(0)
	if err != nil {
		return nil, nil, err
	}
	return messages[:len(messages)-1], features, nil
}

// addOwnedTable creates a table that belongs to the socket and outlives it.
func (b *batch) addOwnedTable(name string) {
	b.encode(unix.NFT_MSG_NEWTABLE, netlink.Create, func(e *encoder) {
		e.string(unix.NFTA_TABLE_NAME, name)
		e.uint32(unix.NFTA_TABLE_FLAGS, tableFlagOwner|tableFlagPersist)
	})
}
