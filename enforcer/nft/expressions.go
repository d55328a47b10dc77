package nft

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"drawbridge/enforcer/ruleset"
)

// familyINET is what the library is told of every expression: none of those here depends on it.
const familyINET = unix.NFPROTO_INET

// protocolFamilies translates families (include/uapi/linux/netfilter.h).
var protocolFamilies = map[ruleset.Family]uint8{
	ruleset.FamilyINET: unix.NFPROTO_INET, ruleset.FamilyIP: unix.NFPROTO_IPV4, ruleset.FamilyIP6: unix.NFPROTO_IPV6,
}

// newDecoder is an attribute decoder in the byte order of nf_tables.
func newDecoder(b []byte) (*netlink.AttributeDecoder, error) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return nil, foreign("malformed attributes: %v", err)
	}
	ad.ByteOrder = binary.BigEndian
	return ad, nil
}

// marshalOperation writes one expression as the content of a list element: its name and its data.
func marshalOperation(op operation) ([]byte, error) {
	switch op := op.(type) {
	case expr.Any:
		return expr.Marshal(familyINET, op)
	case resetTCPOption:
		return marshalReset(op)
	}
	return nil, fmt.Errorf("cannot marshal %T", op)
}

// exthdrOpTCPOption is NFT_EXTHDR_OP_TCPOPT.
const exthdrOpTCPOption = uint32(expr.ExthdrOpTcpopt)

// marshalReset writes the kind and nothing else: any further attribute is refused (nft_exthdr_tcp_strip_init).
func marshalReset(op resetTCPOption) ([]byte, error) {
	var e encoder
	e.string(unix.NFTA_EXPR_NAME, "exthdr")
	e.nested(unix.NFTA_EXPR_DATA, func() {
		e.uint8(unix.NFTA_EXTHDR_TYPE, op.kind)
		e.uint32(unix.NFTA_EXTHDR_OP, exthdrOpTCPOption)
	})
	return e.data, e.err
}

// unmarshalOperations reads a list of expressions, as a rule holds it.
func unmarshalOperations(b []byte) ([]operation, error) {
	ad, err := newDecoder(b)
	if err != nil {
		return nil, err
	}
	var ops []operation
	for ad.Next() {
		if ad.Type() != unix.NFTA_LIST_ELEM {
			return nil, foreign("attribute %d in a list of expressions", ad.Type())
		}
		op, err := unmarshalOperation(ad.Bytes())
		if err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	return ops, decodeError(ad)
}

// decodeError is the decoder's own error as one of this package.
func decodeError(ad *netlink.AttributeDecoder) error {
	if err := ad.Err(); err != nil {
		return foreign("malformed attributes: %v", err)
	}
	return nil
}

func unmarshalOperation(b []byte) (operation, error) {
	ad, err := newDecoder(b)
	if err != nil {
		return nil, err
	}
	var name string
	var data []byte
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_EXPR_NAME:
			name = ad.String()
		case unix.NFTA_EXPR_DATA:
			data = ad.Bytes()
		}
	}
	if err := decodeError(ad); err != nil {
		return nil, err
	}
	if name == "exthdr" {
		if op, ok := unmarshalReset(data); ok {
			return op, nil
		}
	}
	return unmarshalExpr(name, data)
}

// unmarshalReset recognises "reset tcp option": an operation on TCP options with no register.
func unmarshalReset(data []byte) (resetTCPOption, bool) {
	ad, err := newDecoder(data)
	if err != nil {
		return resetTCPOption{}, false
	}
	var op resetTCPOption
	tcp := false
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_EXTHDR_SREG, unix.NFTA_EXTHDR_DREG:
			return resetTCPOption{}, false
		case unix.NFTA_EXTHDR_TYPE:
			op.kind = ad.Uint8()
		case unix.NFTA_EXTHDR_OP:
			tcp = ad.Uint32() == exthdrOpTCPOption
		}
	}
	return op, tcp && ad.Err() == nil
}

// emptyExpr makes the expressions that rules here consist of.
var emptyExpr = map[string]func() expr.Any{
	"payload":   func() expr.Any { return &expr.Payload{} },
	"meta":      func() expr.Any { return &expr.Meta{} },
	"ct":        func() expr.Any { return &expr.Ct{} },
	"exthdr":    func() expr.Any { return &expr.Exthdr{} },
	"fib":       func() expr.Any { return &expr.Fib{} },
	"bitwise":   func() expr.Any { return &expr.Bitwise{} },
	"cmp":       func() expr.Any { return &expr.Cmp{} },
	"lookup":    func() expr.Any { return &expr.Lookup{} },
	"dynset":    func() expr.Any { return &expr.Dynset{} },
	"counter":   func() expr.Any { return &expr.Counter{} },
	"objref":    func() expr.Any { return &expr.Objref{} },
	"limit":     func() expr.Any { return &expr.Limit{} },
	"log":       func() expr.Any { return &expr.Log{} },
	"reject":    func() expr.Any { return &expr.Reject{} },
	"notrack":   func() expr.Any { return &expr.Notrack{} },
	"immediate": func() expr.Any { return &expr.Verdict{} },
	"dup":       func() expr.Any { return &expr.Dup{} },
}

// unmarshalExpr reads the data of a named expression. The library's decoders index into what the kernel normally
// sends without checking; what is shorter than that must be an error, not a crash of the program that holds the rules.
func unmarshalExpr(name string, data []byte) (op operation, err error) {
	defer func() {
		if r := recover(); r != nil {
			op, err = nil, foreign("malformed expression %q: %v", name, r)
		}
	}()
	empty, ok := emptyExpr[name]
	if !ok {
		return nil, foreign("expression %q", name)
	}
	e := empty()
	if name == "immediate" && !isVerdict(data) {
		e = &expr.Immediate{}
	}
	if err := expr.Unmarshal(familyINET, data, e); err != nil {
		return nil, foreign("expression %q: %v", name, err)
	}
	return e, nil
}

// isVerdict reports whether an immediate expression writes a verdict into the verdict register.
func isVerdict(data []byte) bool {
	ad, err := newDecoder(data)
	if err != nil {
		return false
	}
	toVerdict, hasVerdict := false, false
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_IMMEDIATE_DREG:
			toVerdict = ad.Uint32() == unix.NFT_REG_VERDICT
		case unix.NFTA_IMMEDIATE_DATA:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					hasVerdict = hasVerdict || ad.Type() == unix.NFTA_DATA_VERDICT
				}
				return nil
			})
		}
	}
	return ad.Err() == nil && toVerdict && hasVerdict
}
