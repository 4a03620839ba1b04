package sallyporttest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/agent"
	"sallyport.dev/agent/shell"
	"sallyport.dev/archive"
	"sallyport.dev/audit"
	"sallyport.dev/client"
	"sallyport.dev/internal/pgtest"
	"sallyport.dev/member"
	"sallyport.dev/sallyporttest"
	"sallyport.dev/session"
)

const (
	// killedOptions, set, makes TestKilledServer the server that is killed.
	killedOptions = "SALLYPORT_TEST_KILLED"
	killedNode    = "mi-0123456789abcdef0"
	busyShells    = 50
)

// doomed is a server in a process of its own, to be killed, with agents and people in
// this one.
type doomed struct {
	t      *testing.T
	Dir    string
	Store  string            // URL, or empty
	Listen string            // address
	Key    sallyporttest.Key // of its administrator
	Code   agent.Activation  // of its node

	mu    sync.Mutex
	lines map[string]*sallyporttest.Terminal // by session
}

func (d *doomed) options() sallyporttest.Options {
	return sallyporttest.Options{Dir: d.Dir, Store: d.Store, Configure: func(c *member.Config) {
		c.ListenPlain, c.Listen = d.Listen, ""
		c.Recordings.ChunkInterval = "1s"
	}}
}

// The server is killed at random moments of many busy shells, and while they open. The
// next start closes every session with the reason, in its row and in the audit log, whose
// chain is whole; and every recording is whole, with what was shown up to a second before.
func TestKilledServer(t *testing.T) {
	if text := os.Getenv(killedOptions); text != "" {
		serveUntilKilled(t, text)
		return
	}
	t.Run("sqlite", func(t *testing.T) {
		d := &doomed{t: t, Dir: t.TempDir()}
		d.killAndCheck(rand.N(700 * time.Millisecond))
		d.killAndCheck(2*time.Second + rand.N(2*time.Second))
	})
	t.Run("postgres", func(t *testing.T) {
		server := pgtest.Start(t)
		d := &doomed{t: t, Dir: t.TempDir(), Store: server.Database(t)}
		d.killAndCheck(rand.N(700 * time.Millisecond))
		d.killAndCheck(2*time.Second + rand.N(2*time.Second))
	})
}

// serveUntilKilled is the server. It tells its parent how to use it, and outlives it not.
func serveUntilKilled(t *testing.T, text string) {
	d := &doomed{}
	if err := json.Unmarshal([]byte(text), d); err != nil {
		t.Fatal(err)
	}
	s := sallyporttest.Start(t, "m1", d.options())
	if d.Key.ID == "" {
		var err error
		d.Key = s.User("admin", nil, sallyporttest.Everything)
		d.Code.ID, d.Code.Code, err = s.CreateActivation(t.Context(), "node", nil, []string{killedNode})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(d); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, os.Stdin) // until the parent is gone
}

// serve starts the server, and returns what kills it.
func (d *doomed) serve() (kill func()) {
	d.t.Helper()
	program, err := os.Executable()
	d.must(err)
	text, err := json.Marshal(d)
	d.must(err)
	cmd := exec.CommandContext(d.t.Context(), program, "-test.run", "^TestKilledServer$")
	cmd.Env = append(os.Environ(), killedOptions+"="+string(text))
	in, err := cmd.StdinPipe()
	d.must(err)
	out, err := cmd.StdoutPipe()
	d.must(err)
	d.must(cmd.Start())
	kill = sync.OnceFunc(func() {
		cmd.Process.Kill() // SIGKILL: no chance to tidy up
		cmd.Wait()         // killed, so an error
		in.Close()
	})
	d.t.Cleanup(kill)
	d.must(json.NewDecoder(out).Decode(d))
	return kill
}

