Feature: Evasion of Force TLS
  Clients made by hand, packet by packet, try to get plaintext to a database that takes TLS only. Each attempt is made without
  a policy first, where it must get its plaintext through: it would try nothing otherwise. Those that need another engine,
  address family or placement are left out where they make no sense.

  @extended @X-08
  Scenario Outline: Force TLS of "<database>" (<engine>, <placement>) is not evaded
    Given the database "<database>" with its defaults
    And no policy is in force where "<database>" is
    Then from "office" each of these evasions gets plaintext to it:
      | evasion                                           |
      | plaintext                                         |
      | plaintext with the handshake's last packet        |
      | second segment first                              |
      | one byte a segment                                |
      | overlap before the first byte                     |
      | hello before the first byte                       |
      | overlap after a bait                              |
      | plaintext in front of a hello                     |
      | first bytes of a record, then plaintext           |
      | record and command in one                         |
      | record header alone, then plaintext               |
      | SSLv2 hello                                       |
      | SSL 3 record                                      |
      | alert, then plaintext                             |
      | urgent byte                                       |
      | urgent bait                                       |
      | zero window                                       |
      | plaintext with the end of the stream              |
      | numbers wrap around                               |
      | numbers wrap around behind a bait                 |
      | bait with a wrong checksum                        |
      | bait with a stale timestamp                       |
      | bait with an acknowledgement from the future      |
      | bait with an old acknowledgement                  |
      | bait without an acknowledgement                   |
      | bait with a TCP-MD5 signature                     |
      | bait whose TTL ends behind the gateway            |
      | bait with a source route                          |
      | bait behind an unknown extension header           |
      | bait behind a routing header                      |
      | bait beyond the window                            |
      | bait, then plaintext in its place and around it   |
      | bait, then an acknowledgement that was asked for  |
      | bait without a timestamp, far too old             |
      | data in the SYN                                   |
      | data in the SYN behind two Fast Open options      |
      | data in an experimental Fast Open SYN             |
      | data in the SYN and again behind it               |
      | second SYN in the middle                          |
      | second SYN with the same number                   |
      | SYN-ACK from the client                           |
      | simultaneous open                                 |
      | two SYNs with different numbers                   |
      | forged reset that the server ignores              |
      | forged reset behind a bait                        |
      | reset that ends behind the gateway                |
      | reset with data                                   |
      | connection that is forgotten before its first byte |
      | connection that is forgotten behind a bait        |
      | connection that is found again from its other end |
      | same ports after a request                        |
      | same ports after TLS                              |
      | same ports and numbers after TLS                  |
      | same ports after an orderly end                   |
      | SYN over a standing connection                    |
      | two fragments                                     |
      | tiny fragments                                    |
      | small fragments                                   |
      | last fragment first                               |
      | fragment sent twice with other bytes              |
      | bait and plaintext in overlapping fragments       |
      | fragment that is all of it                        |
      | IPv4 options                                      |
      | TCP options up to the end                         |
      | hop-by-hop header                                 |
      | destination header                                |
      | many destination headers                          |
      | spent routing header                              |
      | destination header in fragments                   |
      | bait in a fragment without its rest               |
      | request with plaintext behind it                  |
      | request, then plaintext at once                   |
      | request, then plaintext after the answer          |
      | request with one byte behind it                   |
      | request in two segments, plaintext in the second  |
      | request in the place of plaintext                 |
      | request, then a longer one in its place           |
      | GSSAPI refused, TLS requested, then plaintext across both |
      | beginning of the connection before                |
      | beginning of an unfinished connection before      |
      | beginning of an orderly ended connection before   |
      | two requests                                      |
      | GSSAPI and TLS requested at once                  |
      | GSSAPI refused, then plaintext                    |
      | GSSAPI refused, then plaintext across the request |
      | cancel request                                    |
      | login without CLIENT_SSL                          |
      | login with CLIENT_SSL                             |
      | login of 790 bytes                                |
      | login of 66,326 bytes                             |
      | request with sequence number 2                    |
      | request, then a login as if it were a record      |
      | command that begins like a hello                  |
      | command that begins like a hello, in two segments |
    When its owner <opens>
    Then none of them gets a byte of plaintext to it

    Examples:
      | database         | engine     | placement | opens                                                                                      |
      | pg-shared        | PostgreSQL | shared    | turns Force TLS on and turns Internet accessibility on                                     |
      | my-shared        | MySQL      | shared    | turns Force TLS on and turns Internet accessibility on                                     |
      | redis-shared     | Redis      | shared    | turns Force TLS on and turns Internet accessibility on                                     |
      | pg-dedicated     | PostgreSQL | dedicated | adds the firewall rule "198.51.100.0/25"                                                   |
      | mongo-dedicated  | MongoDB    | dedicated | adds the firewall rule "198.51.100.0/25" and adds the firewall rule "2001:db8:a::/64"      |
      | search-dedicated | OpenSearch | dedicated | adds the firewall rule "198.51.100.0/25"                                                   |

  @extended @X-08
  Scenario Outline: Ordinary trouble costs clients of "<database>" at most a retransmission
    Each of the first six packets is lost, repeated, or swapped with the next, once, in either direction.

    Given the database "<database>" with its defaults
    And no policy is in force where "<database>" is
    Then from "office" every handshake survives ordinary trouble
    When its owner <opens>
    Then every one survives it still, at the cost of one retransmission at the most

    Examples:
      | database     | opens                                                  |
      | redis-shared | turns Force TLS on and turns Internet accessibility on |
      | pg-dedicated | adds the firewall rule "198.51.100.0/25"               |
