package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"sallyport.dev/agent"
	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// nodesProcess runs nodes: many real agents at once, or one that opens data channels
// but no shells.
type nodesProcess struct {
	ctx  context.Context // of all that the process runs
	wg   sync.WaitGroup
	open atomic.Int64 // control channels that have opened
}

func nodesRole() (operations, func(), error) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &nodesProcess{ctx: ctx}
	stop := func() {
		cancel()
		p.wg.Wait()
	}
	return operations{
		"register": handler(p.register),
		"run":      handler(p.run),
		"silent":   handler(p.silent),
		"dial":     handler(p.dial),
	}, stop, nil
}

// fleet is a number of nodes whose state folders are Dir/ID.
type fleet struct {
	URL, CAFile, Dir string
	Nodes            []string
	Activation       activation // for register alone
}

func (f fleet) config(id string, log *slog.Logger) agent.Config {
	return agent.Config{
		Servers: []string{f.URL}, Region: region, StateDir: filepath.Join(f.Dir, id), CAFile: f.CAFile, Logger: log,
		Activation: agent.Activation{ID: f.Activation.ID, Code: f.Activation.Code},
	}
}

// register registers the first node of a fleet; the others become copies of it with
// ids and fingerprints of their own, which are returned.
func (p *nodesProcess) register(f fleet) (fingerprints []string, err error) {
	a, err := agent.New(f.config(f.Nodes[0], nil))
	if err != nil {
		return nil, err
	}
	if _, err := a.Register(p.ctx); err != nil {
		return nil, err
	}
	const file = "registration.json"
	b, err := os.ReadFile(filepath.Join(f.Dir, f.Nodes[0], file))
	if err != nil {
		return nil, err
	}
	var registration map[string]any
	if err := json.Unmarshal(b, &registration); err != nil {
		return nil, err
	}
	for _, id := range f.Nodes[1:] {
		fingerprint := uuid.NewString()
		registration["instanceId"], registration["fingerprint"] = id, fingerprint
		fingerprints = append(fingerprints, fingerprint)
		if err := writeJSON(filepath.Join(f.Dir, id, file), registration); err != nil {
			return nil, err
		}
	}
	return fingerprints, nil
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// opened counts control channels by what agents log when one opens.
type opened struct {
	slog.Handler
	count *atomic.Int64
}

func (o opened) Enabled(context.Context, slog.Level) bool { return true }
func (o opened) Handle(ctx context.Context, r slog.Record) error {
	switch {
	case r.Message == "control channel is open":
		o.count.Add(1)
	case r.Level >= slog.LevelWarn:
		return o.Handler.Handle(ctx, r)
	}
	return nil
}

// inFlight is how many agents connect at the same time: as many as a server is used
// to after a restart, and few enough that none times out.
const inFlight = 64

// run runs the agents of a fleet and returns when all control channels are open.
func (p *nodesProcess) run(f fleet) (struct{}, error) {
	log := slog.New(opened{slog.NewTextHandler(os.Stderr, nil), &p.open})
	before := p.open.Load()
	for i, id := range f.Nodes {
		a, err := agent.New(f.config(id, log))
		if err != nil {
			return struct{}{}, err
		}
		p.wg.Go(func() {
			if err := a.Run(p.ctx); err != nil {
				log.Error("agent ended", "node", id, "error", err)
			}
		})
		if err := p.await(before + int64(i+1-inFlight)); err != nil {
			return struct{}{}, err
		}
	}
	return struct{}{}, p.await(before + int64(len(f.Nodes)))
}

func (p *nodesProcess) await(count int64) error {
	return until(p.ctx, time.Minute, "agents to connect", func() bool { return p.open.Load() >= count })
}

// silent keeps the control channel of a node that answers every session request with
// a data channel and one byte of output, as an agent with a very quick shell would. It
// shows more when it is asked to.
func (p *nodesProcess) silent(n lonely) (struct{}, error) {
	if err := n.signIn(p.ctx); err != nil {
		return struct{}{}, err
	}
	token, err := n.controlToken(p.ctx)
	if err != nil {
		return struct{}{}, err
	}
	conn, err := n.channel(p.ctx, "control-channel/"+n.Node, "role=subscribe&stream=input", token)
	if err != nil {
		return struct{}{}, err
	}
	p.wg.Go(func() { p.serveSilent(n, conn) })
	return struct{}{}, nil
}

func (p *nodesProcess) serveSilent(n lonely, conn *websocket.Conn) {
	stop := context.AfterFunc(p.ctx, func() { conn.Abort() })
	defer stop()
	for {
		_, b, err := conn.Read()
		if err != nil {
			return
		}
		m, err := wire.Decode(b)
		if err != nil || m.Type != wire.TypeInteractiveShell {
			continue
		}
		var task wire.ControlTask
		var start wire.StartSession
		if json.Unmarshal(m.Payload, &task) != nil || json.Unmarshal([]byte(task.Content), &start) != nil {
			continue
		}
		p.wg.Go(func() { p.serveSession(n, start) })
	}
}

func (p *nodesProcess) serveSession(n lonely, start wire.StartSession) {
	conn, err := n.channel(p.ctx, "data-channel/"+start.SessionID, "role=publish_subscribe", start.DataChannelToken)
	if err != nil {
		fmt.Fprintf(os.Stderr, "data channel: %v\n", err)
		return
	}
	stop := context.AfterFunc(p.ctx, func() { conn.Abort() })
	defer stop()
	t := &stage{conn: conn}
	t.play([]byte("$")) // until the session ends
}

// dial holds TLS connections that say nothing: the floor of an idle node.
func (p *nodesProcess) dial(d dialing) (struct{}, error) {
	roots, err := readRoots(d.CAFile)
	if err != nil {
		return struct{}{}, err
	}
	config := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13}
	return struct{}{}, each(d.Count, inFlight, func(int) error {
		c, err := tls.Dial("tcp", d.Addr, config)
		if err != nil {
			return err
		}
		context.AfterFunc(p.ctx, func() { c.Close() })
		_, err = c.Write([]byte{1})
		return err
	})
}

type dialing struct {
	Addr, CAFile string
	Count        int
}

func readRoots(file string) (*x509.CertPool, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(b) {
		return nil, errors.New(file + " holds no certificate")
	}
	return roots, nil
}
