// Package cluster routes requests between the members of a deployment over NATS:
// one that runs in this process where a member stands alone, or a NATS cluster.
package cluster
