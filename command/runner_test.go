package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"sallyport.dev/wire"
)

func isSend(job wire.ControlTask) bool { return strings.HasPrefix(job.Topic, wire.TopicSendCommand) }

// cancelled is the id of the job that a cancel names.
func cancelled(job wire.ControlTask) string {
	var c wire.CommandCancel
	if err := json.Unmarshal([]byte(job.Content), &c); err != nil {
		panic(err)
	}
	return c.CancelMessageID
}

func replyOf(jobID, status string, code int, output string) wire.JobReply {
	o := wire.JobOutcome{DocumentStatus: status}
	if status != "InProgress" || output != "" {
		o.RuntimeStatus = map[string]wire.JobPlugin{"run": {Name: "aws:runShellScript", Status: status, Code: code, StandardOutput: output,
			StartDateTime: "2026-03-01T00:00:00.000Z", EndDateTime: "2026-03-01T00:00:01.000Z"}}
	}
	content, _ := json.Marshal(o)
	return wire.JobReply{JobID: jobID, Content: string(content)}
}

// rig is a store, a fleet, and the members that schedule.
type rig struct {
	t     *testing.T
	store *memory
	bus   *bus
	fleet *fleet
	now   map[string]*Runner
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, store: newMemory(), bus: &bus{hears: map[string]func([]byte){}}, now: map[string]*Runner{},
		fleet: &fleet{takes: time.Second, sent: map[string]int{}, back: map[string]bool{}}}
	return r
}

func (r *rig) member(name string) *Runner {
	r.t.Helper()
	m := New(Config{Store: r.store, Cluster: on{r.bus, name}, Audit: r.store, Logger: slog.New(slog.DiscardHandler), Region: "us-east-1", Keep: 5 * time.Hour})
	r.fleet.mu.Lock()
	r.fleet.to = func() *Runner { return m }
	r.fleet.mu.Unlock()
	if err := m.Start(r.t.Context(), r.fleet); err != nil {
		r.t.Fatal(err)
	}
	r.now[name] = m
	return m
}

func (r *rig) close() {
	for _, m := range r.now {
		if err := m.Close(context.Background()); err != nil {
			r.t.Error(err)
		}
	}
	r.fleet.wg.Wait()
}

// send sends a command to nodes: "200 ok, 2 fail".
func (r *rig) send(m *Runner, c Command, nodes ...string) string {
	r.t.Helper()
	c.ID = uuid.NewString()
	if c.MaxConcurrency == "" {
		c.MaxConcurrency = "50"
	}
	if c.MaxErrors == "" {
		c.MaxErrors = "0"
	}
	if c.Delivery == 0 {
		c.Delivery, c.Execution = time.Hour, time.Minute
	}
	c.Content = json.RawMessage(`{}`)
	var all []Invocation
	for _, spec := range nodes {
		n, kind := 1, ""
		if _, err := fmt.Sscan(spec, &n, &kind); err != nil {
			r.t.Fatalf("%q: %v", spec, err)
		}
		for i := range n {
			all = append(all, Invocation{NodeID: fmt.Sprint(kind, "-", i)})
		}
	}
	sent, err := m.Send(r.t.Context(), c, all)
	if err != nil {
		r.t.Fatal(err)
	}
	return sent.ID
}

