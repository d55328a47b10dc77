Feature: IPv6
  Default deny and every rule hold for IPv6 too, where an endpoint has an IPv6 address.

  @extended @X-01 @D-01 @D-02
  Scenario: A dedicated database is reachable from nowhere by default
    Given the database "mongo-dedicated" with its defaults
    Then every Internet host over IPv6 is denied
    And every app over IPv6 is denied

  @extended @X-01 @D-09 @D-04
  Scenario: A custom range lets in its first and last address and not the neighbours just outside
    Given the database "mongo-dedicated" with its defaults
    When its owner adds the firewall rule "2001:db8:a::10/124"
    Then these connections have these outcomes:
      | who                             | how                    | outcome |
      | "office" using 2001:db8:a::10   | over IPv6 with TLS     | served  |
      | "office" using 2001:db8:a::1f   | over IPv6 with TLS     | served  |
      | "office" using 2001:db8:a::f    | over IPv6 with TLS     | denied  |
      | "office" using 2001:db8:a::20   | over IPv6 with TLS     | denied  |
      | "office" using 2001:db8:a::10   | over IPv6 without TLS  | denied  |
      | "office"                        | over TLS               | denied  |
      | "home"                          | over IPv6 with TLS     | denied  |
    When its owner removes the firewall rule "2001:db8:a::10/124"
    Then "office" using 2001:db8:a::10 over IPv6 with TLS is denied

  @extended @X-01 @D-06 @D-07
  Scenario: A managed range lets in its region's apps
    Given the database "mongo-dedicated" with its defaults
    When its owner adds the managed range of "osc-fr1"
    Then these connections have these outcomes:
      | who                           | how                   | outcome |
      | every app of "osc-fr1"        | over IPv6 with TLS    | served  |
      | every app of "osc-fr1"        | over IPv6 without TLS | denied  |
      | every app of "osc-secnum-fr1" | over IPv6 with TLS    | denied  |
      | every Internet host           | over IPv6 with TLS    | denied  |

  @extended @X-01 @D-11
  Scenario: The rule for all of one family opens that family only
    Given the database "mongo-dedicated" with its defaults
    When its owner adds the firewall rule "0.0.0.0/0"
    Then every Internet host over TLS is served
    And every Internet host over IPv6 is denied
    When its owner removes the firewall rule "0.0.0.0/0"
    And its owner adds the firewall rule "::/0"
    Then its owner is warned
    And every Internet host over IPv6 with TLS is served
    And every Internet host over IPv6 without TLS is denied
    And every Internet host over TLS is denied

  @extended @X-01 @S-01 @S-02 @S-03 @S-05
  Scenario: A shared database serves its region's apps and nobody else by default
    Given the database "my-shared" with its defaults
    Then every app of its region over IPv6 is served
    And every app of another region over IPv6 is denied
    And every Internet host over IPv6 is denied

  @extended @X-01 @S-06 @S-07 @S-08
  Scenario Outline: Force TLS and Internet accessibility of "<database>"
    Given the database "<database>" with its defaults
    When its owner turns Force TLS on
    Then every app of its region over IPv6 without TLS is denied
    And every app of its region over IPv6 with TLS is served
    And every Internet host over IPv6 is denied
    When its owner turns Internet accessibility on
    Then every Internet host over IPv6 with TLS is served
    And every Internet host over IPv6 without TLS is denied
    When its owner turns Internet accessibility off
    Then every Internet host over IPv6 is denied

    Examples:
      | database       |
      | my-shared      |
      | redis-shared   |
      | metrics-shared |

  @extended @X-01 @C-03
  Scenario Outline: Between the nodes of "<database>" TLS is required
    Given the database "<database>" with its defaults
    When its owner turns Force TLS off
    Then every node of "<database>" over IPv6 with TLS is served by the other nodes
    And every node of "<database>" over IPv6 without TLS is denied by the other nodes

    Examples:
      | database     |
      | redis-shared |
      | pg-dedicated |
