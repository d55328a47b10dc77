package nft

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/ruleset"
)

// What golang.org/x/sys does not name (linux/netfilter/nf_tables.h).
const (
	setFlagConcat       = 0x80 // NFT_SET_CONCAT
	setDescConcat       = 2    // NFTA_SET_DESC_CONCAT
	setFieldLen         = 1    // NFTA_SET_FIELD_LEN
	setAttrExpr         = 17   // NFTA_SET_EXPR
	setAttrExprs        = 18   // NFTA_SET_EXPRESSIONS
	elemAttrKeyEnd      = 10   // NFTA_SET_ELEM_KEY_END
	elemAttrExpressions = 11   // NFTA_SET_ELEM_EXPRESSIONS
	keyByteOrderHost    = 1    // libnftnl: enum nftnl_udata_set_types, values of nft's enum byteorder
	keyByteOrderBig     = 2
	timeoutUnit         = time.Millisecond
	maxConcatenatedKey  = registerCount * registerBytes
)

// dataTypes are nft's types of the parts of a key.
var dataTypes = map[ruleset.DataType]nftables.SetDatatype{
	ruleset.TypeIPv4Addr:    nftables.TypeIPAddr,
	ruleset.TypeIPv6Addr:    nftables.TypeIP6Addr,
	ruleset.TypeInetService: nftables.TypeInetService,
	ruleset.TypeIfname:      nftables.TypeIFName,
	ruleset.TypeMark:        nftables.TypeMark,
}

