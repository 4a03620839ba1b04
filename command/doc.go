// Package command runs documents on many nodes (Run Command): it keeps commands and
// what they came to on each node, and sends, repeats, times out and cancels them,
// whichever member a node is connected to and whichever members come and go.
package command
