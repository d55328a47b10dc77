package mutant

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"drawbridge/features/driver"
)

// afterwards are mutants that do as they must at first, and something else once the suite has looked.
func afterwards() []Mutant {
	return []Mutant{
		{
			Name: "opens half a second later", Breaks: "what is denied at first is let in after 500 ms",
			Statement: "D-10", Tags: "@D-10", call: laterOn(func(Door) ([]byte, error) { return nil, nil }),
		},
		{
			Name: "leaks after a revoke", Breaks: "a removed rule comes back after 500 ms",
			Statement: "D-10", Tags: "@D-10", call: laterOn(func(Door) ([]byte, error) {
				text, err := os.ReadFile(previousFile)
				if errors.Is(err, fs.ErrNotExist) {
					return os.ReadFile(laterFile)
				}
				return text, err
			}),
		},
	}
}

// previousFile holds the policy before the one in laterFile.
const previousFile = "previous"

// laterOn brings every policy into force as it must, and half a second later what instead returns: nothing means that all is let in. A policy
// that was replaced meanwhile is left alone, as its own time will come.
func laterOn(instead func(Door) ([]byte, error)) func(d Door, verb string, in []byte) Answer {
	return func(d Door, verb string, in []byte) Answer {
		switch verb {
		case "apply":
			a := d.Next(verb, in)
			if a.Status != 0 {
				return a
			}
			if err := errors.Join(shelve(in), d.Later()); err != nil {
				return broken(err)
			}
			return a
		case Later:
			return later(d, instead)
		case "reset":
			if err := errors.Join(forget(laterFile), forget(previousFile)); err != nil {
				return broken(err)
			}
		}
		return d.Next(verb, in)
	}
}

func later(d Door, instead func(Door) ([]byte, error)) Answer {
	mine, err := os.ReadFile(laterFile)
	if err != nil {
		return broken(err)
	}
	<-time.After(lateness)
	if now, err := os.ReadFile(laterFile); err != nil || string(now) != string(mine) {
		return Answer{}
	}
	policy, err := instead(d)
	if err != nil {
		return broken(err)
	}
	if policy == nil {
		doc, err := decode(mine)
		if err != nil {
			return broken(err)
		}
		openAll(doc)
		if policy, err = doc.Encode(); err != nil {
			return broken(err)
		}
	}
	return d.Next("apply", policy)
}

// shelve keeps a policy, and the one before it.
func shelve(policy []byte) error {
	if err := os.Rename(laterFile, previousFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(laterFile, policy, 0o600)
}

func forget(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// openAll lets everybody in, as far as a policy can: over TLS.
func openAll(doc *driver.Document) {
	for i := range doc.Databases {
		d := &doc.Databases[i]
		if isDedicated(d) {
			d.FirewallRules = []driver.Rule{custom(everybody4), custom(everybody6)}
			continue
		}
		d.ForceTLS, d.InternetAccessibility = set(true), set(true)
	}
}
