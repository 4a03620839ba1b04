package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/google/uuid"

	"sallyport.dev/internal/ca"
)

// benchMemory measures what stays in memory, in KB (1,000 bytes), when nothing
// happens. Rounds would only repeat it: memory at rest does not swing as times do.
func benchMemory(ctx context.Context, l *lab) ([]figure, error) {
	pair, err := l.ssh(ctx)
	if err != nil {
		return nil, err
	}
	sshd, err := l.sshMemory(ctx, pair)
	if err != nil {
		return nil, fmt.Errorf("ssh: %w", err)
	}
	shells, err := l.shellMemory(ctx, sshd)
	if err != nil {
		return shells, fmt.Errorf("shells: %w", err)
	}
	nodes, err := l.nodeMemory(ctx, sshd)
	if err != nil {
		err = fmt.Errorf("nodes: %w", err)
	}
	return append(nodes, shells...), err
}

// sshUse is what OpenSSH takes, in KB of proportional set size.
type sshUse struct {
	tunnelServer, tunnelClient float64 // per idle ssh -N -R, at either end
	jump, target               float64 // per idle shell through a jump host, without the shell
}

func (l *lab) sshMemory(ctx context.Context, pair *sshPair) (sshUse, error) {
	const count = 10
	var use sshUse
	tunnels, err := l.several(ctx, count, pair.daemon[1], func() *exec.Cmd {
		return pair.command("-N", "-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:0:127.0.0.1:9", "direct")
	})
	if err != nil {
		return use, err
	}
	use.tunnelServer = sshdMemory(pair.daemon[1]) / count
	for _, t := range tunnels {
		pss, err := smaps(t.cmd.Process.Pid, "Pss")
		if err != nil {
			return use, err
		}
		use.tunnelClient += kb(pss) / count
		t.stop()
	}
	shells, err := l.several(ctx, count, pair.daemon[1], func() *exec.Cmd { return pair.command("-tt", "behind") })
	use.jump, use.target = sshdMemory(pair.daemon[0])/count, sshdMemory(pair.daemon[1])/count
	for _, s := range shells {
		s.stop()
	}
	return use, err
}

// several starts clients and waits until the daemon serves each.
func (l *lab) several(ctx context.Context, count int, daemon *started, command func() *exec.Cmd) ([]*started, error) {
	err := until(ctx, patience, "earlier connections to end", func() bool { return len(children(daemon.cmd.Process.Pid)) == 0 })
	if err != nil {
		return nil, err
	}
	var all []*started
	for range count {
		cmd := command()
		if _, err := cmd.StdinPipe(); err != nil {
			return all, err
		}
		s, err := l.start(cmd, "ssh")
		if err != nil {
			return all, err
		}
		all = append(all, s)
	}
	served := func() bool {
		n := 0
		for _, pid := range children(daemon.cmd.Process.Pid) {
			if t := title(pid); strings.HasPrefix(t, "sshd: ") && !strings.Contains(t, "[") {
				n++
			}
		}
		return n >= count
	}
	if err := until(ctx, patience, "sshd to serve all", served); err != nil {
		return all, err
	}
	time.Sleep(time.Second) // for what it still sets up and frees
	return all, nil
}

// title is a process's command line, which sshd uses to tell what it is doing.
func title(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.TrimRight(strings.ReplaceAll(string(b), "\x00", " "), " ")
}

// sshdMemory sums up the daemon's processes for connections, without their shells.
func sshdMemory(daemon *started) float64 {
	var sum float64
	for _, pid := range children(daemon.cmd.Process.Pid) {
		if !strings.HasPrefix(title(pid), "sshd") {
			continue
		}
		if pss, err := smaps(pid, "Pss"); err == nil { // it may have gone
			sum += kb(pss)
		}
	}
	return sum
}

// kb turns KiB into KB.
func kb(kib float64) float64 { return kib * 1.024 }

