//go:build !amd64 && !arm64

package soleuser

const arch = 0

var calls []call
