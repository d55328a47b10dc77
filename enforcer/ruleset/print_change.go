package ruleset

import "fmt"

// PrintChange writes a change as nft(8) commands, one a line, in the order in which they are carried out. It is for
// people: sets and chains that are new are named, not spelled out; Print shows them.
func PrintChange(c Change) []string {
	var out []string
	command := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if c.CreateTable {
		command("add table %s %s", c.Family, c.Table)
	}
	for _, name := range c.FlushChains {
		command("flush chain %s %s %s", c.Family, c.Table, name)
	}
	elements := func(verb string, of []SetElements) {
		for _, e := range of {
			for _, element := range e.Elements {
				command("%s element %s %s %s { %s }", verb, c.Family, c.Table, e.Set.Name, PrintElement(e.Set, element))
			}
		}
	}
	elements("delete", c.DeleteElements)
	for _, name := range c.DeleteSets {
		command("delete set %s %s %s", c.Family, c.Table, name)
	}
	for _, name := range c.DeleteChains {
		command("delete chain %s %s %s", c.Family, c.Table, name)
	}
	for _, s := range c.AddSets {
		command("add set %s %s %s", c.Family, c.Table, s.Name)
	}
	for _, chain := range c.AddChains {
		command("add chain %s %s %s", c.Family, c.Table, chain.Name)
	}
	elements("add", c.AddElements)
	for _, r := range c.AddRules {
		for _, rule := range r.Rules {
			command("add rule %s %s %s %s", c.Family, c.Table, r.Chain, PrintRule(rule))
		}
	}
	return out
}
