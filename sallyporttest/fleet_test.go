package sallyporttest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/google/uuid"

	"sallyport.dev/agent"
	"sallyport.dev/agent/shell"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/sallyporttest"
)

// startFleet runs n real agents. Only the first makes a key, which takes its time; the
// others are copies with ids and fingerprints of their own. dial may change where one
// connects to.
func startFleet(t *testing.T, s *sallyporttest.System, n int, tags identity.Tags, dial func(i int, url string) string) []string {
	t.Helper()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("mi-%017x", i+1)
	}
	dir := t.TempDir()
	first := fleetAgent(t, s, dir, ids[0], s.PlainURL())
	activation, code, err := s.CreateActivation(t.Context(), "", tags, ids)
	if err != nil {
		t.Fatal(err)
	}
	first.Activation = agent.Activation{ID: activation, Code: code}
	a, err := agent.New(first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Register(t.Context()); err != nil {
		t.Fatal(err)
	}
	like, err := s.Store.Node(t.Context(), ids[0])
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(dir, ids[0], "registration.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids[1:] {
		adopt(t, s, like, activation, filepath.Join(dir, id), id, file)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for i, id := range ids {
		a, err := agent.New(fleetAgent(t, s, dir, id, dial(i, s.PlainURL())))
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := a.Run(ctx); err != nil {
				t.Errorf("agent of %s: %v", id, err)
			}
		})
		if i%20 == 19 { // no more at once than a server is used to
			s.Eventually(func() bool { return s.Connected(t.Context(), id) }, "node %s connects", id)
		}
	}
	for _, id := range ids {
		s.Eventually(func() bool { return s.Connected(t.Context(), id) }, "node %s connects", id)
	}
	return ids
}

func fleetAgent(t *testing.T, s *sallyporttest.System, dir, id, url string) agent.Config {
	return agent.Config{Servers: []string{url}, Region: sallyporttest.Region, StateDir: filepath.Join(dir, id), CAFile: s.CAFile(),
		Shell: shell.Options{RunAsSelf: true}}
}

// adopt registers a copy of a node.
func adopt(t *testing.T, s *sallyporttest.System, like node.Node, activation, dir, id string, file []byte) {
	t.Helper()
	fingerprint := uuid.NewString()
	got, err := s.Store.Register(t.Context(), node.Node{Name: like.Name, Tags: like.Tags, ActivationID: activation, IAMRole: like.IAMRole,
		PublicKey: like.PublicKey, PublicKeyType: like.PublicKeyType, Fingerprint: fingerprint, Registered: like.Registered}, time.Now(), node.NewID)
	if err != nil || got.ID != id {
		t.Fatalf("registered %s as %s: %v", id, got.ID, err)
	}
	var registration map[string]any
	if err := json.Unmarshal(file, &registration); err != nil {
		t.Fatal(err)
	}
	registration["instanceId"], registration["fingerprint"] = id, fingerprint
	b, err := json.Marshal(registration)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "registration.json"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// mute is a proxy that on demand lets nothing more through to the server, and all from it.
type mute struct {
	silent atomic.Bool
	url    string
}

func newMute(t *testing.T, server string) *mute {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mute{url: "http://" + l.Addr().String()}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { m.serve(t, c, strings.TrimPrefix(server, "http://")) })
		}
	})
	return m
}

func (m *mute) serve(t *testing.T, c net.Conn, server string) {
	defer c.Close()
	s, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer s.Close()
	stop := context.AfterFunc(t.Context(), func() { c.Close(); s.Close() }) // which ends before cleanups
	defer stop()
	go func() { // ends when either side is closed
		io.Copy(c, s)
		c.Close()
	}()
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if !m.silent.Load() {
			s.Write(b[:n])
		}
	}
}

// Two hundred nodes: two fail, one takes the job and is never heard of again.
func TestTwoHundredNodes(t *testing.T) {
	const all, silent = 200, 150
	s := sallyporttest.Start(t, "a", sallyporttest.Options{})
	api := s.API(s.User("admin", nil, sallyporttest.Everything))
	m := newMute(t, s.PlainURL())
	ids := startFleet(t, s, all, identity.Tags{"Department": "FrontEnd"}, func(i int, url string) string {
		if i == silent {
			return m.url
		}
		return url
	})
	m.silent.Store(true)
	// $0 is in the agent's own folder, which bears its node's id.
	script := fmt.Sprintf(`case $0 in *%s*|*%s*) echo broken >&2; exit 3;; esac; uptime`, ids[3], ids[77])
	began := time.Now()
	id := send(t, api, script, "Department", "FrontEnd", func(in *ssm.SendCommandInput) {
		in.TimeoutSeconds = aws.Int32(30)
		in.MaxConcurrency = aws.String("25%")
	})
	follow(t, api, id, func(counts map[string]int) bool { return counts["Success"]+counts["Failed"] == all-1 })
	t.Logf("%d nodes answered within %v", all-1, time.Since(began).Round(time.Millisecond))
	counts, nodes := follow(t, api, id, nil)
	if counts["Success"] != all-3 || counts["Failed"] != 2 || counts["DeliveryTimedOut"] != 1 {
		t.Errorf("got %v", counts)
	}
	if n := nodes[ids[77]]; n.Status != "Failed" || n.Steps[0].ExitStatus != 3 || n.Steps[0].StandardError != "broken\n" {
		t.Errorf("the failing node: %+v", n)
	}
	if n := nodes[ids[silent]]; n.StatusDetails != "DeliveryTimedOut" {
		t.Errorf("the silent node: %+v", n)
	}
	if n := nodes[ids[0]]; !strings.Contains(n.Steps[0].StandardOutput, "load average") {
		t.Errorf("a node that is well: %+v", n)
	}
}
