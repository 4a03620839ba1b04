package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/google/uuid"

	"sallyport.dev/agent"
	"sallyport.dev/identity"
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

// lonely is a node that only opens channels.
type lonely struct {
	URL, CAFile, Node string
	Credentials       identity.Credentials
	tls               *tls.Config
}

// silent keeps the control channel of a node that answers every session request with
// a data channel and one byte of output, as an agent with a very quick shell would.
func (p *nodesProcess) silent(n lonely) (struct{}, error) {
	roots, err := readRoots(n.CAFile)
	if err != nil {
		return struct{}{}, err
	}
	n.tls = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
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
	m := wire.NewStream(wire.TypeOutputStreamData, 0, wire.PayloadOutput, time.Now(), []byte("$"))
	if err := conn.Write(websocket.Binary, m.Encode()); err != nil {
		return
	}
	for err == nil {
		_, _, err = conn.Read()
	}
}

// controlToken asks for the token of the control channel.
func (n lonely) controlToken(ctx context.Context) (string, error) {
	body, err := json.Marshal(wire.CreateChannel{MessageSchemaVersion: "1.0", RequestID: uuid.NewString()})
	if err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, n.URL+"/v1/control-channel/"+n.Node, strings.NewReader(string(body)))
	if err != nil {
		return "", err
	}
	if err := n.sign(ctx, r, body); err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: n.tls, DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	return readToken(res)
}

func (n lonely) sign(ctx context.Context, r *http.Request, body []byte) error {
	sum := sha256.Sum256(body)
	c := aws.Credentials{AccessKeyID: n.Credentials.AccessKeyID, SecretAccessKey: n.Credentials.SecretAccessKey, SessionToken: n.Credentials.SessionToken}
	return v4.NewSigner().SignHTTP(ctx, c, r, hex.EncodeToString(sum[:]), "ssmmessages", region, time.Now())
}

// channel opens a websocket and sends the opening message.
func (n lonely) channel(ctx context.Context, path, query, token string) (*websocket.Conn, error) {
	url := n.URL + "/v1/" + path + "?" + query
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if err := n.sign(ctx, r, nil); err != nil {
		return nil, err
	}
	conn, err := websocket.Dial(ctx, url, websocket.DialOptions{
		Header: r.Header, TLS: n.tls, Timeout: 20 * time.Second, ReadLimit: wire.MaxMessage, WriteTimeout: 20 * time.Second,
	})
	if err != nil {
		return nil, err
	}
	opening, err := json.Marshal(wire.Opening{
		MessageSchemaVersion: "1.0", RequestID: uuid.NewString(), TokenValue: token, ClientInstanceID: n.Node,
		AgentVersion: agent.ProtocolVersion, PlatformType: "linux",
	})
	if err != nil {
		return nil, err
	}
	return conn, conn.Write(websocket.Text, opening)
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
