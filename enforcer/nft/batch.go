package nft

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/ruleset"
)

// maxAttribute bounds the list of elements of one message: an attribute's length is a 16-bit number, and what is
// behind the list needs some room too. A longer list goes on in a further message.
const maxAttribute = 32 << 10

// messageType is the netlink type of an nf_tables message.
func messageType(msg int) netlink.HeaderType {
	return netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | msg)
}

// appendHeader appends the header of every nfnetlink message (linux/netfilter/nfnetlink.h: struct nfgenmsg).
func appendHeader(b []byte, family uint8, resource uint16) []byte {
	return binary.BigEndian.AppendUint16(append(b, family, unix.NFNETLINK_V0), resource)
}

// nfgenmsg is a message's header alone.
func nfgenmsg(family uint8, resource uint16) []byte { return appendHeader(nil, family, resource) }

// batch collects the messages of one transaction. The first error sticks and is reported by finish.
type batch struct {
	family   ruleset.Family
	table    string
	messages []netlink.Message
	block    []byte  // where the data of messages go: one allocation for many
	message  encoder // the one being written
	set      rawSet  // the elements being written
	lastID   uint32
	owned    bool // the table is created as one that belongs to the socket
	err      error
}

func newBatch(family ruleset.Family, table string) *batch {
	b := &batch{family: family, table: table}
	if _, ok := protocolFamilies[family]; !ok {
		b.fail(fmt.Errorf("family %q", family))
	}
	return b
}

func (b *batch) fail(err error) {
	if b.err == nil && err != nil {
		b.err = fmt.Errorf("%w: %w", ErrInvalid, err)
	}
}

func (b *batch) nextID() uint32 {
	b.lastID++
	return b.lastID
}

// encode appends a message whose attributes fn writes.
func (b *batch) encode(msg int, flags netlink.HeaderFlags, fn func(*encoder)) {
	e := &b.message
	e.data, e.err = appendHeader(e.data[:0], protocolFamilies[b.family], 0), nil
	fn(e)
	b.fail(e.err)
	b.messages = append(b.messages, netlink.Message{
		Header: netlink.Header{Type: messageType(msg), Flags: netlink.Request | flags},
		Data:   b.keep(e.data),
	})
}

// Blocks begin small, for changes of one element, and double.
const (
	minBlock = 1 << 10
	maxBlock = 256 << 10
)

// keep copies data into a block.
func (b *batch) keep(data []byte) []byte {
	if len(data) > cap(b.block)-len(b.block) {
		b.block = make([]byte, 0, max(len(data), min(maxBlock, max(minBlock, 2*cap(b.block)))))
	}
	at := len(b.block)
	b.block = append(b.block, data...)
	return b.block[at:len(b.block):len(b.block)]
}

// addTable creates the table unless it is there.
func (b *batch) addTable() {
	b.encode(unix.NFT_MSG_NEWTABLE, netlink.Create, func(e *encoder) {
		e.string(unix.NFTA_TABLE_NAME, b.table)
		if b.owned {
			e.uint32(unix.NFTA_TABLE_FLAGS, tableFlagOwner|tableFlagPersist)
		}
	})
}

// deleteTable deletes the table, which must be there, with all that is in it.
func (b *batch) deleteTable() {
	b.encode(unix.NFT_MSG_DELTABLE, 0, func(e *encoder) {
		e.string(unix.NFTA_TABLE_NAME, b.table)
	})
}

// chainHooks translates hooks (linux/netfilter.h: enum nf_inet_hooks).
var chainHooks = map[ruleset.Hook]uint32{
	ruleset.HookPrerouting: unix.NF_INET_PRE_ROUTING, ruleset.HookInput: unix.NF_INET_LOCAL_IN,
	ruleset.HookForward: unix.NF_INET_FORWARD, ruleset.HookOutput: unix.NF_INET_LOCAL_OUT,
	ruleset.HookPostrouting: unix.NF_INET_POST_ROUTING,
}

// Policies of a base chain (linux/netfilter.h: NF_DROP, NF_ACCEPT).
const (
	policyDrop   = 0
	policyAccept = 1
)

