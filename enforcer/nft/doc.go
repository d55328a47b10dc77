// Package nft carries one nftables table between ruleset.Table values and the kernel. It is the enforcer's only
// importer of google/nftables.
//
// Encoding and decoding are pure: every part of a table has a function from the value to netlink attributes and one
// back, and what decodes is exactly what was encoded (encodeRule checks that for every rule it writes). Conn is the thin
// socket beside them: it reads the generation and the table, and commits one batch on condition of a generation.
//
// Expressions, user data and data types come from google/nftables. The messages around them are built here, because
// three things cannot be said through that library's Conn: "reset tcp option" (it always adds a register, which turns
// the expression into a load, net/netfilter/nft_exthdr.c: nft_exthdr_select_ops), a dump of all rules of a table
// at once, and the counter flag of a set that was read.
package nft
