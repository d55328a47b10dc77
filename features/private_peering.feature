Feature: Private peering
  The private endpoint of a dedicated database exists over the peering only.

  @core @D-14
  Scenario: Without a rule the private endpoint serves nobody
    Given the database "pg-dedicated" with its defaults
    Then these connections have these outcomes:
      | who                  | how | outcome | by                              |
      | every host of "corp" |     | denied  | by its private peering endpoint |
      | "office"             |     | denied  | by its private peering endpoint |
      | "osc-fr1/web"        |     | denied  | by its private peering endpoint |

  @core @D-14 @D-04
  Scenario: A rule lets in its range of the peered network, over TLS
    Given the database "pg-dedicated" with its defaults
    When its owner adds the firewall rule "172.16.0.0/28"
    Then these connections have these outcomes:
      | who            | how         | outcome | by                              |
      | "corp/desk"    | over TLS    | served  | by its private peering endpoint |
      | "corp/desk"    | without TLS | denied  | by its private peering endpoint |
      | "corp/printer" | over TLS    | denied  | by its private peering endpoint |

  @core @D-14
  Scenario: Sources that a rule allows reach the private endpoint over the peering only
    Given the database "pg-dedicated" with its defaults
    When its owner adds the firewall rule "198.51.100.0/25" and adds the managed range of "osc-fr1"
    Then these connections have these outcomes:
      | who                    | how      | outcome | by                              |
      | "office"               | over TLS | served  |                                 |
      | every app of "osc-fr1" | over TLS | served  |                                 |
      | "office"               |          | denied  | by its private peering endpoint |
      | every app of "osc-fr1" |          | denied  | by its private peering endpoint |
      | every host of "corp"   |          | denied  | by its private peering endpoint |

  @core @D-14 @D-10
  Scenario: Removing the rule closes the private endpoint again
    Given the database "pg-dedicated" with its defaults
    When its owner adds the firewall rule "172.16.0.0/24"
    Then every host of "corp" over TLS is served by its private peering endpoint
    When its owner removes the firewall rule "172.16.0.0/24"
    Then every host of "corp" over TLS is denied by its private peering endpoint
