Feature: Clusters
  The nodes of a cluster talk to each other over TLS, whatever Force TLS says, and nobody else joins in.

  @core @C-01
  Scenario Outline: Node-to-node traffic of "<database>" is encrypted with Force TLS off
    Given the database "<database>" with its defaults
    When its owner turns Force TLS off
    And the node "<database>-2" replicates a marker to the node "<database>-1", without TLS if it may
    Then the capture between them shows that traffic but not the marker

    Examples:
      | database     |
      | redis-shared |
      | pg-dedicated |

  @core @C-02
  Scenario Outline: Node-to-node traffic of "<database>" is encrypted with Force TLS on
    Given the database "<database>" with its defaults
    When its owner turns Force TLS on
    And the node "<database>-3" replicates a marker to the node "<database>-1", without TLS if it may
    Then the capture between them shows that traffic but not the marker

    Examples:
      | database     |
      | redis-shared |
      | pg-dedicated |

  @core @C-03 @C-01 @C-02
  Scenario Outline: Between the nodes of "<database>", TLS is required with Force TLS <force>
    Given the database "<database>" with its defaults
    When its owner turns Force TLS <force>
    Then every node of "<database>" over TLS is served by the other nodes
    And every node of "<database>" without TLS is denied by the other nodes

    Examples:
      | database     | force |
      | redis-shared | off   |
      | redis-shared | on    |
      | pg-dedicated | off   |
      | pg-dedicated | on    |

  @core @C-03
  Scenario: On a port that clients and nodes share, the source decides
    Given the database "redis-shared" with its defaults
    Then every app of its region without TLS is served
    And every node of "redis-shared" without TLS is denied by the other nodes

  @core @C-04
  Scenario: No client reaches a port that only the nodes of a shared cluster use
    Given the database "redis-shared" with its defaults
    When its owner turns Force TLS on and turns Internet accessibility on
    Then these connections have these outcomes:
      | who                         | how      | outcome | by                         |
      | "office"                    | over TLS | served  |                            |
      | every Internet host         | over TLS | denied  | by the nodes' own ports    |
      | every app                   | over TLS | denied  | by the nodes' own ports    |
      | every node of "redis-shared" | over TLS | served  | by the other nodes         |

  @core @C-04
  Scenario: No client reaches a port that only the nodes of a dedicated cluster use
    Given the database "pg-dedicated" with its defaults
    When its owner adds the firewall rule "0.0.0.0/0"
    Then these connections have these outcomes:
      | who                         | how      | outcome | by                         |
      | "office"                    | over TLS | served  |                            |
      | every Internet host         | over TLS | denied  | by the nodes' own ports    |
      | every app                   | over TLS | denied  | by the nodes' own ports    |
      | every host of "corp"        | over TLS | denied  | by the nodes' own ports    |
      | "mongo-dedicated-1"         | over TLS | denied  | by the nodes' own ports    |
