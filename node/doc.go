// Package node knows the machines: how they register, whether they are alive, and
// how they are picked by id, by fact and by tag. It does no I/O; the rows are the
// Store's.
package node