// after lets time pass and says what a command has come to.
func (r *rig) after(d time.Duration, id string) string {
	time.Sleep(d)
	synctest.Wait()
	c, err := r.store.Command(context.Background(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return fmt.Sprintf("%s/%s %v", c.Status, c.Details, r.store.statuses(id))
}

func (r *rig) want(what, got, want string) {
	r.t.Helper()
	if got != want {
		r.t.Errorf("%s: got %s, want %s", what, got, want)
	}
}

func TestRun(t *testing.T) {
	for _, tt := range []struct {
		name  string
		c     Command
		nodes []string
		after time.Duration
		want  string
		most  int // nodes at once
	}{
		{"all well", Command{}, []string{"3 ok"}, 2 * time.Second, "Success/Success map[Success:3]", 3},
		{"while they run", Command{}, []string{"3 ok"}, time.Second / 2, "InProgress/InProgress map[InProgress:3]", 3},
		{"few at once", Command{MaxConcurrency: "10"}, []string{"25 ok"}, 4 * time.Second, "Success/Success map[Success:25]", 10},
		{"a percentage at once", Command{MaxConcurrency: "10%"}, []string{"20 ok"}, 11 * time.Second, "Success/Success map[Success:20]", 2},
		{"at least one at once", Command{MaxConcurrency: "1%"}, []string{"3 ok"}, 4 * time.Second, "Success/Success map[Success:3]", 1},
		{"the first failure stops the rest", Command{MaxConcurrency: "1"}, []string{"1 fail", "3 ok"}, 5 * time.Second,
			"Failed/Failed map[Failed:1 Terminated:3]", 1},
		{"those that run already may end", Command{MaxConcurrency: "2"}, []string{"1 fail", "3 ok"}, 5 * time.Second,
			"Failed/Failed map[Failed:1 Success:1 Terminated:2]", 2},
		{"some failures are allowed", Command{MaxErrors: "2"}, []string{"2 fail", "3 ok"}, 5 * time.Second,
			"Failed/Incomplete map[Failed:2 Success:3]", 5},
		{"a percentage of failures is rounded down", Command{MaxErrors: "49%", MaxConcurrency: "1"}, []string{"2 fail", "2 ok"}, 9 * time.Second,
			"Failed/Failed map[Failed:2 Terminated:2]", 1},
		{"no node at all", Command{}, nil, time.Second, "Failed/NoInstancesInTag map[]", 0},
		{"a node that is away is told until the time is over", Command{Delivery: time.Minute}, []string{"1 away", "1 ok"}, 30 * time.Second,
			"InProgress/InProgress map[Delayed:1 Success:1]", 1},
		{"and then no more", Command{Delivery: time.Minute}, []string{"1 away", "1 ok"}, 61 * time.Second,
			"TimedOut/DeliveryTimedOut map[DeliveryTimedOut:1 Success:1]", 1},
		{"nodes that are away hold no place", Command{MaxConcurrency: "1", MaxErrors: "5"}, []string{"3 away", "3 ok"}, 5 * time.Second,
			"InProgress/InProgress map[Delayed:3 Success:3]", 1},
		{"nor do those that do not answer, for long", Command{MaxConcurrency: "1"}, []string{"1 deaf", "1 ok"}, 30 * time.Second,
			"InProgress/InProgress map[Delayed:1 Success:1]", 1},
		{"a node that took it and says nothing", Command{}, []string{"1 silent", "1 ok"}, 3 * time.Minute,
			"Failed/Failed map[ExecutionTimedOut:1 Success:1]", 1},
		{"two hundred", Command{MaxErrors: "100%", Delivery: time.Minute}, []string{"197 ok", "2 fail", "1 deaf"}, 2 * time.Minute,
			"Failed/Incomplete map[DeliveryTimedOut:1 Failed:2 Success:197]", 50},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				defer r.close()
				if tt.c.Delivery > 0 {
					tt.c.Execution = time.Minute
				}
				id := r.send(r.member("a"), tt.c, tt.nodes...)
				r.want("after "+tt.after.String(), r.after(tt.after, id), tt.want)
				if got := r.fleet.atOnce(); got != tt.most {
					t.Errorf("got %d nodes at once, want %d", got, tt.most)
				}
			})
		})
	}
}

