package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"sallyport.dev/identity"
	"sallyport.dev/member"
	"sallyport.dev/node"
)

const (
	account = "111111111111"
	region  = "us-east-1"
)

// access is what people and nodes need to reach a server. Everything goes over TLS.
type access struct {
	URL, CAFile string
	KeyID       string
	Secret      string
}

// env is the environment of a client.
func (a access) env() []string {
	return []string{
		"AWS_ACCESS_KEY_ID=" + a.KeyID, "AWS_SECRET_ACCESS_KEY=" + a.Secret, "AWS_SESSION_TOKEN=", "AWS_PROFILE=",
		"AWS_REGION=" + region, "AWS_ENDPOINT_URL=" + a.URL, "AWS_CA_BUNDLE=" + a.CAFile,
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
	}
}

// memberProcess is a server in a process of its own: the state behind a server's role.
type memberProcess struct{ *member.Member }

func serverRole() (operations, func(), error) {
	p := &memberProcess{}
	stop := func() {
		if p.Member == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		p.Close(ctx)
	}
	return operations{
		"open":      handler(p.open),
		"activate":  handler(p.activate),
		"connected": handler(p.connected),
		"adopt":     handler(p.adopt),
	}, stop, nil
}

// everyone may reach what carries their own team's tag: the policy that sessions are
// decided by, as in life. The rest is for ending sessions.
const peoplePolicy = `{"Version":"2012-10-17","Statement":[
	{"Effect":"Allow","Action":"ssm:StartSession","Resource":["arn:aws:ec2:*:*:instance/*","arn:aws:ssm:*:*:managed-instance/*"],
	 "Condition":{"StringEquals":{"ssm:resourceTag/Team":"${aws:PrincipalTag/Team}"}}},
	{"Effect":"Allow","Action":"ssm:StartSession","Resource":"arn:aws:ssm:*:*:document/*"},
	{"Effect":"Allow","Action":["ssm:TerminateSession","ssm:ResumeSession"],"Resource":"arn:aws:ssm:*:*:session/${aws:username}-*"}]}`

// serving is what a server is to do with sessions, with its state in Dir.
type serving struct {
	Dir                   string
	Unrecorded, Unindexed bool
}