func (d *doomed) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// node runs the agent, whose shells print numbers.
func (d *doomed) node() {
	busy := filepath.Join(d.t.TempDir(), "busy")
	script := "#!/bin/sh\nn=0\nwhile sleep 0.2; do n=$((n+1)); echo \"LINE-$n. kumquat\"; done\n"
	d.must(os.WriteFile(busy, []byte(script), 0o700))
	sallyporttest.StartAgent(d.t, killedNode, agent.Config{
		Servers: []string{"http://" + d.Listen}, Region: sallyporttest.Region, StateDir: d.t.TempDir(), Activation: d.Code,
		Shell: shell.Options{RunAsSelf: true, Program: busy}, Logger: sallyporttest.Logger(d.t),
	})
}

func (d *doomed) api() *client.API {
	d.t.Helper()
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": d.Key.ID, "AWS_SECRET_ACCESS_KEY": d.Key.Secret, "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1",
	} {
		d.t.Setenv(name, value)
	}
	api, err := client.Connect(d.t.Context(), client.Options{Region: sallyporttest.Region, Endpoint: "http://" + d.Listen, UserAgent: "sallyporttest"})
	d.must(err)
	return api
}

// open opens shells until there are enough, or ctx ends.
func (d *doomed) open(ctx context.Context, api *client.API) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for range 5 {
		wg.Go(func() {
			for n := 0; n < busyShells/5 && ctx.Err() == nil; {
				term, err := sallyporttest.OpenTerminal(ctx, d.t, api, killedNode)
				if err != nil {
					time.Sleep(200 * time.Millisecond) // the node comes back, or the server was killed
					continue
				}
				n++
				d.mu.Lock()
				d.lines[term.SessionID] = term
				d.mu.Unlock()
			}
		})
	}
}

// glance returns the last line that each terminal shows.
func (d *doomed) glance() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	shown := map[string]int{}
	for id, term := range d.lines {
		shown[id] = lastLine(term.Shown())
	}
	return shown
}

func lastLine(shown string) (n int) {
	whole := strings.LastIndex(shown, ". kumquat")
	if whole < 0 {
		return 0
	}
	start := strings.LastIndex(shown[:whole], "LINE-")
	fmt.Sscanf(shown[start:], "LINE-%d.", &n)
	return n
}

// killAndCheck kills the server when shells have been opening, or busy, for a while; and
// looks at what the next start makes of it.
func (d *doomed) killAndCheck(after time.Duration) {
	d.t.Helper()
	if d.Listen == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		d.must(err)
		d.Listen = l.Addr().String()
		d.must(l.Close())
	}
	first := d.Key.ID == ""
	kill := d.serve()
	if first {
		d.node()
	}
	ctx, cancel := context.WithCancel(d.t.Context())
	defer cancel()
	d.lines = map[string]*sallyporttest.Terminal{}
	opened := make(chan struct{})
	api := d.api()
	go func() {
		defer close(opened)
		d.open(ctx, api)
	}()
	shown := d.watch(opened, after)
	kill()
	cancel()
	<-opened
	for _, term := range d.lines {
		<-term.Over()
	}
	d.t.Logf("killed %v after, %d shells had shown something a second before", after, len(shown))
	d.check(shown)
}

// watch waits: a short while from the first shell, a longer one from the last. It returns
// what was shown a second before its return.
func (d *doomed) watch(opened <-chan struct{}, after time.Duration) map[string]int {
	type told struct {
		at    time.Time
		shown map[string]int
	}
	var history []told
	var kill time.Time
	for deadline := time.Now().Add(30 * time.Second); kill.IsZero() || time.Now().Before(kill); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatalf("after 30 s, %d of %d shells are open", len(d.glance()), busyShells)
		}
		now := told{time.Now(), d.glance()}
		history = append(history, now)
		if kill.IsZero() && len(now.shown) > 0 && (after < time.Second || isClosed(opened)) {
			kill = now.at.Add(after)
		}
	}
	then := time.Now().Add(-time.Second)
	i := slices.IndexFunc(history, func(h told) bool { return h.at.After(then) })
	if i < 1 {
		return nil
	}
	return history[i-1].shown
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// check looks at everything that the server has written down, after its next start.
func (d *doomed) check(shown map[string]int) {
	d.t.Helper()
	s := sallyporttest.Start(d.t, "m1", d.options())
	defer s.Stop()
	d.checkEnds(s)
	api := d.api()
	for id, line := range shown {
		if line > 0 {
			d.checkPlayable(api, id, line)
		}
	}
	d.checkSearch(api, shown)
	if out, status := sallyport(d.t, s, d.Key, "audit", "verify"); status != 0 {
		d.t.Errorf("audit verify: %s", out)
	}
}