// A node that connects is told at once, and once.
func TestConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		m := r.member("a")
		id := r.send(m, Command{}, "1 away")
		r.want("away", r.after(20*time.Minute, id), "Pending/Pending map[Delayed:1]")
		r.fleet.mu.Lock()
		r.fleet.back["away-0"] = true
		r.fleet.mu.Unlock()
		m.NodeConnected(t.Context(), "away-0")
		r.want("back", r.after(1100*time.Millisecond, id), "Success/Success map[Success:1]")
		if n := r.fleet.count("away-0"); n != 1 {
			t.Errorf("the node was told %d times", n)
		}
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		m := r.member("a")
		r.fleet.takes = time.Hour
		id := r.send(m, Command{MaxConcurrency: "3"}, "3 ok", "1 silent", "2 away")
		r.after(time.Second, id)
		if err := m.Cancel(t.Context(), id, []string{"ok-1"}, "arn:bob"); err != nil {
			t.Fatal(err)
		}
		r.want("on one node", r.after(time.Second, id), "InProgress/InProgress map[Cancelled:1 InProgress:3 Pending:2]")
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		m := r.member("a")
		r.fleet.takes = time.Hour
		id := r.send(m, Command{MaxConcurrency: "3"}, "2 ok", "1 silent", "2 away")
		r.after(time.Second, id)
		if err := m.Cancel(t.Context(), id, nil, "arn:bob"); err != nil {
			t.Fatal(err)
		}
		r.want("on all", r.after(time.Second, id), "Cancelling/Cancelling map[Cancelled:4 Cancelling:1]")
		r.want("when the silent one's time is over", r.after(3*time.Minute, id), "Cancelled/Cancelled map[Cancelled:4 ExecutionTimedOut:1]")
		if err := m.Cancel(t.Context(), id, nil, "arn:eve"); err != nil {
			t.Errorf("cancelling what has ended: %v", err)
		}
		if c, _ := r.store.Command(t.Context(), id); c.CancelledBy != "arn:bob" {
			t.Errorf("cancelled by %s", c.CancelledBy)
		}
		if err := m.Cancel(t.Context(), uuid.NewString(), nil, "arn:bob"); !errors.Is(err, ErrNotFound) {
			t.Errorf("cancelling nothing: got %v", err)
		}
	})
}

// The member that schedules a command dies, or is stopped; another one, or its next
// run, goes on with it, and no node runs it twice.
func TestMemberDies(t *testing.T) {
	for name, leave := range map[string]func(*rig, *Runner){
		"stopped": func(r *rig, m *Runner) { m.Close(context.Background()) },
		"died":    func(r *rig, m *Runner) { m.cancel(); m.wg.Wait() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				defer r.close()
				first := r.member("a")
				r.fleet.takes = 10 * time.Second
				id := r.send(first, Command{MaxConcurrency: "2"}, "6 ok")
				r.after(5*time.Second, id)
				leave(r, first)
				delete(r.now, "a")
				r.member("b")
				r.want("after it was taken over", r.after(time.Minute, id), "Success/Success map[Success:6]")
				if got := r.fleet.atOnce(); got != 2 {
					t.Errorf("%d nodes at once", got)
				}
				for n := range 6 {
					if got := r.fleet.count(fmt.Sprint("ok-", n)); got != 1 {
						t.Errorf("node %d was told %d times", n, got)
					}
				}
			})
		})
	}
}

// Two members hear nodes; the one that does not schedule passes on what it heard.
func TestOtherMemberHears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		a := r.member("a")
		r.member("b") // hears the nodes
		id := r.send(a, Command{MaxConcurrency: "1"}, "5 ok")
		r.want("after all", r.after(6*time.Second, id), "Success/Success map[Success:5]")
	})
}

// While the store is away nothing is lost and nothing is done twice.
func TestStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		m := r.member("a")
		id := r.send(m, Command{MaxConcurrency: "1"}, "3 ok")
		time.Sleep(500 * time.Millisecond)
		r.store.fail(errors.New("disk full"))
		if err := m.JobReply(t.Context(), "ok-0", replyOf(wire.JobID(id, "ok-0"), "Success", 0, "")); err == nil {
			t.Error("a report that could not be stored was taken")
		}
		time.Sleep(5 * time.Second)
		r.store.fail(nil)
		m.JobReply(t.Context(), "ok-0", replyOf(wire.JobID(id, "ok-0"), "Success", 0, ""))
		r.want("afterwards", r.after(10*time.Second, id), "Success/Success map[Success:3]")
	})
}