// addChain creates a chain without its rules.
func (b *batch) addChain(c ruleset.Chain) {
	hook, isBase := chainHooks[c.Hook]
	if c.Hook != ruleset.HookNone && !isBase {
		b.fail(fmt.Errorf("chain %q: unknown hook %d", c.Name, c.Hook))
	}
	if c.Policy.Kind != ruleset.Drop && c.Policy.Kind != ruleset.Accept {
		b.fail(fmt.Errorf("chain %q: its policy is neither drop nor accept", c.Name))
	}
	if !isBase && c.Policy != (ruleset.Verdict{}) {
		b.fail(fmt.Errorf("chain %q: a policy without a hook", c.Name))
	}
	b.encode(unix.NFT_MSG_NEWCHAIN, netlink.Create, func(e *encoder) {
		e.string(unix.NFTA_CHAIN_TABLE, b.table)
		e.string(unix.NFTA_CHAIN_NAME, c.Name)
		if !isBase {
			return
		}
		e.nested(unix.NFTA_CHAIN_HOOK, func() {
			e.uint32(unix.NFTA_HOOK_HOOKNUM, hook)
			e.uint32(unix.NFTA_HOOK_PRIORITY, uint32(c.Priority))
		})
		e.uint32(unix.NFTA_CHAIN_POLICY, chainPolicy(c))
		e.string(unix.NFTA_CHAIN_TYPE, "filter")
	})
}

func chainPolicy(c ruleset.Chain) uint32 {
	if c.Policy.Kind == ruleset.Accept {
		return policyAccept
	}
	return policyDrop
}

func (b *batch) deleteChain(name string) {
	b.encode(unix.NFT_MSG_DELCHAIN, 0, func(e *encoder) {
		e.string(unix.NFTA_CHAIN_TABLE, b.table)
		e.string(unix.NFTA_CHAIN_NAME, name)
	})
}

// flushChain deletes all rules of a chain.
func (b *batch) flushChain(name string) {
	b.encode(unix.NFT_MSG_DELRULE, 0, func(e *encoder) {
		e.string(unix.NFTA_RULE_TABLE, b.table)
		e.string(unix.NFTA_RULE_CHAIN, name)
	})
}

// addRules appends rules to a chain, with the anonymous sets and the counters that they name.
func (b *batch) addRules(chain string, rules []ruleset.Rule) {
	for i, r := range rules {
		encoded, err := encodeRule(r, b.nextID)
		if err != nil {
			b.fail(fmt.Errorf("chain %q, rule %d (%s): %w", chain, i, r.Comment, err))
			return
		}
		b.addCounters(r)
		for _, s := range encoded.anonymous {
			b.addAnonymous(s)
		}
		b.addRule(chain, encoded.ops, r.Comment)
	}
}

func (b *batch) addRule(chain string, ops []operation, comment string) {
	b.encode(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, func(e *encoder) {
		e.string(unix.NFTA_RULE_TABLE, b.table)
		e.string(unix.NFTA_RULE_CHAIN, chain)
		e.nested(unix.NFTA_RULE_EXPRESSIONS, func() {
			for _, op := range ops {
				data, err := marshalOperation(op)
				if err != nil {
					e.fail(fmt.Errorf("chain %q: %w", chain, err))
				}
				e.bytes(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, data)
			}
		})
		if comment != "" {
			e.bytes(unix.NFTA_RULE_USERDATA, userdata.AppendString(nil, userdata.TypeComment, comment))
		}
	})
}

// addCounters creates the named counters of a rule. Those that are there keep their counts.
func (b *batch) addCounters(r ruleset.Rule) {
	for _, s := range r.Statements {
		c, ok := s.(ruleset.Counter)
		if !ok || c.Name == "" {
			continue
		}
		b.encode(unix.NFT_MSG_NEWOBJ, netlink.Create, func(e *encoder) {
			e.string(unix.NFTA_OBJ_TABLE, b.table)
			e.string(unix.NFTA_OBJ_NAME, c.Name)
			e.uint32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
			e.nested(unix.NFTA_OBJ_DATA, func() {})
		})
	}
}

