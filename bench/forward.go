package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// forwardPeer is one way to a target, with the processes that it consists of.
type forwardPeer struct {
	name    string
	address string
	pids    []int // with all that they start
}

// forwards are all ways to one target.
type forwards struct {
	target            string
	direct            forwardPeer // no way at all
	ours, relay, l, j forwardPeer
}

func (f *forwards) all() []forwardPeer { return []forwardPeer{f.ours, f.relay, f.l, f.j} }

const (
	wayOurs, wayRelay, wayL, wayJ = "sallyport tunnel", "splicing relay", "ssh -L", "ssh -J -L"
	wayDirect                     = "no forward"
)

func loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// benchForward measures forwards: how fast they carry, at which cost, and how quickly
// they answer.
func benchForward(ctx context.Context, l *lab) ([]figure, error) {
	f, err := l.forwards(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range f.all() {
		if err := proveIntact(p.address, 50<<20); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	var figures []figure
	for _, part := range []func(context.Context, *lab, *forwards) ([]figure, error){speeds, quickness, distance} {
		more, err := part(ctx, l, f)
		if err != nil {
			return figures, err
		}
		figures = append(figures, more...)
	}
	return figures, nil
}

// forwards starts every peer.
func (l *lab) forwards(ctx context.Context) (*forwards, error) {
	ends, err := l.child("forward")
	if err != nil {
		return nil, err
	}
	var port int
	if err := ends.ask("target", nil, &port); err != nil {
		return nil, err
	}
	f := &forwards{target: loopback(port), direct: forwardPeer{name: wayDirect, address: loopback(port)}}
	if f.relay, err = l.relay(f.target); err != nil {
		return nil, err
	}
	s, err := l.system(ctx)
	if err != nil {
		return nil, err
	}
	if f.ours, err = l.tunnel(ctx, s, s.agent, port); err != nil {
		return nil, err
	}
	pair, err := l.ssh(ctx)
	if err != nil {
		return nil, err
	}
	if f.l, err = l.sshForward(ctx, wayL, port, pair, pair.command("-N", "direct"), pair.daemon[1]); err != nil {
		return nil, err
	}
	f.j, err = l.sshForward(ctx, wayJ, port, pair, pair.command("-N", "behind"), pair.daemon[0], pair.daemon[1])
	return f, err
}

func (l *lab) relay(target string) (forwardPeer, error) {
	c, err := l.child("forward")
	if err != nil {
		return forwardPeer{}, err
	}
	var port int
	err = c.ask("relay", target, &port)
	return forwardPeer{wayRelay, loopback(port), []int{c.cmd.Process.Pid}}, err
}

// tunnel runs the client's program.
func (l *lab) tunnel(ctx context.Context, s *system, agent *started, port int) (forwardPeer, error) {
	program, err := l.program("sallyport")
	if err != nil {
		return forwardPeer{}, err
	}
	local, err := freePort()
	if err != nil {
		return forwardPeer{}, err
	}
	cmd := exec.Command(program, "tunnel", s.node, fmt.Sprintf("%d:%d", local, port))
	cmd.Env = append(cleanEnv(), s.env()...)
	t, err := l.start(cmd, "tunnel")
	if err != nil {
		return forwardPeer{}, err
	}
	pids := []int{t.cmd.Process.Pid, s.server.cmd.Process.Pid, agent.cmd.Process.Pid}
	return forwardPeer{wayOurs, loopback(local), pids}, t.maybeWhy(answers(ctx, loopback(local)))
}

// sshForward runs a forward of ssh's.
func (l *lab) sshForward(ctx context.Context, name string, port int, pair *sshPair, cmd *exec.Cmd, daemons ...*started) (forwardPeer, error) {
	local, err := freePort()
	if err != nil {
		return forwardPeer{}, err
	}
	last := len(cmd.Args) - 1
	cmd.Args = append(append(cmd.Args[:last:last], "-L", fmt.Sprintf("%d:127.0.0.1:%d", local, port)), cmd.Args[last])
	s, err := l.start(cmd, "ssh")
	if err != nil {
		return forwardPeer{}, err
	}
	p := forwardPeer{name, loopback(local), []int{s.cmd.Process.Pid}}
	for _, d := range daemons {
		p.pids = append(p.pids, d.cmd.Process.Pid)
	}
	return p, s.maybeWhy(answers(ctx, p.address))
}

// answers waits until the target answers through a forward.
func answers(ctx context.Context, address string) error {
	var last error
	err := until(ctx, patience, "the forward at "+address, func() bool {
		_, last = bounces(address, 1)
		return last == nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", err, last)
	}
	return nil
}

// speeds measures the throughput of each way, and the processor time that it takes.
func speeds(ctx context.Context, l *lab, f *forwards) ([]figure, error) {
	var figures []figure
	n := int64(l.pickInt(500, 200)) << 20
	for _, test := range []struct {
		name        string
		what        byte
		conns       int
		jump, relay float64 // aims, as ratios
	}{
		{"one stream up", orderTake, 1, 2, 0.3},
		{"one stream down", orderGive, 1, 2, 0.3},
		{"sixteen up", orderTake, 16, 3, 0},
		{"sixteen down", orderGive, 16, 3, 0},
	} {
		cost := results{}
		var all []contestant
		for _, p := range f.all() {
			all = append(all, contestant{p.name, func(ctx context.Context) (float64, error) {
				before := p.processor()
				seconds, err := transfer(ctx, p.address, test.what, test.conns, n)
				cost[p.name] = append(cost[p.name], (p.processor()-before)/float64(n)*1e9)
				return float64(n) / 1e6 / seconds, err
			}})
		}
		r, err := l.profiled(ctx, "forward", func() (results, error) { return compete(ctx, l.pickInt(6, 3), all...) })
		if err != nil {
			return figures, fmt.Errorf("%s: %w", test.name, err)
		}
		for name := range cost {
			cost[name] = cost[name][1:] // the round that does not count
		}
		speed := r.figure(wayOurs, "MB/s", wayJ, wayRelay, wayL).atLeastTimes(test.jump, test.relay)
		speed.name = test.name
		work := cost.figure(wayOurs, "CPU-s/GB", wayJ, wayRelay, wayL).atMost(2, "2")
		work.name = test.name + ", all processes"
		figures = append(figures, speed, work)
	}
	return figures, nil
}

// profiled runs f with profiles of the server, if wanted.
func (l *lab) profiled(_ context.Context, name string, f func() (results, error)) (r results, err error) {
	err = l.server.server.profiling(name, func() (err error) {
		r, err = f()
		return err
	})
	return r, err
}

// atLeastTimes sets the aim to multiples of the first peers; 0 is no aim.
func (f figure) atLeastTimes(times ...float64) figure {
	var aims []string
	f.met = true
	for i, t := range times {
		if t > 0 {
			aims = append(aims, fmt.Sprintf("%.3g × %s", t, f.peers[i].name))
			f.met = f.met && f.peers[i].ratio >= t
		}
	}
	f.aim = strings.Join(aims, ", ")
	return f
}

// quickness measures new connections and echoes.
func quickness(ctx context.Context, l *lab, f *forwards) ([]figure, error) {
	fresh, echo := []contestant{}, []contestant{}
	for _, p := range append(f.all(), f.direct) {
		fresh = append(fresh, contestant{p.name, func(context.Context) (float64, error) { return newConnections(p.address, 200) }})
		echo = append(echo, contestant{p.name, func(context.Context) (float64, error) { return bounces(p.address, 400) }})
	}
	rounds := l.pickInt(6, 3)
	r, err := compete(ctx, rounds, fresh...)
	if err != nil {
		return nil, fmt.Errorf("new connections: %w", err)
	}
	first := r.figure(wayOurs, "ms", wayJ, wayL, wayRelay).noSlowerThan(0)
	first.name = "new connection to first byte back"
	if r, err = compete(ctx, rounds, echo...); err != nil {
		return nil, fmt.Errorf("echoes: %w", err)
	}
	for _, p := range f.all() {
		r.minus("over raw: "+p.name, p.name, wayDirect)
	}
	second := r.figure("over raw: "+wayOurs, "µs", "over raw: "+wayJ, "over raw: "+wayL, "over raw: "+wayRelay).noSlowerThan(0)
	second.name = "echo of one byte, over raw TCP"
	return []figure{first, second}, nil
}

// oneWay is half of the emulated round trip.
const oneWay = 20 * time.Millisecond

// distance measures one stream while server and node are 40 ms apart.
func distance(ctx context.Context, l *lab, f *forwards) ([]figure, error) {
	far, err := l.farForwards(ctx, f)
	if err != nil {
		return nil, err
	}
	var figures []figure
	n := int64(l.pickInt(200, 100)) << 20
	for _, test := range []struct {
		name string
		what byte
	}{{"one stream up, 40 ms round trip", orderTake}, {"one stream down, 40 ms round trip", orderGive}} {
		var all []contestant
		for _, p := range far {
			all = append(all, contestant{p.name, func(ctx context.Context) (float64, error) {
				seconds, err := transfer(ctx, p.address, test.what, 1, n)
				return float64(n) / 1e6 / seconds, err
			}})
		}
		r, err := compete(ctx, 2, all...)
		if err != nil {
			return figures, fmt.Errorf("%s: %w", test.name, err)
		}
		speed := r.figure(wayOurs, "MB/s", wayL, wayRelay).atLeastTimes(5)
		speed.name = test.name
		figures = append(figures, speed)
	}
	var all []contestant
	for _, p := range far {
		all = append(all, contestant{p.name, func(context.Context) (float64, error) { return newConnections(p.address, 5) }})
	}
	r, err := compete(ctx, 2, all...)
	if err != nil {
		return figures, err
	}
	first := r.figure(wayOurs, "ms", wayL, wayRelay)
	first.name = "new connection, 40 ms round trip"
	return append(figures, first), nil
}

// farForwards is a node, an sshd and a target that are far away.
func (l *lab) farForwards(ctx context.Context, f *forwards) ([]forwardPeer, error) {
	pipe, err := l.child("forward")
	if err != nil {
		return nil, err
	}
	far := func(to string) (port int, err error) {
		err = pipe.ask("pipe", slowPipe{To: to, Delay: oneWay}, &port)
		return port, err
	}
	toTarget, err := far(f.target)
	if err != nil {
		return nil, err
	}
	relay, err := l.relay(loopback(toTarget))
	if err != nil {
		return nil, err
	}
	ours, err := l.farTunnel(ctx, f, far)
	if err != nil {
		return nil, err
	}
	daemon, err := far(loopback(l.jump.ports[1]))
	if err != nil {
		return nil, err
	}
	_, targetPort, _ := net.SplitHostPort(f.target)
	port, err := strconv.Atoi(targetPort)
	if err != nil {
		return nil, err
	}
	cmd := l.jump.command("-N", "-p", strconv.Itoa(daemon), "direct")
	ssh, err := l.sshForward(ctx, wayL, port, l.jump, cmd)
	return []forwardPeer{ours, relay, ssh}, err
}

// farTunnel is a tunnel to a node that reaches the server over a long link.
func (l *lab) farTunnel(ctx context.Context, f *forwards, far func(string) (int, error)) (forwardPeer, error) {
	s := *l.server
	s.node = "i-08f2a2d1c5be07f44"
	_, address, _ := strings.Cut(s.URL, "://")
	port, err := far(address)
	if err != nil {
		return forwardPeer{}, err
	}
	near := s.access.URL
	s.access.URL = "https://" + loopback(port)
	agent, err := l.startAgent(&s, l.path("far-agent"))
	if err != nil {
		return forwardPeer{}, err
	}
	s.agent, s.access.URL = agent, near
	if err := s.awaitNode(ctx); err != nil {
		return forwardPeer{}, err
	}
	_, targetPort, _ := net.SplitHostPort(f.target)
	target, err := strconv.Atoi(targetPort)
	if err != nil {
		return forwardPeer{}, err
	}
	return l.tunnel(ctx, &s, agent, target)
}

// processor returns the seconds of processor time that the peer's processes have used.
func (p forwardPeer) processor() float64 {
	var sum float64
	for _, pid := range p.pids {
		for _, id := range append(children(pid), pid) {
			sum += processorOf(id)
		}
	}
	return sum
}

// ticksPerSecond is the unit of /proc/PID/stat, the same on all of Go's Linux platforms.
const ticksPerSecond = 100

func processorOf(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / ticksPerSecond
}