// open starts a server and makes a user.
func (p *memberProcess) open(s serving) (access, error) {
	ctx := context.Background()
	indexed := !s.Unindexed
	cfg := member.Config{
		Account: account, Region: region, Member: "bench", DataDir: s.Dir,
		Listen:   "127.0.0.1:0",
		Sessions: &member.Sessions{DisconnectGrace: "10m"},
		Search:   &member.Search{Index: &indexed}, Unrecorded: s.Unrecorded,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if err := cfg.Check(); err != nil {
		return access{}, err
	}
	m, err := member.Start(ctx, cfg)
	if err != nil {
		return access{}, err
	}
	p.Member = m
	if err := m.CreateUser(ctx, "alice", identity.Tags{"Team": "payments"}, ""); err != nil {
		return access{}, err
	}
	owner := identity.Owner{Kind: identity.OwnerUser, Name: "alice"}
	if err := m.PutInlinePolicy(ctx, owner, "own-team", peoplePolicy); err != nil {
		return access{}, err
	}
	id, secret, err := m.CreateAccessKey(ctx, "alice")
	return access{URL: m.TLSURL(), CAFile: m.CAFile(), KeyID: id, Secret: secret}, err
}

var nodeTags = identity.Tags{"Name": "bench", "Team": "payments"}

type activation struct{ ID, Code string }

func (p *memberProcess) activate(ids []string) (activation, error) {
	id, code, err := p.CreateActivation(context.Background(), "bench", nodeTags, ids)
	return activation{id, code}, err
}

func (p *memberProcess) connected(id string) (bool, error) {
	return p.Connected(context.Background(), id), nil
}

// adoption registers nodes that share the key of one that has registered itself:
// making 5,000 RSA keys would take longer than all measurements.
type adoption struct {
	Like         string
	Nodes        []string
	Fingerprints []string
}

func (p *memberProcess) adopt(a adoption) (struct{}, error) {
	ctx := context.Background()
	like, err := p.Store.Node(ctx, a.Like)
	if err != nil {
		return struct{}{}, err
	}
	for from := 0; from < len(a.Nodes); from += node.MaxRegistrations {
		to := min(from+node.MaxRegistrations, len(a.Nodes))
		if err := p.adoptSome(ctx, like, a.Nodes[from:to], a.Fingerprints[from:to]); err != nil {
			return struct{}{}, err
		}
	}
	return struct{}{}, nil
}

func (p *memberProcess) adoptSome(ctx context.Context, like node.Node, ids, fingerprints []string) error {
	activation, _, err := p.CreateActivation(ctx, like.Name, like.Tags, ids)
	if err != nil {
		return err
	}
	for i := range ids { // ids are given out in order
		got, err := p.Store.Register(ctx, node.Node{
			Name: like.Name, Tags: like.Tags, IAMRole: like.IAMRole, ActivationID: activation,
			PublicKey: like.PublicKey, PublicKeyType: like.PublicKeyType, Fingerprint: fingerprints[i], Registered: like.Registered,
		}, time.Now(), node.NewID)
		if err != nil {
			return err
		}
		if got.ID != ids[i] {
			return fmt.Errorf("registered %s as %s", ids[i], got.ID)
		}
	}
	return nil
}

// system is a server with one node, run by the agent's own program.
type system struct {
	access
	server *child
	agent  *started
	node   string
	fleet  string // folder of the nodes that have no agent's program
}

// system returns a server with a connected node, starting it on first use.
func (l *lab) system(ctx context.Context) (*system, error) {
	if l.server != nil {
		return l.server, nil
	}
	s, err := l.newSystem(ctx, "system")
	l.server = s
	return s, err
}

func (l *lab) newSystem(ctx context.Context, name string) (*system, error) {
	s, err := l.newServer(name)
	if err != nil {
		return nil, err
	}
	s.node = "i-060ee0879f3ec4eb7"
	s.agent, err = l.startAgent(s, l.path(name+"-agent"))
	if err != nil {
		return nil, err
	}
	return s, s.awaitNode(ctx)
}

// newServer starts a server without nodes.
func (l *lab) newServer(name string) (*system, error) {
	return l.newServing(serving{Dir: name})
}

// newServing starts a server whose state is in a folder of the lab.
func (l *lab) newServing(v serving) (*system, error) {
	v.Dir = l.path(v.Dir)
	c, err := l.child("server")
	if err != nil {
		return nil, err
	}
	s := &system{server: c, fleet: v.Dir + "-fleet"}
	if err := c.ask("open", v, &s.access); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *system) awaitNode(ctx context.Context) error {
	var lost error
	err := until(ctx, 30*time.Second, "the node to connect", func() bool {
		var up bool
		lost = s.server.ask("connected", s.node, &up)
		return up || lost != nil
	})
	if s.agent != nil {
		err = s.agent.maybeWhy(err)
	}
	return errors.Join(err, lost)
}

func (s *started) maybeWhy(err error) error {
	if err == nil {
		return nil
	}
	return s.why(err)
}

// startAgent runs the agent's program, which registers itself.
func (l *lab) startAgent(s *system, dir string) (*started, error) {
	program, err := l.program("sallyport-agent")
	if err != nil {
		return nil, err
	}
	var a activation
	if err := s.server.ask("activate", []string{s.node}, &a); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	shell, err := l.shell()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "agent.hcl")
	text := fmt.Sprintf("servers = [%q]\nregion = %q\nca_file = %q\nstate_dir = %q\nrun_as_self = true\nshell = %q\n",
		s.URL, region, s.CAFile, filepath.Join(dir, "state"), shell)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "run", "--config", config)
	cmd.Env = append(cleanEnv(), "SALLYPORT_ACTIVATION_ID="+a.ID, "SALLYPORT_ACTIVATION_CODE="+a.Code)
	return l.start(cmd, "agent")
}

// cleanEnv is this process's environment without what would lead AWS's tools or an
// agent elsewhere.
func cleanEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "AWS_") && !strings.HasPrefix(kv, "SALLYPORT_") {
			env = append(env, kv)
		}
	}
	return env
}

// connect is the client's program, opening a shell on the system's node.
func (l *lab) connect(s *system) (*exec.Cmd, error) {
	program, err := l.program("sallyport")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "connect", s.node)
	cmd.Env = append(cleanEnv(), s.env()...)
	return cmd, nil
}

// each runs f for 0 ≤ i < n, some at a time.
func each(n, atOnce int, f func(i int) error) error {
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i := range n {
		g.Go(func() error { return f(i) })
	}
	return g.Wait()
}
