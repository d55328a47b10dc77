// Package daemon keeps a policy in force: it follows the policy's file, holds the kernel's tables so that nobody else can
// change them, mends them where the kernel cannot prevent that, and says what it did. It starts no rule of its own; all
// that decides about packets is in package enforcer and stands in the kernel, also while no daemon runs.
//
// One goroutine owns the session with the kernel. What happens reaches it as events: the file changed, somebody asked
// for it to be read again, somebody else changed the ruleset. Events that come within a few milliseconds of each other
// become one transaction.
package daemon
