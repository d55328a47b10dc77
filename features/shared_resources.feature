Feature: Shared Resources
  A container on a host shared with other databases, attached to its region's network.

  @core @S-01 @S-04 @S-05
  Scenario Outline: By default "<database>" (<engine>) serves its region's apps, over TLS and without
    Given the database "<database>" with its defaults
    Then every app of its region over TLS is served
    And every app of its region without TLS is served

    Examples:
      | database       | engine     |
      | pg-shared      | PostgreSQL |
      | my-shared      | MySQL      |
      | redis-shared   | Redis      |
      | metrics-shared | InfluxDB   |

  @core @S-02 @S-03
  Scenario Outline: By default "<database>" is closed to everybody else
    Given the database "<database>" with its defaults
    Then every Internet host is denied
    And every app of another region is denied

    Examples:
      | database       |
      | pg-shared      |
      | my-shared      |
      | redis-shared   |
      | metrics-shared |

  @core @S-11
  Scenario Outline: Direct Access: an ordinary <engine> driver connects straight to the endpoint
    Given the database "<database>" with its defaults
    Then every app of its region over TLS is served, and the database sees the app's own address

    Examples:
      | database       | engine     |
      | pg-shared      | PostgreSQL |
      | my-shared      | MySQL      |
      | redis-shared   | Redis      |
      | metrics-shared | InfluxDB   |

  @core @S-12
  Scenario: Opening a database leaves its neighbour on the same host and address as it was
    Given the database "my-shared" with its defaults
    When its owner turns Force TLS on and turns Internet accessibility on
    Then these connections have these outcomes:
      | who                      | how         | outcome | by             |
      | every Internet host      | over TLS    | served  |                |
      | every app of its region  | without TLS | denied  |                |
      | every Internet host      | over TLS    | denied  | by "pg-shared" |
      | every Internet host      | without TLS | denied  | by "pg-shared" |
      | every app of its region  | over TLS    | served  | by "pg-shared" |
      | every app of its region  | without TLS | served  | by "pg-shared" |
    When its owner turns Internet accessibility off and turns Force TLS off
    And the owner of "pg-shared" turns Force TLS on
    Then these connections have these outcomes:
      | who                      | how         | outcome | by             |
      | every app of its region  | without TLS | served  | by "my-shared" |
      | every app of its region  | without TLS | denied  | by "pg-shared" |
