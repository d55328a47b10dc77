Feature: Force TLS
  What a port number cannot say, the client's first bytes do.

  @core @S-04 @S-05 @S-06
  Scenario Outline: With Force TLS on, "<database>" (<engine>) serves its region over TLS only
    Given the database "<database>" with its defaults
    When its owner turns Force TLS on
    Then every app of its region over TLS is served
    And every app of its region without TLS is denied
    When its owner turns Force TLS off
    Then every app of its region over TLS is served
    And every app of its region without TLS is served

    Examples:
      | database       | engine     |
      | pg-shared      | PostgreSQL |
      | my-shared      | MySQL      |
      | redis-shared   | Redis      |
      | metrics-shared | InfluxDB   |

  @core @S-06
  Scenario Outline: A client without TLS that "<database>" (<engine>) refused stays refused
    Given the database "<database>" with its defaults
    When its owner turns Force TLS on
    Then every app of its region without TLS is denied
    And all that was denied stays denied when its clients try again

    Examples:
      | database  | engine     |
      | pg-shared | PostgreSQL |
      | my-shared | MySQL      |

  @core @S-07
  Scenario Outline: With Internet accessibility, "<database>" (<engine>) serves the Internet over TLS only
    Given the database "<database>" with its defaults
    When its owner turns Force TLS on and turns Internet accessibility on
    Then every Internet host over TLS is served
    And every Internet host without TLS is denied

    Examples:
      | database       | engine     |
      | pg-shared      | PostgreSQL |
      | my-shared      | MySQL      |
      | redis-shared   | Redis      |
      | metrics-shared | InfluxDB   |

  @core @D-04
  Scenario Outline: By default "<database>" (<engine>) serves allowed sources over TLS only
    Given the database "<database>" with its defaults
    When its owner adds the firewall rule "198.51.100.0/25"
    Then "office" over TLS is served
    And "office" without TLS is denied
    When its owner turns Force TLS off
    Then "office" over TLS is served
    And "office" without TLS is served
    When its owner turns Force TLS on
    Then "office" over TLS is served
    And "office" without TLS is denied

    Examples:
      | database         | engine     |
      | pg-dedicated     | PostgreSQL |
      | mongo-dedicated  | MongoDB    |
      | search-dedicated | OpenSearch |

  @core @D-04 @D-05
  Scenario: Force TLS off opens nothing to sources that no rule covers
    Given the database "search-dedicated" with its defaults
    When its owner turns Force TLS off
    Then every Internet host is denied
    And every app is denied
