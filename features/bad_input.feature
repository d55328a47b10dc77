Feature: Bad input
  A policy that does not make sense is refused, with the place and the reason, and what was in force stays in force.

  @extended @X-11
  Scenario Outline: Bad policies are refused where "<database>" is, and change nothing
    Given the database "<database>" with its defaults
    When its owner <opens>
    Then each of these mistakes in its policy is refused, naming its place, and nothing changes:
      | mistake                         | place      |
      | unknown member                  | frobnicate |
      | unknown member of a database    | frobnicate |
      | member that is missing          | engine     |
      | member that is there twice      | version    |
      | another version                 | version    |
      | wrong family                    | endpoints  |
      | port that does not exist        | port       |
      | database that is there twice    | databases  |
      | region with host bits set       | region     |
      | truncated                       |            |
      | nothing at all                  |            |
      | no JSON                         |            |
      | second document behind it       |            |
      | rule on a shared database       | rule       |
      | unknown member of a rule        | frobnicate |
      | rule with host bits set         | cidr       |
      | rule that is there twice        | rule       |
      | rule of an unknown managed range | rule      |
      | one rule too many               | rule       |
      | Internet accessibility of a dedicated database | internet_accessibility |

    Examples:
      | database     | opens                                                  |
      | my-shared    | turns Force TLS on and turns Internet accessibility on |
      | pg-dedicated | adds the firewall rule "198.51.100.0/25"               |
