#!/usr/bin/env python3
"""A complete drawbridge driver (docs/DRIVERS.md, profile core): a firewall made of nft(8) 1.0.6 or later, in Python 3.8 or later and
nothing but its standard library.

Everything is dropped that the policy does not allow. All networks that an endpoint is open to are one set, so that the ruleset stays
small however many rules there are. Force TLS is decided by the first bytes a client says; what a connection still has to show is
kept in its conntrack mark. Each apply replaces the whole table in one transaction.

This tells TLS from plaintext. It does not stop a client that cuts its first bytes up in order to get round it: that takes what
profile extended asks for.
"""
import ipaddress
import json
import re
import subprocess
import sys

TABLE = "first_bytes_python"
DESCRIPTION = {"protocol": 1, "name": "first-bytes-python", "version": "1", "profiles": ["core"], "features": {"force_tls": "first-bytes"}}
MAX_RULES = 30

# The mark of a connection says what its client has yet to show; 0 is nothing. @ih is what it says (the payload of TCP):
# "@ih,0,8 >= 0" holds if there is any.
RULESET = """
table inet %(table)s
delete table inet %(table)s
table inet %(table)s {
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
        ct state related accept
        ct state established ct direction reply accept
        ct state established ct mark vmap { 0: accept, 1: goto tls, 2: goto postgresql, 3: goto mysql }
        ct state new jump allowed
    }
    chain new_tls        { ct mark set 1 goto tls; }
    chain new_postgresql { ct mark set 2 goto postgresql; }
    chain new_mysql      { ct mark set 3 goto mysql; }
    chain tls {            # a handshake record that holds a ClientHello
        @ih,0,16 0x1603 @ih,40,8 0x01 ct mark set 0 accept
        @ih,0,8 >= 0 reject with tcp reset
        accept
    }
    chain postgresql {     # SSLRequest or GSSENCRequest, alone in its segment; then, or at once, TLS
        @ih,64,8 >= 0 goto tls
        @ih,0,64 { 0x0000000804d2162f, 0x0000000804d21630 } accept
        goto tls
    }
    chain mysql {          # SSLRequest: packet number 1, of 32 bytes, with CLIENT_SSL set
        @ih,0,32 0x20000001 @ih,40,8 & 0x08 == 0x08 goto mysql_request
        goto tls
    }
    chain mysql_request {  # TLS may follow in the same segment
        @ih,288,16 0x1603 @ih,328,8 0x01 ct mark set 0 accept
        @ih,288,8 >= 0 reject with tcp reset
        accept
    }
    chain allowed {
%(rules)s
    }
}
"""


class Refused(Exception):
    """The policy must not come into force."""


