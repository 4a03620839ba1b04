// Package server is the API: it authenticates, authorises, audits and runs
// operations, speaks AWS JSON 1.1 and AWS Query, takes the channels of agents and
// clients, and maps errors to AWS exceptions.
package server
