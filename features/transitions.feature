Feature: Transitions
  Connections are tried all the time while something changes. Until the enforcer is called the old policy holds, from its answer on the
  new one does, and in between either; what both deny never passes, and what both allow never fails.

  @extended @X-06
  Scenario Outline: Adding and removing a rule of "<database>"
    Given the database "<database>" with its defaults
    When its owner adds the firewall rule "198.51.100.0/28"
    And these are tried all the time:
      | who                         | how      | tries   |
      | "home"                      | over TLS | its SYN |
      | "office" using 198.51.100.7 | over TLS | its SYN |
      | "osc-fr1/web"               | over TLS | its SYN |
    And its owner adds the firewall rule "203.0.113.0/25", then removes the firewall rule "203.0.113.0/25", then adds the firewall rule "203.0.113.0/25", then removes the firewall rule "203.0.113.0/25"
    Then each of them fared as the policy before or after a change has it

    Examples:
      | database         |
      | pg-dedicated     |
      | search-dedicated |

  @extended @X-06
  Scenario: A network is replaced by its two halves
    Given the database "mongo-dedicated" with its defaults
    When its owner adds the firewall rule "198.51.100.0/24"
    And these are tried all the time:
      | who                          | how      | tries   |
      | "office" using 198.51.100.7  | over TLS | its SYN |
      | "office" using 198.51.100.99 | over TLS | its SYN |
      | "home"                       | over TLS | its SYN |
    And its owner adds the firewall rule "198.51.100.0/25" and adds the firewall rule "198.51.100.128/25" and removes the firewall rule "198.51.100.0/24", then adds the firewall rule "198.51.100.0/24" and removes the firewall rule "198.51.100.0/25" and removes the firewall rule "198.51.100.128/25"
    Then each of them fared as the policy before or after a change has it

  @extended @X-06
  Scenario: Internet accessibility comes and goes
    Given the database "my-shared" with its defaults
    When its owner turns Force TLS on
    And these are tried all the time:
      | who             | how      | tries   |
      | "home"          | over TLS | its SYN |
      | "osc-fr1/web"   | over TLS | its SYN |
    And its owner turns Internet accessibility on, then turns Internet accessibility off
    Then each of them fared as the policy before or after a change has it

  @extended @X-06
  Scenario: Force TLS comes and goes
    Given the database "pg-shared" with its defaults
    When these are tried all the time:
      | who              | how         | tries           |
      | "osc-fr1/web"    | over TLS    | its first words |
      | "osc-fr1/worker" | without TLS | its first words |
      | "home"           | over TLS    | its SYN         |
    And its owner turns Force TLS on, then turns Force TLS off, then turns Force TLS on
    Then each of them fared as the policy before or after a change has it

  @extended @X-06
  Scenario: A managed range changes
    Given the database "search-dedicated" with its defaults
    When its owner adds the managed range of "osc-fr1"
    And the platform moves the egress address 192.0.2.129 of "osc-fr1" to 192.0.2.131
    And these are tried all the time:
      | who              | how      | tries   |
      | "osc-fr1/web"    | over TLS | its SYN |
      | "osc-fr1/worker" | over TLS | its SYN |
      | "office"         | over TLS | its SYN |
    And the platform updates the managed range of "osc-fr1"
    Then each of them fared as the policy before or after a change has it

  @extended @X-07
  Scenario Outline: The enforcer of "<database>" is killed in the middle of changes
    What is in force then is the policy before or the one after, as a whole, and the next change comes into force.

    Given the database "<database>" with its defaults
    When its owner adds the firewall rule "198.51.100.0/28" and adds the firewall rule "203.0.113.0/26"
    And these are tried all the time:
      | who                          | how      | tries   |
      | "office" using 198.51.100.7  | over TLS | its SYN |
      | "home" using 203.0.113.7     | over TLS | its SYN |
      | "home" using 203.0.113.70    | over TLS | its SYN |
      | "osc-fr1/web"                | over TLS | its SYN |
    And 10 times the enforcer is killed while it replaces the firewall rule "203.0.113.0/26" by "203.0.113.64/26" or the other way round, and does it afterwards
    Then each of them fared as the policy before or after a change has it

    Examples:
      | database         |
      | pg-dedicated     |
      | search-dedicated |

  @extended @X-07
  Scenario: A long-running enforcer is killed and started again
    Given the database "mongo-dedicated" with its defaults
    When its owner adds the firewall rule "198.51.100.0/28"
    And these are tried all the time:
      | who                         | how      | tries   |
      | "office" using 198.51.100.7 | over TLS | its SYN |
      | "home"                      | over TLS | its SYN |
    And the enforcer is killed and started again where it is
    And its owner adds the firewall rule "203.0.113.0/25"
    Then each of them fared as the policy before or after a change has it

  @extended @X-09
  Scenario Outline: Another program <tampers> where "<database>" is
    What it does is prevented or undone within milliseconds while the enforcer runs; otherwise, the next change repairs it.

    Given the database "<database>" with its defaults
    When its owner adds the firewall rule "198.51.100.0/28"
    And these are tried all the time:
      | who                         | how      | tries   |
      | "office" using 198.51.100.7 | over TLS | its SYN |
      | "home"                      | over TLS | its SYN |
      | "osc-fr1/web"               | over TLS | its SYN |
    And another program <tampers> where it is
    And its owner adds the firewall rule "203.0.113.0/25"
    Then each of them fared as the policy before or after a change has it

    Examples:
      | database         | tampers             |
      | pg-dedicated     | flushes the ruleset |
      | search-dedicated | flushes the ruleset |
      | pg-dedicated     | empties every set   |
      | mongo-dedicated  | empties every set   |
