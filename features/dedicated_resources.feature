Feature: Dedicated Resources
  Nodes in a VPC of their own, behind a gateway with an Internet-routable address.

  @core @D-01 @D-02
  Scenario Outline: By default "<database>" is reachable from nowhere
    Given the database "<database>" with its defaults
    Then every app is denied
    And every Internet host is denied
    And every node of "<neighbour>" is denied

    Examples:
      | database         | neighbour        |
      | pg-dedicated     | mongo-dedicated  |
      | mongo-dedicated  | pg-dedicated     |
      | search-dedicated | canary-gw-secnum |

  @core @D-14 @D-01
  Scenario: A peering opens nothing by itself
    Given the database "pg-dedicated" with its defaults
    Then these connections have these outcomes:
      | who                  | how | outcome | by                              |
      | every host of "corp" |     | denied  |                                 |
      | every host of "corp" |     | denied  | by its private peering endpoint |
      | every host of "corp" |     | denied  | by "mongo-dedicated"            |

  @core @D-03
  Scenario Outline: Packets for "<database>" arrive at its gateway and are denied there
    Given the database "<database>" with its defaults
    Then every Internet host is denied, and its packets were seen at the gateway
    And every app of its region is denied, and its packets were seen at the gateway

    Examples:
      | database         |
      | pg-dedicated     |
      | mongo-dedicated  |
      | search-dedicated |

  @core @D-17
  Scenario: After a fail-over the endpoint, its rules and Force TLS hold unchanged
    Given the database "pg-dedicated" with its defaults
    When its owner adds the firewall rule "198.51.100.0/26"
    Then "office" using 198.51.100.10 over TLS is served
    When "pg-dedicated" fails over to its node "pg-dedicated-2"
    Then these connections have these outcomes:
      | who                          | how         | outcome | by                 |
      | "office" using 198.51.100.10 | over TLS    | served  |                    |
      | "office" using 198.51.100.10 | without TLS | denied  |                    |
      | "office" using 198.51.100.64 | over TLS    | denied  |                    |
      | "home"                       | over TLS    | denied  |                    |
      | every app of its region      | over TLS    | denied  |                    |
      | "office" using 198.51.100.10 | over TLS    | denied  | by every way round |
    And "office" using 198.51.100.10 over TLS is served by the node "pg-dedicated-2"
    When its owner removes the firewall rule "198.51.100.0/26"
    Then "office" using 198.51.100.10 over TLS is denied

  @core @D-17
  Scenario: A fail-over without any rule opens nothing
    Given the database "pg-dedicated" with its defaults
    When "pg-dedicated" fails over to its node "pg-dedicated-3"
    Then every Internet host is denied
    And every app is denied

  @core @D-16
  Scenario: A rule's change is in force quickly, with a receipt
    Given the database "search-dedicated" with its defaults
    When its owner adds the firewall rule "198.51.100.0/25"
    Then the receipt names a generation of its own
    And the change was in force within 1000 ms
    And "office" over TLS is served
    When its owner removes the firewall rule "198.51.100.0/25"
    Then the receipt names a generation of its own
    And the change was in force within 1000 ms
    And "office" over TLS is denied
