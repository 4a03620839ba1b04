// Command sallyport-agent joins a machine to a Sallyport deployment as a node: it
// dials out to the server and runs the sessions that the server allows.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

func main() {
	// The agent idles on a few megabytes: collecting more often costs nothing that
	// could be noticed and keeps it there.
	debug.SetGCPercent(50)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	p := program{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv}
	status := p.run(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}
