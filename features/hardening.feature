Feature: Other ports and protocols
  Nothing else lives at a dedicated database's address.

  @extended @X-02
  Scenario: Every other port and protocol is denied, from an allowed source too
    Given the database "pg-dedicated" with its defaults
    When its owner adds the firewall rule "198.51.100.0/25"
    Then "office" over TLS is served
    And from "office" these packets to its address are denied:
      | protocol  | port  |
      | tcp       | 22    |
      | tcp       | 5431  |
      | tcp       | 5433  |
      | tcp       | 8008  |
      | tcp       | 65535 |
      | udp       | 5432  |
      | udp       | 53    |
      | sctp      | 5432  |
      | icmp echo |       |

  @extended @X-02 @X-01
  Scenario: The same over IPv6
    Given the database "mongo-dedicated" with its defaults
    When its owner adds the firewall rule "2001:db8:a::/64"
    Then "office" over IPv6 with TLS is served
    And from "office" these packets to its IPv6 address are denied:
      | protocol  | port  |
      | tcp       | 22    |
      | tcp       | 27018 |
      | udp       | 27017 |
      | sctp      | 27017 |
      | icmp echo |       |