// keyParts are nft's types of a whole key.
func keyParts(types []ruleset.DataType) ([]nftables.SetDatatype, error) {
	if len(types) == 0 {
		return nil, fmt.Errorf("no key type")
	}
	parts := make([]nftables.SetDatatype, 0, len(types))
	for _, t := range types {
		part, ok := dataTypes[t]
		if !ok {
			return nil, fmt.Errorf("unknown data type %d", t)
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// checkSet refuses combinations that the kernel would refuse or round.
func checkSet(s ruleset.Set) error {
	switch {
	case s.Interval && len(s.Key) != 1:
		return fmt.Errorf("an interval set has a key of one part")
	case s.Interval && s.Dynamic:
		return fmt.Errorf("a dynamic set has no intervals")
	case s.Data != ruleset.TypeInvalid && (!s.Dynamic || s.Verdicts):
		return fmt.Errorf("only a dynamic map that is no verdict map holds values")
	case s.Dynamic && s.Size == 0:
		return fmt.Errorf("a dynamic set needs a size")
	case s.Dynamic && len(s.Elements) > 0:
		return fmt.Errorf("a dynamic set is filled by rules, not by elements")
	}
	return wholeSeconds(s.Timeout)
}

func setFlags(s ruleset.Set) uint32 {
	var flags uint32
	for flag, on := range map[uint32]bool{
		unix.NFT_SET_INTERVAL: s.Interval,
		unix.NFT_SET_MAP:      s.Verdicts || s.Data != ruleset.TypeInvalid,
		unix.NFT_SET_TIMEOUT:  s.HasTimeout || s.Timeout != 0,
		unix.NFT_SET_EVAL:     s.Dynamic,
		setFlagConcat:         len(s.Key) > 1,
	} {
		if on {
			flags |= flag
		}
	}
	return flags
}

// encodeSet writes the attributes of NFT_MSG_NEWSET.
func encodeSet(e *encoder, table string, s ruleset.Set, id uint32) error {
	if err := checkSet(s); err != nil {
		return err
	}
	parts, err := keyParts(s.Key)
	if err != nil {
		return err
	}
	key, err := nftables.ConcatSetType(parts...)
	if err != nil {
		return err
	}
	e.string(unix.NFTA_SET_TABLE, table)
	e.string(unix.NFTA_SET_NAME, s.Name)
	e.uint32(unix.NFTA_SET_ID, id)
	e.uint32(unix.NFTA_SET_FLAGS, setFlags(s))
	e.uint32(unix.NFTA_SET_KEY_TYPE, key.GetNFTMagic())
	e.uint32(unix.NFTA_SET_KEY_LEN, keyLen(parts))
	if s.Verdicts {
		e.uint32(unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT)
		e.uint32(unix.NFTA_SET_DATA_LEN, 0)
	}
	if s.Data != ruleset.TypeInvalid {
		value, ok := dataTypes[s.Data]
		if !ok {
			return fmt.Errorf("unknown data type %d", s.Data)
		}
		e.uint32(unix.NFTA_SET_DATA_TYPE, value.GetNFTMagic())
		e.uint32(unix.NFTA_SET_DATA_LEN, value.Bytes)
	}
	if s.Timeout != 0 {
		e.uint64(unix.NFTA_SET_TIMEOUT, uint64(s.Timeout/timeoutUnit))
	}
	encodeDescription(e, s.Size, parts)
	e.bytes(unix.NFTA_SET_USERDATA, userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, keyByteOrder(s.Key)))
	if s.Counter {
		e.nested(setAttrExpr, func() {
			e.string(unix.NFTA_EXPR_NAME, "counter")
			e.nested(unix.NFTA_EXPR_DATA, func() {})
		})
	}
	return nil
}

// keyLen is the length of a key in bytes; in a concatenation every part is padded to whole registers.
func keyLen(parts []nftables.SetDatatype) uint32 {
	if len(parts) == 1 {
		return parts[0].Bytes
	}
	var sum uint32
	for _, p := range parts {
		sum += uint32(registersFor(int(p.Bytes)) * registerBytes)
	}
	return sum
}

// keyByteOrder tells nft(8) how to print a key of one part.
func keyByteOrder(key []ruleset.DataType) uint32 {
	if len(key) == 1 && (key[0] == ruleset.TypeMark || key[0] == ruleset.TypeIfname) {
		return keyByteOrderHost
	}
	return keyByteOrderBig
}

// encodeDescription tells the kernel a set's size and the parts of its key.
func encodeDescription(e *encoder, size uint32, parts []nftables.SetDatatype) {
	if size == 0 && len(parts) == 1 {
		return
	}
	e.nested(unix.NFTA_SET_DESC, func() {
		if size != 0 {
			e.uint32(unix.NFTA_SET_DESC_SIZE, size)
		}
		if len(parts) > 1 {
			e.nested(setDescConcat, func() {
				for _, p := range parts {
					e.nested(unix.NFTA_LIST_ELEM, func() {
						e.uint32(setFieldLen, p.Bytes)
					})
				}
			})
		}
	})
}

// readSet is a set as a dump shows it, without its elements.
type readSet struct {
	set       ruleset.Set
	anonymous bool
	values    [][]byte // of an anonymous set, once they are read
	keyLen    uint32
	keyType   uint32
	dataType  uint32
	flags     uint32
}

// unmarshalSet reads the attributes of one set. Of an anonymous set only the name matters: it cannot be changed apart
// from its rule.
func unmarshalSet(b []byte) (readSet, error) {
	ad, err := newDecoder(b)
	if err != nil {
		return readSet{}, err
	}
	var r readSet
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_SET_NAME:
			r.set.Name = ad.String()
		case unix.NFTA_SET_FLAGS:
			r.flags = ad.Uint32()
		case unix.NFTA_SET_KEY_TYPE:
			r.keyType = ad.Uint32()
		case unix.NFTA_SET_KEY_LEN:
			r.keyLen = ad.Uint32()
		case unix.NFTA_SET_DATA_TYPE:
			r.dataType = ad.Uint32()
		case unix.NFTA_SET_TIMEOUT:
			r.set.Timeout = time.Duration(ad.Uint64()) * timeoutUnit
		case unix.NFTA_SET_DESC:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				r.set.Size = decodeSize(ad)
				return nil
			})
		case setAttrExpr:
			op, err := unmarshalOperation(ad.Bytes())
			if _, ok := op.(*expr.Counter); err != nil || !ok {
				return readSet{}, foreign("set %q gives its elements an expression that is no counter", r.set.Name)
			}
			r.set.Counter = true
		case setAttrExprs:
			return readSet{}, foreign("set %q gives its elements several expressions", r.set.Name)
		}
	}
	if err := decodeError(ad); err != nil {
		return readSet{}, err
	}
	r.anonymous = r.flags&unix.NFT_SET_ANONYMOUS != 0
	if r.anonymous {
		return r, nil
	}
	return r, r.finish()
}

