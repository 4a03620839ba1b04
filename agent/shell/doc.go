// Package shell runs the programs of sessions on a node: a login shell or a command
// line on a pseudo-terminal of its own, or a plain command with separate output
// streams, as the operating-system user that the session document and the node's
// options decide.
//
// It promises that nothing of the agent's environment, descriptors, signals or groups
// reaches a session, that no session runs as root unless the node's owner, the
// document's author or policy says so, and that when a session is closed every process
// that it started is gone: on Linux with control groups of version 2 whatever the process
// has done, save moving to another group, which takes root; without them, and on other
// systems, as far as the process stayed in its session or, on Linux, kept its
// environment. What another program, such as systemd, starts on a session's behalf is
// that program's.
package shell
