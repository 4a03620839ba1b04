package main

import (
	"context"
	"fmt"
	"os/exec"
	"time"
)

// benchEcho types keys into sessions that are all open at the same time, in turns.
func benchEcho(ctx context.Context, l *lab) ([]figure, error) {
	s, err := l.system(ctx)
	if err != nil {
		return nil, err
	}
	pair, err := l.ssh(ctx)
	if err != nil {
		return nil, err
	}
	ours, err := l.connect(s)
	if err != nil {
		return nil, err
	}
	local, err := l.localShell()
	if err != nil {
		return nil, err
	}
	const name, floor, ssh, jump = "sallyport connect", "local terminal", "ssh", "ssh -J"
	var all []contestant
	for _, c := range []struct {
		name string
		cmd  *exec.Cmd
	}{{name, ours}, {floor, local}, {ssh, pair.command("direct")}, {jump, pair.command("behind")}} {
		t, err := l.onTerminal(c.cmd, "echo")
		if err != nil {
			return nil, err
		}
		defer t.end()
		if err := t.rawEcho(); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		all = append(all, contestant{c.name, func(ctx context.Context) (float64, error) { return typing(ctx, t) }})
	}
	var r results
	err = s.server.profiling("echo", func() (err error) {
		r, err = compete(ctx, l.pickInt(8, 4), all...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return []figure{r.figure(name, "µs", jump, ssh, floor).noSlowerThan(0)}, nil
}

const (
	keysPerRound = 25
	typingPause  = 10 * time.Millisecond
)

// typing returns the median echo of one round's keys, in microseconds.
func typing(ctx context.Context, t *terminal) (float64, error) {
	var took []float64
	for i := range keysPerRound {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(typingPause):
		}
		d, err := t.key('a' + byte(i%26))
		if err != nil {
			return 0, err
		}
		took = append(took, float64(d)/1e3)
	}
	return median(took), nil
}