func decodeSize(ad *netlink.AttributeDecoder) (size uint32) {
	for ad.Next() {
		if ad.Type() == unix.NFTA_SET_DESC_SIZE {
			size = ad.Uint32()
		}
	}
	return size
}

// finish checks flags and types of a named set and translates them.
func (r *readSet) finish() error {
	const known = unix.NFT_SET_INTERVAL | unix.NFT_SET_MAP | unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL | setFlagConcat
	if r.flags&^known != 0 {
		return foreign("set %q has flags %#x", r.set.Name, r.flags)
	}
	s := &r.set
	s.Interval = r.flags&unix.NFT_SET_INTERVAL != 0
	isMap := r.flags&unix.NFT_SET_MAP != 0
	s.Verdicts = isMap && r.dataType == unix.NFT_DATA_VERDICT
	s.Dynamic = r.flags&unix.NFT_SET_EVAL != 0
	s.HasTimeout = r.flags&unix.NFT_SET_TIMEOUT != 0 && s.Timeout == 0
	if isMap && !s.Verdicts {
		kind, _, ok := dataTypeOf(r.dataType)
		if !ok || !s.Dynamic {
			return foreign("map %q holds data", s.Name)
		}
		s.Data = kind
	}
	var parts []nftables.SetDatatype
	for magic := r.keyType; magic != 0; magic >>= nftables.SetConcatTypeBits {
		kind, part, ok := dataTypeOf(magic & nftables.SetConcatTypeMask)
		if !ok {
			return foreign("set %q has a key of type %#x", s.Name, r.keyType)
		}
		s.Key, parts = append(s.Key, kind), append(parts, part)
	}
	slices.Reverse(s.Key)
	if len(s.Key) == 0 || keyLen(parts) != r.keyLen || r.keyLen > maxConcatenatedKey {
		return foreign("set %q has a key of %d bytes", s.Name, r.keyLen)
	}
	return nil
}

// dataTypeOf is the type behind a number of nft(8). Only nft reads it, and where it has loaded a table itself, a sequence number or a
// ct id is an integer to it: with the length of a mark, which is checked against that of the whole key, it is the same.
func dataTypeOf(magic uint32) (ruleset.DataType, nftables.SetDatatype, bool) {
	if magic == nftables.TypeInteger.GetNFTMagic() {
		return ruleset.TypeMark, nftables.TypeMark, true
	}
	for kind, t := range dataTypes {
		if t.GetNFTMagic() == magic {
			return kind, t, true
		}
	}
	return ruleset.TypeInvalid, nftables.SetDatatype{}, false
}

// keyShape is how the parts of a key stand in the kernel: in a concatenation, each is padded to whole registers.
type keyShape struct {
	parts  []nftables.SetDatatype
	length int // of all parts
	padded int
}

func shapeOf(types []ruleset.DataType) (k keyShape, err error) {
	if k.parts, err = keyParts(types); err != nil {
		return k, err
	}
	for _, p := range k.parts {
		k.length += int(p.Bytes)
	}
	k.padded = int(keyLen(k.parts))
	return k, nil
}