// checkEnds wants every session closed with a reason, its start and end in the audit log,
// and with them, or later, the digests of its recording, which verifies.
func (d *doomed) checkEnds(s *sallyporttest.System) {
	d.t.Helper()
	ctx := d.t.Context()
	d.must(audit.Verify(audit.All(ctx, s.Store, audit.Filter{})))
	started, ended, kept := map[string]bool{}, map[string]int{}, map[string]bool{}
	for r, err := range audit.All(ctx, s.Store, audit.Filter{}) {
		d.must(err)
		switch r.Event {
		case audit.EventSessionStart:
			started[r.Session] = true
		case audit.EventSessionEnd:
			ended[r.Session]++
		}
		if len(r.Details["recording_manifest_sha256"]) == 64 {
			kept[r.Session] = true
		}
	}
	rows, err := s.Store.Sessions(ctx, session.Filter{Limit: 1000})
	d.must(err)
	for _, row := range rows {
		// The row and the record of the start are written side by side; nobody is let in before.
		lost := row.Recording != "" && !started[row.ID] && (ended[row.ID] != 1 || d.lines[row.ID] != nil)
		if row.State.Active() || row.EndReason == "" || row.Ended.IsZero() || lost {
			d.t.Errorf("%s: got state %s, reason %q, start audited %v, %d audited ends", row.ID, row.State, row.EndReason, started[row.ID], ended[row.ID])
		}
	}
	for id := range started {
		if ended[id] != 1 || !kept[id] {
			d.t.Errorf("%s: got %d audited ends, digests %v", id, ended[id], kept[id])
		}
	}
	d.checkRecordings(s)
}

func (d *doomed) checkRecordings(s *sallyporttest.System) {
	d.t.Helper()
	recordings, err := s.Store.Recordings(d.t.Context(), archive.RowFilter{Limit: 1000})
	d.must(err)
	for _, r := range recordings {
		if r.Ended.IsZero() || r.Manifest == "" {
			s.Eventually(func() bool {
				r, err = s.Store.Recording(d.t.Context(), r.Name)
				return err == nil && r.Manifest != ""
			}, "recording %s is finished", r.Name)
		}
	}
}

// checkPlayable reads a recording as players do, and wants a line in it.
func (d *doomed) checkPlayable(api *client.API, id string, line int) {
	d.t.Helper()
	text, end := play(d.t, api, id)
	if want := fmt.Sprintf("LINE-%d.", line); !strings.Contains(text, want) {
		d.t.Errorf("%s: %s was shown a second before the kill; the recording has up to %d", id, want, lastLine(text))
	}
	if end == nil || end.Reason != session.ReasonRestart {
		d.t.Errorf("%s: the recording ends with %+v", id, end)
	}
}

// checkSearch wants each session found by a word that it showed, as soon as it is indexed.
func (d *doomed) checkSearch(api *client.API, shown map[string]int) {
	d.t.Helper()
	missing := func() int {
		found := d.search(api)
		n := 0
		for id, line := range shown {
			if line > 0 && !found[id] {
				n++
			}
		}
		return n
	}
	for deadline := time.Now().Add(20 * time.Second); missing() > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatalf("%d sessions are not found by what they showed", missing())
		}
	}
}

func (d *doomed) search(api *client.API) map[string]bool {
	d.t.Helper()
	found := map[string]bool{}
	for in := (client.SearchSessionsInput{Text: "kumquat"}); ; {
		out, err := api.SearchSessions(d.t.Context(), in)
		d.must(err)
		for _, s := range out.Sessions {
			found[s.Session.SessionID] = true
		}
		if in.NextToken = out.NextToken; in.NextToken == "" {
			return found
		}
	}
}
