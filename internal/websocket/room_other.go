//go:build !unix

package websocket

// writable is not known here.
func writable(uintptr) bool { return false }