// pad appends a key with its padding.
func (k keyShape) pad(out []byte, key ruleset.Key) ([]byte, error) {
	if len(key) != k.length {
		return nil, fmt.Errorf("key of %d bytes where the set has %d", len(key), k.length)
	}
	if len(k.parts) == 1 {
		return append(out, key...), nil
	}
	for _, p := range k.parts {
		out = append(out, key[:p.Bytes]...)
		out = append(out, zeroes[:registersFor(int(p.Bytes))*registerBytes-int(p.Bytes)]...)
		key = key[p.Bytes:]
	}
	return out, nil
}

// zeroes are as many as padding takes.
var zeroes [registerBytes]byte

// unpad is the inverse of pad.
func (k keyShape) unpad(out, padded []byte) ([]byte, error) {
	if len(padded) != k.padded {
		return nil, foreign("key of %d bytes", len(padded))
	}
	if len(k.parts) == 1 {
		return append(out, padded...), nil
	}
	for _, p := range k.parts {
		width := registersFor(int(p.Bytes)) * registerBytes
		if !isZero(padded[p.Bytes:width]) {
			return nil, foreign("key with padding that is not 0")
		}
		out = append(out, padded[:p.Bytes]...)
		padded = padded[width:]
	}
	return out, nil
}

// increment makes a key the one after it; ok is false after the last.
func increment(key []byte) (ok bool) {
	for i := len(key) - 1; i >= 0; i-- {
		key[i]++
		if key[i] != 0 {
			return true
		}
	}
	return false
}

// decrement makes a key the one before it, which is not the first.
func decrement(key []byte) {
	for i := len(key) - 1; i >= 0; i-- {
		key[i]--
		if key[i] != 0xff {
			return
		}
	}
}

// printedType tells nft(8) how to print the values of an anonymous set.
type printedType struct{ magic, order uint32 }

// anonymousType is the type that nft(8) gives to an anonymous set over this field.
func anonymousType(f ruleset.Field) printedType {
	types := map[ruleset.FieldKind]struct {
		datatype nftables.SetDatatype
		order    uint32
	}{
		ruleset.MetaNFProto: {nftables.TypeNFProto, keyByteOrderHost},
		ruleset.MetaL4Proto: {nftables.TypeInetProto, keyByteOrderHost},
		ruleset.MetaIIF:     {nftables.TypeIFIndex, keyByteOrderHost},
		ruleset.MetaOIF:     {nftables.TypeIFIndex, keyByteOrderHost},
		ruleset.MetaIIFName: {nftables.TypeIFName, keyByteOrderHost},
		ruleset.MetaOIFName: {nftables.TypeIFName, keyByteOrderHost},
		ruleset.IPSaddr:     {nftables.TypeIPAddr, keyByteOrderBig},
		ruleset.IPDaddr:     {nftables.TypeIPAddr, keyByteOrderBig},
		ruleset.IP6Saddr:    {nftables.TypeIP6Addr, keyByteOrderBig},
		ruleset.IP6Daddr:    {nftables.TypeIP6Addr, keyByteOrderBig},
		ruleset.THSport:     {nftables.TypeInetService, keyByteOrderBig},
		ruleset.THDport:     {nftables.TypeInetService, keyByteOrderBig},
		ruleset.TCPFlags:    {nftables.TypeTCPFlag, keyByteOrderBig},
		ruleset.CTState:     {nftables.TypeCTState, keyByteOrderHost},
		ruleset.CTDirection: {nftables.TypeCTDir, keyByteOrderHost},
		ruleset.CTStatus:    {nftables.TypeCTStatus, keyByteOrderHost},
		ruleset.CTMark:      {nftables.TypeMark, keyByteOrderHost},
		ruleset.ICMPType:    {nftables.TypeICMPType, keyByteOrderBig},
		ruleset.ICMPv6Type:  {nftables.TypeICMP6Type, keyByteOrderBig},
	}
	if t, ok := types[f.Kind]; ok {
		return printedType{magic: t.datatype.GetNFTMagic(), order: t.order}
	}
	return printedType{magic: nftables.TypeInteger.GetNFTMagic(), order: keyByteOrderBig}
}
