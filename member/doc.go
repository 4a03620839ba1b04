// Package member is one server process: it puts store, cluster, audit, access,
// gateway and API together, listens, and takes it all down again in order.
package member