def name(text):
    """Only what looks harmless gets into a ruleset."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text):
        raise Refused(f"not a policy that this driver can read: the name {text!r}")
    return text


def networks(texts, version):
    """The networks of one family, as few as say the same."""
    return list(ipaddress.collapse_addresses(n for n in map(ipaddress.ip_network, texts) if n.version == version))


def family(version):
    return {4: "ip", 6: "ip6"}[version]


def listed(networks_or_addresses):
    return "{ " + ", ".join(map(str, networks_or_addresses)) + " }"


class Database:
    """One database of a policy, and the rules that let its clients and nodes in."""

    def __init__(self, policy, db):
        self.policy, self.db, self.name = policy, db, name(db["name"])
        self.shared = {"shared": True, "dedicated": False}[db["model"]]
        self.rules = db.get("firewall_rules") or []
        self.open = db.get("internet_accessibility") is True
        self.forced = db.get("force_tls", not self.shared)
        self.refuse_settings()
        self.sources = [text for rule in self.rules for text in self.covered(rule)]

    def refuse_settings(self):
        """SPEC S-09, S-10 and D-12."""
        if self.shared and self.open and not self.forced:
            raise Refused(f"database {self.name}: Internet accessibility needs Force TLS")
        if self.shared and self.rules:
            raise Refused(f"database {self.name}: a shared database has no firewall rules")
        if not self.shared and self.open:
            raise Refused(f"database {self.name}: a dedicated database is opened by firewall rules only")
        if len(self.rules) > MAX_RULES:
            raise Refused(f"database {self.name}: more than {MAX_RULES} firewall rules")

    def covered(self, rule):
        if "cidr" in rule:
            return [rule["cidr"]]
        if rule["name"] not in self.policy["managed_ranges"]:
            raise Refused(f"database {self.name}: no managed range {rule['name']}")
        return self.policy["managed_ranges"][rule["name"]]

    def warnings(self):
        for rule in self.rules:
            if "cidr" in rule and ipaddress.ip_network(rule["cidr"]).prefixlen == 0:
                yield f"warning: database {self.name} is open to every address: {rule['cidr']}"

    def verdict(self, tls, forced):
        """What becomes of a new connection whose source is right."""
        if not forced:
            return "accept"
        if tls == "in-band":
            return {"postgresql": "goto new_postgresql", "mysql": "goto new_mysql"}[self.db["engine"]]
        return {"none": "drop", "only": "goto new_tls", "either": "goto new_tls"}[tls]

    def from_nodes(self):
        """Between the nodes: the cluster's ports, always over TLS; nothing else."""
        cluster = {p["port"] for p in self.db.get("cluster_ports") or []}
        everybody = {ipaddress.ip_address(a) for n in self.db["nodes"] for a in n["addresses"]}
        for node in self.db["nodes"]:
            own = {ipaddress.ip_address(a) for a in node["addresses"]}
            if not node["here"]:
                continue
            for port in node["ports"]:
                endpoints = {ipaddress.ip_address(e["address"]) for e in self.db["endpoints"]
                             if "dnat" not in e and e["port"] == port["port"]}
                for version in (4, 6):
                    others = sorted(a for a in everybody - own if a.version == version)
                    here = sorted(a for a in own | endpoints if a.version == version)
                    if others and here:
                        ip = family(version)
                        yield (f"{ip} saddr {listed(others)} {ip} daddr {listed(here)} tcp dport {int(port['port'])} "
                               + (self.verdict(port["tls"], True) if port["port"] in cluster else "drop"))

    def from_clients(self):
        for endpoint in self.db["endpoints"]:
            address = ipaddress.ip_address(endpoint["address"])
            source = self.source(endpoint, address.version)
            if source is not None:
                yield f"{source}{destination(endpoint, address)} {self.verdict(endpoint['tls'], self.forced)}"

    def source(self, endpoint, version):
        """Who may connect, as a match; None: nobody."""
        if self.open:
            return ""
        zone, texts = "", self.sources
        if self.shared:
            zone, texts = self.zone("regional"), self.policy["region"]["networks"]
        elif endpoint["kind"] == "private-peering-rw":
            zone = self.zone("peering")
        allowed = networks(texts, version)
        if zone is None or not allowed:
            return None
        if allowed[0].prefixlen == 0:
            return zone
        return f"{zone}{family(version)} saddr {listed(allowed)} "

    def zone(self, zone):
        interfaces = [f'"{name(i["name"])}"' for i in self.policy["interfaces"] if i["zone"] == zone]
        return f"iifname {listed(interfaces)} " if interfaces else None


def destination(endpoint, address):
    """The endpoint, as a match. A translated packet carries the node's address: who asked for that one must not get through."""
    ip, port = family(address.version), int(endpoint["port"])
    if "dnat" not in endpoint:
        return f"{ip} daddr {address} tcp dport {port}"
    node = ipaddress.ip_address(endpoint["dnat"]["address"])
    return (f"{ip} daddr {node} tcp dport {int(endpoint['dnat']['port'])} "
            f"ct original {ip} daddr {address} ct original proto-dst {port}")


def compiled(text):
    """The ruleset of a policy, and the warnings to its owners."""
    try:
        policy = json.loads(text)
    except ValueError as e:
        raise Refused(f"not one JSON document: {e}") from e
    try:
        if policy["version"] != 1:
            raise Refused(f"not a policy that this driver can read: version {policy['version']}")
        databases = [Database(policy, db) for db in policy["databases"]]
        rules = [rule for db in databases for rule in db.from_nodes()]
        rules += [rule for db in databases for rule in db.from_clients()]
        warnings = [warning for db in databases for warning in db.warnings()]
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise Refused(f"not a policy that this driver can read: {type(e).__name__}: {e}") from e
    return RULESET % {"table": TABLE, "rules": "\n".join(" " * 8 + rule for rule in rules)}, warnings


def nft(ruleset):
    subprocess.run(["nft", "-f", "-"], input=ruleset, text=True, check=True)


def generation():
    """A number that this point has not seen yet. reset leaves the file alone: a generation never comes back."""
    try:
        with open("generation", encoding="ascii") as f:
            last = int(f.read())
    except FileNotFoundError:
        last = 0
    with open("generation", "w", encoding="ascii") as f:
        f.write(f"{last + 1}\n")
    return last + 1


def main(call):
    if call == "describe":
        print(json.dumps(DESCRIPTION))
    elif call == "apply":
        ruleset, warnings = compiled(sys.stdin.read())
        nft(ruleset)
        for warning in warnings:
            print(warning, file=sys.stderr)
        print(json.dumps({"generation": generation()}))
    elif call == "reset":
        # To declare the table first makes this work when there is none.
        nft(f"table inet {TABLE}\ndelete table inet {TABLE}\n")
    else:
        sys.exit(f"usage: {sys.argv[0]} describe | apply <policy.json | reset")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) == 2 else "")
    except Refused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        sys.exit(2)
    except (OSError, subprocess.CalledProcessError) as failed:
        sys.exit(f"failed: {failed}")
