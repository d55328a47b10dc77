Feature: Firewall rules
  Every connection to a dedicated database must match a rule.

  @core @D-05
  Scenario: A source outside all rules is denied while one inside is served
    Given the database "search-dedicated" with its defaults
    When its owner adds the firewall rule "198.51.100.0/25" and adds the managed range of "osc-fr1"
    Then these connections have these outcomes:
      | who                           | how      | outcome |
      | "office"                      | over TLS | served  |
      | every app of "osc-fr1"        | over TLS | served  |
      | "home"                        | over TLS | denied  |
      | "stranger"                    | over TLS | denied  |
      | every app of "osc-secnum-fr1" | over TLS | denied  |

  @core @D-09
  Scenario Outline: "<cidr>" lets in its first and last address and not the neighbours just outside
    Given the database "mongo-dedicated" with its defaults
    When its owner adds the firewall rule "<cidr>"
    Then these connections have these outcomes:
      | who                     | how      | outcome |
      | "office" using <first>  | over TLS | served  |
      | "office" using <last>   | over TLS | served  |
      | "office" using <before> | over TLS | denied  |
      | "office" using <after>  | over TLS | denied  |
      | "home"                  | over TLS | denied  |
      | every app               | over TLS | denied  |

    Examples:
      | cidr             | first         | last          | before        | after         |
      | 198.51.100.32/27 | 198.51.100.32 | 198.51.100.63 | 198.51.100.31 | 198.51.100.64 |
      | 198.51.100.77/32 | 198.51.100.77 | 198.51.100.77 | 198.51.100.76 | 198.51.100.78 |
      | 198.51.100.8/31  | 198.51.100.8  | 198.51.100.9  | 198.51.100.7  | 198.51.100.10 |

  @core @D-10
  Scenario: Removing a rule closes it again
    Given the database "mongo-dedicated" with its defaults
    When its owner adds the firewall rule "198.51.100.0/25"
    Then "office" over TLS is served
    When its owner removes the firewall rule "198.51.100.0/25"
    Then "office" over TLS is denied
    And all that was denied stays denied when its clients try again

  @core @D-10
  Scenario: Removing a rule leaves what another still covers
    Given the database "mongo-dedicated" with its defaults
    When its owner adds the firewall rule "198.51.100.0/26" and adds the firewall rule "198.51.100.10/32"
    Then "office" using 198.51.100.10 over TLS is served
    When its owner removes the firewall rule "198.51.100.0/26"
    Then "office" using 198.51.100.10 over TLS is served
    And "office" using 198.51.100.11 over TLS is denied
    When its owner adds the firewall rule "198.51.100.0/26"
    And its owner removes the firewall rule "198.51.100.10/32"
    Then "office" using 198.51.100.10 over TLS is served
    When its owner removes the firewall rule "198.51.100.0/26"
    Then "office" using 198.51.100.10 over TLS is denied

  @core @D-11 @D-04
  Scenario: 0.0.0.0/0 turns the filtering off, not Force TLS, and its owner is warned
    Given the database "search-dedicated" with its defaults
    When its owner adds the firewall rule "0.0.0.0/0"
    Then its owner is warned
    And these connections have these outcomes:
      | who                 | how         | outcome |
      | every Internet host | over TLS    | served  |
      | every app           | over TLS    | served  |
      | every Internet host | without TLS | denied  |
      | every app           | without TLS | denied  |

  @core @D-11
  Scenario: An ordinary rule warns nobody
    Given the database "search-dedicated" with its defaults
    When its owner adds the firewall rule "198.51.100.0/25"
    Then its owner is not warned
    And "office" over TLS is served

  @core @D-12
  Scenario: The 31st rule is refused and the 30 stay as they were
    Given the database "search-dedicated" with its defaults
    When its owner adds 30 firewall rules from "198.51.100.1/32" on
    Then "office" using 198.51.100.1 over TLS is served
    And "office" using 198.51.100.30 over TLS is served
    When its owner adds the firewall rule "198.51.100.31/32"
    Then the change is refused and nothing changed
    And these connections have these outcomes:
      | who                          | how      | outcome |
      | "office" using 198.51.100.1  | over TLS | served  |
      | "office" using 198.51.100.15 | over TLS | served  |
      | "office" using 198.51.100.30 | over TLS | served  |
      | "office" using 198.51.100.31 | over TLS | denied  |

  @core @D-15
  Scenario: A rule on one database opens no other, behind the same gateway or elsewhere
    Given the database "mongo-dedicated" with its defaults
    When its owner adds the firewall rule "198.51.100.0/25" and adds the managed range of "osc-fr1"
    Then these connections have these outcomes:
      | who                    | how      | outcome | by                    |
      | "office"               | over TLS | served  |                       |
      | every app of "osc-fr1" | over TLS | served  |                       |
      | "office"               | over TLS | denied  | by "pg-dedicated"     |
      | every app of "osc-fr1" | over TLS | denied  | by "pg-dedicated"     |
      | "office"               | over TLS | denied  | by "search-dedicated" |
      | every app of "osc-fr1" | over TLS | denied  | by "search-dedicated" |
