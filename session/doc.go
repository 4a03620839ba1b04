// Package session runs sessions: it opens them on a node's control channel, pairs
// and relays the data channels of client and agent, records what is shown, watches
// the clocks, and ends them, always with a cause.
package session
