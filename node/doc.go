// Package node knows the machines: their registration by activation, their keys,
// facts, tags, and whether they are connected.
package node
