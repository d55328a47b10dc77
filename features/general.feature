Feature: General
  No database is public until someone said so, and there is no way round its endpoint.

  @core @G-01 @S-02 @D-02
  Scenario: No database is reachable from the public Internet by default
    Given every database with its defaults
    Then every Internet host is denied by every database
    And all that was denied stays denied when its clients try again

  @core @G-02
  Scenario: A process on the database host itself is not judged
    Given the database "my-shared" with its defaults
    When its owner turns Force TLS on
    And a process on the host of "my-shared" connects to it over loopback, without TLS
    Then whatever became of that is not judged
    And every app of its region over TLS is served
    And every app of its region without TLS is denied
    And every Internet host is denied

  @core @G-03 @C-04
  Scenario Outline: Other addresses and ports of "<database>" lead nowhere
    Given the database "<database>" with its defaults
    Then these connections have these outcomes:
      | who                    | how | outcome | by                 |
      | "office"               |     | denied  | by every way round |
      | "osc-fr1/web"          |     | denied  | by every way round |
      | "osc-secnum-fr1/batch" |     | denied  | by every way round |
      | "<other>"              |     | denied  | by every way round |

    Examples:
      | database         | other              |
      | pg-shared        | home               |
      | redis-shared     | home               |
      | pg-dedicated     | mongo-dedicated-1  |
      | search-dedicated | canary-gw-secnum-1 |

  @core @G-03
  Scenario: The nodes' own addresses of a dedicated database stay closed to those whom its endpoint serves
    Given the database "pg-dedicated" with its defaults
    When its owner adds the firewall rule "0.0.0.0/0" and adds the firewall rule "::/0"
    Then these connections have these outcomes:
      | who                 | how      | outcome | by                 |
      | "office"            | over TLS | served  |                    |
      | "office"            |          | denied  | by every way round |
      | "osc-fr1/web"       |          | denied  | by every way round |
      | "corp/desk"         |          | denied  | by every way round |
      | "mongo-dedicated-1" |          | denied  | by every way round |

  @core @G-03
  Scenario: The address family that a shared database does not publish stays closed to those whom its endpoint serves
    Given the database "pg-shared" with its defaults
    When its owner turns Force TLS on and turns Internet accessibility on
    Then these connections have these outcomes:
      | who           | how      | outcome | by                 |
      | "office"      | over TLS | served  |                    |
      | "osc-fr1/web" | over TLS | served  |                    |
      | "office"      |          | denied  | by every way round |
      | "osc-fr1/web" |          | denied  | by every way round |

  @core @G-03
  Scenario: A rule for the IPv4 endpoint opens no node address of the other family
    Given the database "mongo-dedicated" with its defaults
    When its owner adds the firewall rule "198.51.100.0/25" and turns Force TLS off
    Then these connections have these outcomes:
      | who              | how         | outcome | by                 |
      | "office"         | over TLS    | served  |                    |
      | "office"         | without TLS | served  |                    |
      | "office"         |             | denied  | by every way round |
      | "pg-dedicated-2" |             | denied  | by every way round |