// addSet creates a set with its elements.
func (b *batch) addSet(s ruleset.Set) {
	id := b.nextID()
	b.encode(unix.NFT_MSG_NEWSET, netlink.Create, func(e *encoder) {
		if err := encodeSet(e, b.table, s, id); err != nil {
			e.fail(fmt.Errorf("set %q: %w", s.Name, err))
		}
	})
	b.elements(unix.NFT_MSG_NEWSETELEM, s, s.Elements)
}

func (b *batch) deleteSet(name string) {
	b.encode(unix.NFT_MSG_DELSET, 0, func(e *encoder) {
		e.string(unix.NFTA_SET_TABLE, b.table)
		e.string(unix.NFTA_SET_NAME, name)
	})
}

// elements adds elements to a set or deletes them from it, by the message type.
func (b *batch) elements(msg int, s ruleset.Set, elements []ruleset.Element) {
	if err := b.set.put(s, elements); err != nil {
		b.fail(fmt.Errorf("set %q: %w", s.Name, err))
		return
	}
	b.rawElements(msg, s.Name, 0, b.set.elements)
}

// rawElements writes as many messages as the list takes.
func (b *batch) rawElements(msg int, set string, id uint32, raw []rawElement) {
	for len(raw) > 0 {
		b.encode(msg, netlink.Create, func(e *encoder) {
			e.string(unix.NFTA_SET_ELEM_LIST_TABLE, b.table)
			e.string(unix.NFTA_SET_ELEM_LIST_SET, set)
			if id != 0 {
				e.uint32(unix.NFTA_SET_ELEM_LIST_SET_ID, id)
			}
			e.nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() { raw = raw[e.elements(raw):] })
		})
	}
}

// elements writes the first elements of a list, as many as fit and one at least, and returns how many.
func (e *encoder) elements(raw []rawElement) (n int) {
	start := len(e.data)
	for i, r := range raw {
		at := len(e.data)
		e.nested(unix.NFTA_LIST_ELEM, func() { r.encode(e) })
		if i > 0 && len(e.data)-start > maxAttribute {
			e.data = e.data[:at]
			return i
		}
	}
	return len(raw)
}

// addAnonymous creates a constant set for the rule that follows.
func (b *batch) addAnonymous(s anonymousSet) {
	datatype := anonymousType(s.field)
	b.encode(unix.NFT_MSG_NEWSET, netlink.Create, func(e *encoder) {
		e.string(unix.NFTA_SET_TABLE, b.table)
		e.string(unix.NFTA_SET_NAME, anonymousName)
		e.uint32(unix.NFTA_SET_ID, s.id)
		e.uint32(unix.NFTA_SET_FLAGS, unix.NFT_SET_ANONYMOUS|unix.NFT_SET_CONSTANT)
		e.uint32(unix.NFTA_SET_KEY_TYPE, datatype.magic)
		e.uint32(unix.NFTA_SET_KEY_LEN, uint32(len(s.values[0])))
		e.nested(unix.NFTA_SET_DESC, func() {
			e.uint32(unix.NFTA_SET_DESC_SIZE, uint32(len(s.values)))
		})
		e.bytes(unix.NFTA_SET_USERDATA, userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, datatype.order))
	})
	raw := make([]rawElement, 0, len(s.values))
	for _, v := range s.values {
		raw = append(raw, rawElement{key: v})
	}
	b.rawElements(unix.NFT_MSG_NEWSETELEM, anonymousName, s.id, raw)
}

// finish wraps the messages in a transaction that the kernel refuses unless its generation is this one; 0: any.
func (b *batch) finish(generation uint32) ([]netlink.Message, error) {
	if b.err != nil {
		return nil, b.err
	}
	return slices.Concat([]netlink.Message{batchBegin(generation)}, b.messages, []netlink.Message{batchEnd()}), nil
}

func batchBegin(generation uint32) netlink.Message {
	e := encoder{data: nfgenmsg(unix.NFPROTO_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)}
	if generation != 0 {
		e.uint32(unix.NFNL_BATCH_GENID, generation)
	}
	return netlink.Message{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}, Data: e.data}
}

func batchEnd() netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_END, Flags: netlink.Request},
		Data:   nfgenmsg(unix.NFPROTO_UNSPEC, unix.NFNL_SUBSYS_NFTABLES),
	}
}
