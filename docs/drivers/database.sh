#!/bin/sh
# A complete drawbridge driver (docs/DRIVERS.md, profile core): a firewall made of nft(8) 1.0.6 or later, in POSIX shell.
# jq(1) 1.6 or later reads the policy.
#
# Everything is dropped that the policy does not allow. Force TLS is left to the databases' own settings: no connection is
# looked into, only ports that never speak TLS are closed. Each apply replaces the whole table in one transaction.
set -eu

table=by_database

# From the policy to the rules of chain "allowed", one rule for each way in. Warnings come first, as comments.
compile='
def refuse($why): "refused: \($why)\n" | halt_error;

# Only what looks harmless is pasted into a ruleset. (The rest of the schema is not checked.)
def address:        test("\\A[0-9a-f.:]+(/[0-9]+)?\\z");
def name:           test("\\A[A-Za-z0-9._-]+\\z");
def readable:
  .version == 1
  and all(.interfaces[].name, .databases[].name; name)
  and all(.region.networks[], .managed_ranges[][]; address)
  and all(.databases[] | .endpoints[] | ., .dnat // empty; (.address | address) and (.port | type == "number"))
  and all(.databases[].nodes[].addresses[]; address)
  and all(.databases[].nodes[].ports[].port; type == "number")
  and all(.databases[].firewall_rules[]? | .cidr // empty; address);

def objection($policy):                                 # why the settings of a database must be refused
  (.firewall_rules // []) as $rules
  | if .model == "shared" then
      (select(.internet_accessibility == true and .force_tls != true) | "Internet accessibility needs Force TLS"),
      (select($rules != [])                                           | "a shared database has no firewall rules")
    else
      (select(.internet_accessibility == true)    | "a dedicated database is opened by firewall rules only"),
      (select($rules | length > 30)               | "more than 30 firewall rules")
    end,
    ($rules[].name // empty | select(in($policy.managed_ranges) | not) | "no managed range \(.)");

def ip: if contains(":") then "ip6" else "ip" end;      # the family of an address or a network, as nft calls it
def covered($policy):                                   # the networks that the rules of a database let in
  .firewall_rules[]? | .cidr // $policy.managed_ranges[.name][];
def zone($policy; $zone):                               # nothing at all if the point has no such interface
  [$policy.interfaces[] | select(.zone == $zone) | "\"\(.name)\""] | select(. != []) | "iifname { \(join(", ")) } ";

def verdict($tls; $force):                              # for a connection whose source is right
  if $force and $tls == "none" then "drop" else "accept" end;

# Between the nodes of a database: its cluster ports, always over TLS; nothing else.
def from_nodes:
  . as $db
  | .nodes[] | select(.here) | . as $node
  | .ports[] | . as $port
  | ("ip", "ip6") as $ip
  | ([$db.nodes[].addresses[]] - $node.addresses | map(select(ip == $ip)) | unique | select(. != [])) as $others
  | ([$node.addresses[], ($db.endpoints[] | select(.dnat == null and .port == $port.port) | .address)]
      | map(select(ip == $ip)) | unique | select(. != [])) as $here
  | "\($ip) saddr { \($others | join(", ")) } \($ip) daddr { \($here | join(", ")) } tcp dport \($port.port) "
    + if any($db.cluster_ports[]?; .port == $port.port) then verdict($port.tls; true) else "drop" end;

# Clients: to an endpoint, from the sources that the toggles and the rules let in.
def sources($policy; $endpoint):
  ($endpoint.address | ip) as $ip
  | if .internet_accessibility == true then ""
    elif .model == "shared" then
      zone($policy; "regional") + ($policy.region.networks[] | select(ip == $ip) | "\($ip) saddr \(.) ")
    else
      if $endpoint.kind == "private-peering-rw" then zone($policy; "peering") else "" end
      + (covered($policy) | select(ip == $ip) | "\($ip) saddr \(.) ")
    end;
def destination:
  (.address | ip) as $ip
  | if .dnat then      # translated by now: who asked for the node itself and not for the endpoint must not get through
      "\($ip) daddr \(.dnat.address) tcp dport \(.dnat.port) "
      + "ct original \($ip) daddr \(.address) ct original proto-dst \(.port) "
    else
      "\($ip) daddr \(.address) tcp dport \(.port) "
    end;
def from_clients($policy):
  (if .model == "shared" then .force_tls == true else .force_tls != false end) as $force
  | . as $db
  | .endpoints[] | . as $endpoint
  | ($db | sources($policy; $endpoint)) + destination + verdict(.tls; $force);

[inputs]
| if length != 1 then refuse("not one JSON document") else .[0] end
| . as $policy
| if readable then . else refuse("not a policy that this driver can read") end
| [.databases[] | objection($policy) as $why | "database \(.name): \($why)"] as $objections
| if $objections != [] then refuse($objections | join("; ")) else . end
| (.databases[] | "# warning: database \(.name) is open to every address: \(covered($policy) | select(endswith("/0")))"),
  (.databases[] | from_nodes),
  (.databases[] | from_clients($policy))
'

ruleset() { # $1: the rules of chain "allowed"
	cat <<-EOF
	table inet $table
	delete table inet $table
	table inet $table {
	    chain input {
	        type filter hook input priority filter; policy drop
	        iifname "lo" accept
	        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept
	        jump connections
	    }
	    chain forward {
	        type filter hook forward priority filter; policy drop
	        jump connections
	    }
	    chain connections {
	        ct state established,related accept
	        ct state new jump allowed
	    }
	    chain allowed {
	$1
	    }
	}
	EOF
}

case ${1-} in
describe)
	echo '{"protocol": 1, "name": "by-database", "version": "1", "profiles": ["core"], "features": {"force_tls": "database"}}'
	;;
apply)
	# jq ends with 5 if the program above refuses the policy or cannot make sense of it. Any other failure is not the policy's.
	rules=$(jq -rn "$compile") || case $? in 5) exit 2 ;; *) exit 1 ;; esac
	ruleset "$rules" | nft -f - || exit 1
	printf '%s\n' "$rules" | sed -n 's/^# warning: /warning: /p' >&2
	# reset leaves this file alone: a generation never comes back.
	if [ -e generation ]; then read -r last <generation || :; else last=0; fi
	echo $((last + 1)) >generation
	echo "{\"generation\": $((last + 1))}"
	;;
reset)
	# To declare the table first makes this work when there is none.
	nft "table inet $table; delete table inet $table"
	;;
*)
	echo "usage: $0 describe | apply <policy.json | reset" >&2
	exit 64
	;;
esac