// shellMemory opens idle shells on the node of the shared system.
func (l *lab) shellMemory(ctx context.Context, ssh sshUse) ([]figure, error) {
	s, err := l.newSystem(ctx, "idle-shells")
	if err != nil {
		return nil, err
	}
	defer s.server.end()
	defer s.agent.stop()
	people, err := l.child("people")
	if err != nil {
		return nil, err
	}
	defer people.end()
	if err := people.ask("join", s.access, nil); err != nil {
		return nil, err
	}
	time.Sleep(3 * time.Second) // the agent gives back what starting took
	idle, err := smaps(s.agent.cmd.Process.Pid, "Rss")
	if err != nil {
		return nil, err
	}
	// The first sessions make what later ones share.
	if err := people.ask("stay", stays{Node: s.node, Count: 20, AtOnce: 4}, nil); err != nil {
		return nil, err
	}
	count := l.pickInt(400, 100)
	server, agent, err := s.growth(func() error {
		return people.ask("stay", stays{Node: s.node, Count: count, AtOnce: 4}, nil)
	})
	if err != nil {
		return nil, err
	}
	if err := s.server.keepHeap("shells"); err != nil {
		return nil, err
	}
	perServer, perAgent := server.RSS/1000/float64(count), kb(agent)/float64(count)
	return []figure{
		figure{name: "agent, idle (RSS)", unit: "KB", value: kb(idle), peers: beside(kb(idle), "an idle ssh -N -R (PSS)", ssh.tunnelClient)}.atMost(12_000, "12 MB"),
		figure{name: fmt.Sprintf("server, per idle shell of %d (RSS)", count), unit: "KB", value: perServer, peers: beside(perServer, "the jump host's sshd of ssh -J (PSS)", ssh.jump)}.atMost(64, "64 KB"),
		figure{name: "… of which live heap", unit: "KB", value: server.Heap / 1000 / float64(count)},
		figure{name: "… and goroutine stacks", unit: "KB", value: server.Stacks / 1000 / float64(count)},
		figure{name: "agent, per idle shell (RSS, without the shell)", unit: "KB", value: perAgent, peers: beside(perAgent, "the target's sshd (PSS)", ssh.target)}.atMost(1000, "1 MB"),
	}, nil
}

// growth returns how much the server and, in KiB, the agent grow by f.
func (s *system) growth(f func() error) (server memoryUse, agent float64, err error) {
	before, err := s.server.memory()
	if err != nil {
		return server, 0, err
	}
	pid := 0
	if s.agent != nil {
		pid = s.agent.cmd.Process.Pid
		if agent, err = smaps(pid, "Rss"); err != nil {
			return server, 0, err
		}
	}
	if err := f(); err != nil {
		return server, 0, err
	}
	time.Sleep(2 * time.Second) // what was needed to start is freed
	after, err := s.server.memory()
	if err != nil {
		return server, 0, err
	}
	server = memoryUse{RSS: after.RSS - before.RSS, Heap: after.Heap - before.Heap, Stacks: after.Stacks - before.Stacks, Count: after.Count - before.Count}
	if pid != 0 {
		now, err := smaps(pid, "Rss")
		return server, now - agent, err
	}
	return server, 0, nil
}

func beside(value float64, name string, other float64) []peer {
	return []peer{{name: name, value: other, ratio: value / other}}
}

