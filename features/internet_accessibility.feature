Feature: Internet accessibility
  On or off, without source filtering, and never without Force TLS.

  @core @S-08 @S-07
  Scenario Outline: "<database>" is opened to the Internet and closed again
    Given the database "<database>" with its defaults
    When its owner turns Force TLS on, then turns Internet accessibility on
    Then these connections have these outcomes:
      | who                         | how         | outcome |
      | every Internet host         | over TLS    | served  |
      | every app of another region | over TLS    | served  |
      | every app of its region     | over TLS    | served  |
      | every Internet host         | without TLS | denied  |
    When its owner turns Internet accessibility off
    Then these connections have these outcomes:
      | who                         | how      | outcome |
      | every Internet host         | over TLS | denied  |
      | every app of another region | over TLS | denied  |
      | every app of its region     | over TLS | served  |

    Examples:
      | database       |
      | pg-shared      |
      | my-shared      |
      | redis-shared   |
      | metrics-shared |

  @core @S-08
  Scenario: There is no source filtering
    Given the database "my-shared" with its defaults
    When its owner turns Force TLS on and turns Internet accessibility on
    Then these connections have these outcomes:
      | who                             | how      | outcome |
      | "office" using 198.51.100.1     | over TLS | served  |
      | "office" using 198.51.100.126   | over TLS | served  |
      | "home" using 203.0.113.77       | over TLS | served  |
      | "stranger" using 192.0.2.5      | over TLS | served  |

  @core @S-09
  Scenario: Internet accessibility without Force TLS is refused
    Given the database "my-shared" with its defaults
    When its owner turns Internet accessibility on
    Then the change is refused and nothing changed
    And every Internet host is denied

  @core @S-09
  Scenario: Disabling Force TLS while Internet accessibility is on is refused
    Given the database "my-shared" with its defaults
    When its owner turns Force TLS on and turns Internet accessibility on
    And its owner turns Force TLS off
    Then the change is refused and nothing changed
    And every Internet host over TLS is served
    And every Internet host without TLS is denied
    And every app of its region without TLS is denied

  @core @S-10
  Scenario: A firewall rule on a shared database is refused
    Given the database "my-shared" with its defaults
    When its owner adds the firewall rule "198.51.100.0/25"
    Then the change is refused and nothing changed
    And "office" is denied

  @core @S-10
  Scenario: Internet accessibility on a dedicated database is refused
    Given the database "search-dedicated" with its defaults
    When its owner turns Internet accessibility on
    Then the change is refused and nothing changed
    And every Internet host is denied
