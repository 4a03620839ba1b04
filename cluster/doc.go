// Package cluster routes requests between the members of a deployment over NATS:
// a NATS server inside this process, without a port, where a member stands alone,
// or a NATS cluster that the members share.
//
// A request goes to one of the members that serve its subject, and says so at once
// when none does. A broadcast goes to all that listen, this member included, at most
// once: what must not be lost belongs in the store. Heartbeats tell the members of
// each other.
package cluster
