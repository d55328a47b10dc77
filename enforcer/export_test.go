package enforcer

import "drawbridge/enforcer/nft"

// Lacking are options with which the kernel is said to lack features.
func Lacking(features ...nft.Feature) Options { return Options{lacking: features} }