// nodeMemory connects thousands of real agents, which run in one other process.
func (l *lab) nodeMemory(ctx context.Context, ssh sshUse) ([]figure, error) {
	count := l.pickInt(5000, 500)
	s, err := l.newServer("many")
	if err != nil {
		return nil, err
	}
	defer s.server.end()
	nodes, err := l.child("nodes")
	if err != nil {
		return nil, err
	}
	defer nodes.end()
	f, err := l.newFleet(s, nodes, count)
	if err != nil {
		return nil, err
	}
	var busy float64 // RSS before it is asked to free anything
	var took time.Duration
	use, _, err := s.growth(func() error {
		began := time.Now()
		if err := s.server.profiling("connecting", func() error { return nodes.ask("run", f, nil) }); err != nil {
			return err
		}
		took = time.Since(began)
		// Agents keep the connection of their calls for 20 s.
		err := until(ctx, time.Minute, "connections of calls to close", func() bool {
			return openFiles(s.server.cmd.Process.Pid) < count+100
		})
		if err != nil {
			return err
		}
		rss, err := smaps(s.server.cmd.Process.Pid, "Rss")
		busy = kb(rss)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.server.keepHeap("nodes"); err != nil {
		return nil, err
	}
	floor, err := l.idleFloor(nodes, count)
	if err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	n := float64(count)
	perNode := use.RSS / 1000 / n
	return []figure{
		figure{name: fmt.Sprintf("server, per idle node of %d (RSS)", count), unit: "KB", value: perNode, peers: append(
			beside(perNode, "an idle TLS connection and a goroutine (RSS)", floor), beside(perNode, "sshd of an idle ssh -N -R (PSS)", ssh.tunnelServer)...,
		)}.atMost(32, "32 KB (at most 64)"),
		figure{name: "… of which live heap", unit: "KB", value: use.Heap / 1000 / n},
		figure{name: "… and goroutine stacks", unit: "KB", value: use.Stacks / 1000 / n},
		figure{name: "… goroutines per node", value: float64(use.Count) / n},
		figure{name: "whole server just after all connected (RSS)", unit: "MB", value: busy / 1000},
		figure{name: "nodes connected", unit: "/s", value: n / took.Seconds()},
	}, nil
}

// newFleet registers one node in earnest and the others like it.
func (l *lab) newFleet(s *system, nodes *child, count int) (fleet, error) {
	f := fleet{URL: s.URL, CAFile: s.CAFile, Dir: l.path("agents")}
	for i := range count {
		f.Nodes = append(f.Nodes, fmt.Sprintf("i-%017x", i+1))
	}
	if err := s.server.ask("activate", f.Nodes[:1], &f.Activation); err != nil {
		return f, err
	}
	var fingerprints []string
	if err := nodes.ask("register", f, &fingerprints); err != nil {
		return f, err
	}
	return f, s.server.ask("adopt", adoption{Like: f.Nodes[0], Nodes: f.Nodes[1:], Fingerprints: fingerprints}, nil)
}

// idleFloor returns the KB that a server takes per TLS connection on which a
// goroutine waits for a byte: a control channel cannot do with less.
func (l *lab) idleFloor(nodes *child, count int) (float64, error) {
	c, err := l.child("idle")
	if err != nil {
		return 0, err
	}
	defer c.end()
	d := dialing{CAFile: l.path("idle", "ca.crt"), Count: count}
	if err := c.ask("listen", l.path("idle"), &d.Addr); err != nil {
		return 0, err
	}
	before, err := c.memory()
	if err != nil {
		return 0, err
	}
	if err := nodes.ask("dial", d, nil); err != nil {
		return 0, err
	}
	after, err := c.memory()
	return (after.RSS - before.RSS) / 1000 / float64(count), err
}

// idleRole is a TLS server that waits for a byte on every connection.
func idleRole() (operations, func(), error) {
	return operations{"listen": handler(listenIdle)}, func() {}, nil
}

func listenIdle(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	authority, err := ca.LoadOrCreate(dir, "bench "+uuid.NewString(), time.Now())
	if err != nil {
		return "", err
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", authority.ServerConfig([]string{"localhost"}, time.Now))
	if err != nil {
		return "", err
	}
	go acceptIdle(l) // until the process ends
	return l.Addr().String(), nil
}

func acceptIdle(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			b := make([]byte, 1)
			for {
				if _, err := c.Read(b); err != nil {
					return
				}
			}
		}()
	}
}
