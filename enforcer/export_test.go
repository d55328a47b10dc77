package enforcer

import "drawbridge/enforcer/nft"

// Lacking are options with which the kernel is said to lack features.
func Lacking(features ...nft.Feature) Options { return Options{lacking: features} }

// SawLast has the session know of no later generation than this one.
func (s *Session) SawLast(generation uint32) { s.main.wrote.saw(generation) }