// What nodes could try.
func TestHostileNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		m, ctx := r.member("a"), t.Context()
		id := r.send(m, Command{}, "1 silent", "1 ok", "1 away")
		r.after(2*time.Second, id)
		state := func(node string) string {
			i, err := r.store.Invocation(ctx, id, node)
			if err != nil {
				t.Fatal(err)
			}
			return i.Details
		}
		for what, say := range map[string]func() error{
			"for another node": func() error {
				return m.JobReply(ctx, "ok-0", replyOf(wire.JobID(id, "silent-0"), "Success", 0, "forged"))
			},
			"an answer for another node": func() error {
				return m.JobAck(ctx, "ok-0", wire.JobAck{JobID: wire.JobID(id, "silent-0"), StatusCode: wire.JobInvalidDocument})
			},
			"a final state again": func() error {
				return m.JobReply(ctx, "ok-0", replyOf(wire.JobID(id, "ok-0"), "Failed", 9, "changed"))
			},
			"a command it was not sent": func() error {
				return m.JobReply(ctx, "away-0", replyOf(wire.JobID(id, "away-0"), "Success", 0, "forged"))
			},
			"a command that is not there": func() error {
				return m.JobReply(ctx, "ok-0", replyOf(wire.JobID(uuid.NewString(), "ok-0"), "Success", 0, ""))
			},
			"an id that is none": func() error {
				return m.JobReply(ctx, "ok-0", replyOf("aws.ssm.'; DROP TABLE commands.ok-0", "Success", 0, ""))
			},
			"content that is none": func() error {
				return m.JobReply(ctx, "ok-0", wire.JobReply{JobID: wire.JobID(id, "ok-0"), Content: "{"})
			},
		} {
			if err := say(); err != nil {
				t.Errorf("%s: got %v; it would come again", what, err)
			}
			if got := []string{state("ok-0"), state("silent-0"), state("away-0")}; !cmp.Equal(got, []string{"Success", "InProgress", "Delayed"}) {
				t.Errorf("after %s: got %q", what, got)
			}
		}
		if i, _ := r.store.Invocation(ctx, id, "ok-0"); i.Steps[0].Code != 0 || i.Steps[0].Stdout != "out of ok-0" {
			t.Errorf("got step %+v", i.Steps[0])
		}
	})
}

func TestNodeRemovedAndUserDisabled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		m := r.member("a")
		id := r.send(m, Command{RootID: "AIDA1"}, "1 away", "1 silent")
		r.after(time.Second, id)
		if err := m.NodeRemoved(t.Context(), "away-0"); err != nil {
			t.Fatal(err)
		}
		r.want("a node removed", r.after(time.Second, id), "InProgress/InProgress map[InProgress:1 Undeliverable:1]")
		if err := m.CancelOf(t.Context(), "AIDA2", "arn:admin"); err != nil {
			t.Fatal(err)
		}
		r.want("somebody else disabled", r.after(time.Second, id), "InProgress/InProgress map[InProgress:1 Undeliverable:1]")
		if err := m.CancelOf(t.Context(), "AIDA1", "arn:admin"); err != nil {
			t.Fatal(err)
		}
		r.want("its sender disabled", r.after(time.Second, id), "Cancelling/Cancelling map[Cancelling:1 Undeliverable:1]")
	})
}

func TestOldCommandsAreDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		m := r.member("a")
		old := r.send(m, Command{}, "1 ok")
		time.Sleep(4 * time.Hour)
		recent := r.send(m, Command{}, "1 ok")
		time.Sleep(2*time.Hour + time.Minute)
		if _, err := r.store.Command(t.Context(), old); !errors.Is(err, ErrNotFound) {
			t.Errorf("a command that ended long ago: got %v, want ErrNotFound", err)
		}
		if _, err := r.store.Command(t.Context(), recent); err != nil {
			t.Error(err)
		}
	})
}
