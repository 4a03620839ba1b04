// Package agent is Sallyport's end on a node: it registers the machine, keeps a
// control channel open to the server, and runs the sessions that the server asks
// for, each over a data channel of its own.
//
// It only ever dials out. Several agents can run in one process, each with its own
// state directory. It promises that a session's bytes arrive once and in order
// however often its link breaks, that its memory per session is bounded, and that no
// program of a session outlives the session or the agent.
package agent
