Feature: Managed ranges
  A named set of networks that the platform keeps up to date.

  @core @D-06 @D-07
  Scenario Outline: The managed range of "<region>" lets in any app of that region and nobody else
    Given the database "<database>" with its defaults
    When its owner adds the managed range of "<region>"
    Then these connections have these outcomes:
      | who                     | how         | outcome |
      | every app of "<region>" | over TLS    | served  |
      | every app of "<region>" | without TLS | denied  |
      | every app of "<other>"  | over TLS    | denied  |
      | every Internet host     | over TLS    | denied  |

    Examples:
      | database         | region         | other          |
      | pg-dedicated     | osc-fr1        | osc-secnum-fr1 |
      | search-dedicated | osc-secnum-fr1 | osc-fr1        |

  @core @D-08
  Scenario: A database of one region accepts the apps of another once their managed range is there
    Given the database "search-dedicated" with its defaults
    Then every app of "osc-fr1" over TLS is denied
    When its owner adds the managed range of "osc-fr1"
    Then every app of "osc-fr1" over TLS is served
    And every app of its region over TLS is denied
    When its owner removes the managed range of "osc-fr1"
    Then every app of "osc-fr1" over TLS is denied

  @core @D-13
  Scenario: Reachability follows a managed range, with no change to any rule
    Given the database "search-dedicated" with its defaults
    When its owner adds the managed range of "osc-fr1"
    Then every app of "osc-fr1" over TLS is served
    When the platform moves the egress address 192.0.2.129 of "osc-fr1" to 192.0.2.131
    Then "osc-fr1/web" over TLS is denied
    And "osc-fr1/worker" over TLS is served
    When the platform updates the managed range of "osc-fr1"
    Then every app of "osc-fr1" over TLS is served
    And every app of "osc-secnum-fr1" over TLS is denied
    And every Internet host over TLS is denied
    When the platform moves the egress address 192.0.2.129 of "osc-fr1" back
    Then "osc-fr1/web" over TLS is denied
    And "osc-fr1/worker" over TLS is served
