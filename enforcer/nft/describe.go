package nft

import (
	"fmt"
	"strings"

	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// messageNames are the messages of a batch, in the words of nft(8).
var messageNames = map[netlink.HeaderType]string{
	messageType(unix.NFT_MSG_NEWTABLE):   "add table",
	messageType(unix.NFT_MSG_DELTABLE):   "delete table",
	messageType(unix.NFT_MSG_NEWCHAIN):   "add chain",
	messageType(unix.NFT_MSG_DELCHAIN):   "delete chain",
	messageType(unix.NFT_MSG_NEWRULE):    "add rule",
	messageType(unix.NFT_MSG_DELRULE):    "flush chain",
	messageType(unix.NFT_MSG_NEWSET):     "add set",
	messageType(unix.NFT_MSG_DELSET):     "delete set",
	messageType(unix.NFT_MSG_NEWSETELEM): "add element",
	messageType(unix.NFT_MSG_DELSETELEM): "delete element",
	messageType(unix.NFT_MSG_NEWOBJ):     "add counter",
	unix.NFNL_MSG_BATCH_BEGIN:            "begin",
}

// describe names a message of a batch for an error: what it does, to which table and object, and a rule's comment.
// Attributes 1 and 2 of every message that it meets are the table's name and the object's.
func describe(m netlink.Message) string {
	words := []string{messageNames[m.Header.Type]}
	if words[0] == "" {
		words[0] = fmt.Sprintf("message type %#x", m.Header.Type)
	}
	ad, err := newDecoder(payload(m))
	if err != nil || m.Header.Type == unix.NFNL_MSG_BATCH_BEGIN {
		return words[0]
	}
	isRule := m.Header.Type == messageType(unix.NFT_MSG_NEWRULE)
	for ad.Next() {
		switch {
		case ad.Type() == unix.NFTA_RULE_TABLE:
			words = append(words, ad.String())
		case ad.Type() == unix.NFTA_RULE_CHAIN && m.Header.Type != messageType(unix.NFT_MSG_NEWTABLE):
			words = append(words, ad.String())
		case isRule && ad.Type() == unix.NFTA_RULE_USERDATA:
			words = append(words, fmt.Sprintf("%q", commentOf(ad.Bytes(), byte(userdata.TypeComment))))
		}
	}
	return strings.Join(words, " ")
}
