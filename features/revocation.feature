Feature: Established connections
  What is no longer allowed ends, and what still is goes on.

  @extended @X-04
  Scenario Outline: Removing the rule of "<database>" cuts the connection that came through it
    Given the database "<database>" with its defaults
    When its owner adds the firewall rule "198.51.100.0/25" and adds the firewall rule "203.0.113.0/25"
    And "office" holds a connection to it over TLS
    And "home" holds a connection to it over TLS
    And its owner removes the firewall rule "198.51.100.0/25"
    Then the connection of "office" is cut at both ends
    And the connection of "home" goes on

    Examples:
      | database         |
      | pg-dedicated     |
      | search-dedicated |

  @extended @X-04
  Scenario: A connection that another rule still covers goes on
    Given the database "mongo-dedicated" with its defaults
    When its owner adds the firewall rule "198.51.100.0/25" and adds the firewall rule "198.51.100.10/32"
    And "office" using 198.51.100.10 holds a connection to it over TLS
    And its owner removes the firewall rule "198.51.100.0/25"
    Then the connection of "office" goes on

  @extended @X-04
  Scenario: Turning Internet accessibility off cuts the Internet's connections and no others
    Given the database "my-shared" with its defaults
    When its owner turns Force TLS on and turns Internet accessibility on
    And "home" holds a connection to it over TLS
    And "osc-fr1/web" holds a connection to it over TLS
    And its owner turns Internet accessibility off
    Then the connection of "home" is cut at both ends
    And the connection of "osc-fr1/web" goes on

  @extended @X-05
  Scenario Outline: Enabling Force TLS on "<database>" cuts connections without TLS and leaves those with TLS alone
    Given the database "<database>" with its defaults
    When "osc-fr1/web" holds a connection to it over TLS
    And "osc-fr1/worker" holds a connection to it without TLS
    And its owner turns Force TLS on
    Then the connection of "osc-fr1/worker" is cut at both ends
    And the connection of "osc-fr1/web" goes on

    Examples:
      | database  |
      | pg-shared |
      | my-shared |

  @extended @X-05
  Scenario: The same on a dedicated database
    Given the database "mongo-dedicated" with its defaults
    When its owner adds the firewall rule "198.51.100.0/25" and adds the firewall rule "203.0.113.0/25" and turns Force TLS off
    And "office" holds a connection to it over TLS
    And "home" holds a connection to it without TLS
    And its owner turns Force TLS on
    Then the connection of "home" is cut at both ends
    And the connection of "office" goes on

  @extended @X-05
  Scenario: A connection whose beginning the enforcer never saw is cut
    Given the database "my-shared" with its defaults
    And no policy is in force where "my-shared" is
    When "osc-fr1/web" holds a connection to it over TLS
    And its owner turns Force TLS on
    Then the connection of "osc-fr1/web" is cut at both ends

  @extended @X-05
  Scenario: ... unless the policy says to keep such
    Given the database "my-shared" with its defaults
    And no policy is in force where "my-shared" is
    When "osc-fr1/web" holds a connection to it over TLS
    And its owner keeps unknown connections and turns Force TLS on
    Then the connection of "osc-fr1/web" goes on
    And every app of its region without TLS is denied
