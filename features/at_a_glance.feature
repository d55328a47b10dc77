Feature: At a glance
  The table of SPEC.md, cell by cell.

  |                        | Shared Resources           | Dedicated Resources                          |
  |------------------------|----------------------------|----------------------------------------------|
  | Default reachability   | from the regional network  | from nowhere, neither internal nor public    |
  | Public Internet access | on/off, no source filtering | denied by default, only through the firewall |
  | Force TLS              | off by default             | on by default                                |

  Scenario Outline: <property> of <resources>: <cell>: <who> <how>
    Given the database "<database>" with its defaults
    When its owner <prepares>
    Then <who> <how> is <at first>
    When its owner <changes>
    Then <who> <how> is <afterwards>

    @core @S-01 @S-02
    Examples: Default reachability, Shared Resources
      | property             | resources        | cell                      | database  | prepares        | who                  | how      | at first | changes         | afterwards |
      | Default reachability | Shared Resources | from the regional network | my-shared | changes nothing | every app of its region | over TLS | served   | changes nothing | served     |
      | Default reachability | Shared Resources | from the regional network | my-shared | changes nothing | every Internet host  | over TLS | denied   | changes nothing | denied     |

    @core @D-01 @D-02
    Examples: Default reachability, Dedicated Resources
      | property             | resources           | cell                                      | database         | prepares        | who                     | how      | at first | changes         | afterwards |
      | Default reachability | Dedicated Resources | from nowhere, neither internal nor public | search-dedicated | changes nothing | every app of its region | over TLS | denied   | changes nothing | denied     |
      | Default reachability | Dedicated Resources | from nowhere, neither internal nor public | search-dedicated | changes nothing | every Internet host     | over TLS | denied   | changes nothing | denied     |

    @core @S-08
    Examples: Public Internet access, Shared Resources
      | property               | resources        | cell                        | database  | prepares             | who                 | how      | at first | changes                         | afterwards |
      | Public Internet access | Shared Resources | on/off, no source filtering | my-shared | turns Force TLS on   | every Internet host | over TLS | denied   | turns Internet accessibility on | served     |

    @core @D-02 @D-05
    Examples: Public Internet access, Dedicated Resources
      | property               | resources           | cell                                         | database         | prepares        | who      | how      | at first | changes                                    | afterwards |
      | Public Internet access | Dedicated Resources | denied by default, only through the firewall | search-dedicated | changes nothing | "office" | over TLS | denied   | adds the firewall rule "198.51.100.0/25"   | served     |
      | Public Internet access | Dedicated Resources | denied by default, only through the firewall | search-dedicated | changes nothing | "home"   | over TLS | denied   | adds the firewall rule "198.51.100.0/25"   | denied     |

    @core @S-05
    Examples: Force TLS, Shared Resources
      | property  | resources        | cell           | database  | prepares        | who                     | how         | at first | changes            | afterwards |
      | Force TLS | Shared Resources | off by default | my-shared | changes nothing | every app of its region | without TLS | served   | turns Force TLS on | denied     |

    @core @D-04
    Examples: Force TLS, Dedicated Resources
      | property  | resources           | cell          | database         | prepares                                 | who      | how         | at first | changes             | afterwards |
      | Force TLS | Dedicated Resources | on by default | search-dedicated | adds the firewall rule "198.51.100.0/25" | "office" | without TLS | denied   | turns Force TLS off | served     |
