// Package cut ends established connections that are no longer allowed, both halves of them, within milliseconds
// (SPEC ). The ruleset already keeps their packets from passing; here both ends also learn of it, so that no
// server waits for a client that is gone.
//
// Connections are found in the connection tracking table and, on a database host, among its own sockets. Which of them
// go is the caller's pure decision (Judge). The ways to end one:
//
//   - Its server's socket is on this host: the socket is destroyed (SOCK_DESTROY, net/ipv4/tcp.c: tcp_abort). The kernel
//     tells the client by a RST; the ruleset has to let that pass.
//   - Otherwise the server is behind this host. A SYN in the client's name makes the server say where the connection
//     stands (a challenge ACK, RFC 5961 section 4.2), and a RST at exactly that place ends it (section 3.2). The same
//     answer tells where the client stands: it gets its RST in the server's name. These segments leave by a packet
//     socket, past netfilter and past the connection's own tracking entry.
//
// Afterwards the tracking entry is deleted, so that its class cannot be inherited by a later connection of the same
// addresses and ports.
package cut
