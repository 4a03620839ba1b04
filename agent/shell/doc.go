// Package shell runs the programs of sessions on a node: a login shell or a command
// line on a pseudo-terminal of its own, or a plain command with separate output
// streams, as the operating-system user that the session document and the node's
// options decide.
//
// It promises that nothing of the agent's environment reaches a session, that no
// session runs as root unless the node's owner or the document's author asked for
// it, and that when a session is closed every process that stayed in it is gone, and on
// Linux every one that left it with its environment as well: only a program that both
// leaves the session and clears or overwrites its environment stays, as does what
// another program, such as systemd, starts on its behalf.
package shell
