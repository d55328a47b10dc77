Feature: Forged sources and floods
  Whoever claims somebody else's address gets nothing from it, and a flood takes nothing from anybody it is not part of.

  @extended @X-03
  Scenario Outline: An Internet host claims addresses that "<database>" lets in
    The regional network has an interface of its own on a shared host, and nothing in its name gets in from the Internet. What comes from another
    Internet host looks as it must, but the answers go to whose address it is.

    Given the database "<database>" with its defaults
    And no policy is in force where "<database>" is
    Then from "stranger" forged packets reach it, in the names of:
      | name         |
      | 10.10.0.2    |
      | 198.51.100.7 |
    When its owner <opens it>
    Then none of them opens a connection or delivers a byte, and the packets:
      | name         | packets     |
      | 10.10.0.2    | <regional>  |
      | 198.51.100.7 | <of office> |

    Examples:
      | database         | opens it                                                         | regional    | of office   |
      | pg-shared        | turns Force TLS off                                              | get nowhere | get nowhere |
      | my-shared        | turns Force TLS on and turns Internet accessibility on           | may pass    | may pass    |
      | pg-dedicated     | adds the firewall rule "198.51.100.0/28"                         | get nowhere | may pass    |
      | search-dedicated | adds the firewall rule "198.51.100.0/28"                         | get nowhere | may pass    |
      | mongo-dedicated  | adds the firewall rule "198.51.100.0/28" and turns Force TLS off | get nowhere | may pass    |

  @extended @X-10
  Scenario Outline: "<database>" is flooded by somebody who is denied
    Nobody else notices, and the flood leaves nothing behind in connection tracking.

    Given the database "<database>" with its defaults
    When its owner <opens it>
    And these are tried all the time:
      | who             | how      | tries   |
      | "<let in>"      | over TLS | its SYN |
      | "stranger"      | over TLS | its SYN |
    And "home" floods it with 10000 connection attempts that are denied
    Then each of them fared as the policy before or after a change has it
    And none of them waited longer for it

    Examples:
      | database     | opens it                                 | let in      |
      | my-shared    | turns Force TLS on                       | osc-fr1/web |
      | pg-dedicated | adds the firewall rule "198.51.100.0/25" | office      |

  @extended @X-10
  Scenario: A flood that is let in at one database changes nothing for its neighbour
    Given the database "mongo-dedicated" with its defaults
    When the owner of "pg-dedicated" adds the firewall rule "203.0.113.0/25"
    And its owner adds the firewall rule "198.51.100.0/25"
    And these are tried all the time:
      | who        | how      | tries   |
      | "office"   | over TLS | its SYN |
      | "stranger" | over TLS | its SYN |
    And "home" floods "pg-dedicated" with 10000 connection attempts that are let in
    Then each of them fared as the policy before or after a change has it
    And none of them waited longer for it
