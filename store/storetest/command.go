package storetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"sallyport.dev/command"
)

func commandID(c command.Command) string       { return c.ID }
func invocationID(i command.Invocation) string { return i.CommandID + "/" + i.NodeID }

func testCommands(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	full := command.Command{ID: "c1", Document: "D", DocumentVersion: "2", Comment: "why", Content: json.RawMessage(`{"a":[1]}`),
		Parameters: map[string][]string{"commands": {"a", "b\x00"}}, Values: map[string]json.RawMessage{"commands": json.RawMessage(`["a"]`)},
		NodeIDs: []string{"mi-1"}, Targets: []command.Target{{Key: "tag:Team", Values: []string{"x"}}},
		MaxConcurrency: "10%", MaxErrors: "0", Delivery: time.Hour, Execution: time.Minute, Requested: at(1),
		Owner: "arn:alice", OwnerID: "AIDA1", OwnerName: "alice", RootID: "AIDA0", SourceIP: "192.0.2.1", Authority: `{"at":"2026"}`,
		Status: command.Pending, Details: "Pending", TargetCount: 1, CompletedCount: 2, ErrorCount: 3, DeliveryTimedOutCount: 4,
		CancelledBy: "arn:bob", Revision: 5, Member: "one", Lease: at(20)}
	inv := command.Invocation{CommandID: "c1", NodeID: "mi-1", NodeName: "web", Rank: 3, Requested: at(1), Status: command.InProgress,
		Details: "InProgress", Trace: "t", Tries: 1, Tried: at(2), Sent: at(3), Delivered: at(4), Started: at(5),
		CancelAsked: at(6), CancelTries: 2, CancelTried: at(7), Revision: 1,
		Steps: []command.Step{{Name: "s", Plugin: "aws:runShellScript", Status: command.Success, Code: 3, Started: at(5), Ended: at(6), Stdout: "o\x00", Stderr: "e"}}}
	must(t, s.CreateCommand(ctx, full, []command.Invocation{inv}))
	wantSame(t, "command", get[command.Command](t)(s.Command(ctx, "c1")), full)
	wantSame(t, "invocation", get[command.Invocation](t)(s.Invocation(ctx, "c1", "mi-1")), inv)
	if err := s.CreateCommand(ctx, full, nil); err == nil {
		t.Error("creating a command twice: got no error")
	}
	twice := command.Command{ID: "c2"}
	if err := s.CreateCommand(ctx, twice, []command.Invocation{{CommandID: "c2", NodeID: "a"}, {CommandID: "c2", NodeID: "a"}}); err == nil {
		t.Error("a node twice: got no error")
	}
	_, err := s.Command(ctx, "c2")
	wantErr(t, "a command whose nodes could not be stored", err, command.ErrNotFound)
	_, err = s.Invocation(ctx, "c1", "mi-2")
	wantErr(t, "unknown invocation", err, command.ErrNoInvocation)
}

func testCommandFilters(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	for n := 1; n <= 4; n++ {
		c := command.Command{ID: fmt.Sprint("c", n), Document: fmt.Sprint("D", n%2), Requested: at(n), RootID: fmt.Sprint("r", n%2),
			Status: command.Failed, Details: command.Incomplete}
		if c.Ended = at(10); n == 4 {
			c.Ended, c.Status, c.Details = time.Time{}, command.Pending, "Pending"
		}
		var all []command.Invocation
		for rank, node := range []string{"b", "a"} {
			all = append(all, command.Invocation{CommandID: c.ID, NodeID: node, Rank: rank, Requested: c.Requested,
				Status: c.Status, Details: c.Details, Ended: c.Ended, Revision: int64(rank + 1), Steps: []command.Step{{Name: "s"}}})
		}
		must(t, s.CreateCommand(ctx, c, all[:1+n%2]))
	}
	yes, no := true, false
	for _, tt := range []struct {
		name   string
		filter command.Filter
		want   string
	}{
		{"all, newest first", command.Filter{}, "c4 c3 c2 c1"},
		{"active", command.Filter{Active: &yes}, "c4"},
		{"ended", command.Filter{Active: &no}, "c3 c2 c1"},
		{"ids", command.Filter{IDs: []string{"c1", "c3", "x"}}, "c3 c1"},
		{"node", command.Filter{NodeID: "a"}, "c3 c1"},
		{"root", command.Filter{RootID: "r0"}, "c4 c2"},
		{"document", command.Filter{Document: "D1"}, "c3 c1"},
		{"status", command.Filter{Status: "Failed"}, "c3 c2 c1"},
		{"details", command.Filter{Status: "Incomplete", Limit: 1}, "c3"},
		{"between", command.Filter{RequestedAfter: at(1), RequestedBefore: at(3)}, "c2"},
		{"page", command.Filter{After: "c3", Limit: 1}, "c2"},
	} {
		if got := names(get[[]command.Command](t)(s.Commands(ctx, tt.filter)), commandID); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	for _, tt := range []struct {
		name   string
		filter command.InvocationFilter
		want   string
	}{
		{"all", command.InvocationFilter{}, "c4/b c3/b c3/a c2/b c1/b c1/a"},
		{"of a command", command.InvocationFilter{CommandID: "c3"}, "c3/b c3/a"},
		{"of a node", command.InvocationFilter{NodeID: "a"}, "c3/a c1/a"},
		{"of some nodes", command.InvocationFilter{CommandID: "c1", NodeIDs: []string{"b", "x"}}, "c1/b"},
		{"active", command.InvocationFilter{Active: true}, "c4/b"},
		{"document", command.InvocationFilter{Document: "D0"}, "c4/b c2/b"},
		{"status", command.InvocationFilter{Status: "Incomplete", NodeID: "b"}, "c3/b c2/b c1/b"},
		{"changed since", command.InvocationFilter{CommandID: "c1", ByRevision: true, Since: 1}, "c1/a"},
		{"in order of change", command.InvocationFilter{CommandID: "c1", ByRevision: true}, "c1/b c1/a"},
		{"page within a command", command.InvocationFilter{AfterCommand: "c3", AfterNode: "b", Limit: 2}, "c3/a c2/b"},
		{"page of a command", command.InvocationFilter{CommandID: "c1", AfterCommand: "c1", AfterNode: "b"}, "c1/a"},
		{"after a command", command.InvocationFilter{AfterCommand: "c2", AfterNode: "b", NodeID: "a"}, "c1/a"},
	} {
		if got := names(get[[]command.Invocation](t)(s.Invocations(ctx, tt.filter)), invocationID); got != tt.want {
			t.Errorf("invocations, %s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	for _, steps := range []bool{true, false} {
		all := get[[]command.Invocation](t)(s.Invocations(ctx, command.InvocationFilter{CommandID: "c4", Steps: steps}))
		if got := len(all[0].Steps) == 1; got != steps {
			t.Errorf("steps asked for %v, got %v", steps, got)
		}
	}
}

func testUpdateCommand(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	must(t, s.CreateCommand(ctx, command.Command{ID: "c", Requested: at(1)}, []command.Invocation{{CommandID: "c", NodeID: "n"}}))
	updated := func(change func(*command.Invocation) error) bool {
		return get[bool](t)(s.UpdateInvocation(ctx, "c", "n", change))
	}
	refuse := errors.New("no")
	_, err := s.UpdateInvocation(ctx, "c", "n", func(*command.Invocation) error { return refuse })
	wantErr(t, "a change that refuses", err, refuse)
	steps := []command.Step{{Name: "s", Stdout: "out"}}
	wantSame(t, "changing", updated(func(i *command.Invocation) error { i.Steps, i.Sent = steps, at(2); return nil }), true)
	wantSame(t, "changing", updated(func(i *command.Invocation) error { i.Status, i.Ended = command.Success, at(3); return nil }), true)
	wantSame(t, "changing what has ended", updated(func(i *command.Invocation) error { i.Status = command.Failed; return nil }), false)
	wantSame(t, "invocation", get[command.Invocation](t)(s.Invocation(ctx, "c", "n")),
		command.Invocation{CommandID: "c", NodeID: "n", Status: command.Success, Sent: at(2), Ended: at(3), Revision: 2, Steps: steps})
	end := func(c *command.Command) error {
		c.Status, c.Details, c.CompletedCount, c.Ended, c.Document = command.Success, "Success", 1, at(4), "forged"
		return nil
	}
	wantSame(t, "ending", get[bool](t)(s.UpdateCommand(ctx, "c", end)), true)
	wantSame(t, "ending again", get[bool](t)(s.UpdateCommand(ctx, "c", end)), false)
	got := get[command.Command](t)(s.Command(ctx, "c"))
	wantSame(t, "command", []any{got.Status, got.Revision, got.Document, got.CompletedCount}, []any{command.Success, int64(3), "", 1})
	_, err = s.UpdateCommand(ctx, "x", end)
	wantErr(t, "unknown command", err, command.ErrNotFound)
}

func testClaimCommands(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	must(t, s.CreateCommand(ctx, command.Command{ID: "mine", Requested: at(1), Member: "a", Lease: at(5)}, nil))
	must(t, s.CreateCommand(ctx, command.Command{ID: "lost", Requested: at(1), Member: "dead", Lease: at(2)}, nil))
	must(t, s.CreateCommand(ctx, command.Command{ID: "held", Requested: at(1), Member: "b", Lease: at(9)}, nil))
	must(t, s.CreateCommand(ctx, command.Command{ID: "over", Requested: at(1), Member: "a", Ended: at(2)}, nil))
	claim := func(member string, now, until int) string {
		ids := get[[]string](t)(s.ClaimCommands(ctx, member, at(now), at(until)))
		return fmt.Sprint(len(ids), contains(ids, "mine"), contains(ids, "lost"), contains(ids, "held"))
	}
	wantSame(t, "own and lost ones", claim("a", 4, 20), "2 true true false")
	wantSame(t, "by another meanwhile", claim("c", 8, 21), "0 false false false")
	must(t, s.ReleaseCommands(ctx, "a"))
	wantSame(t, "after they were released", claim("c", 8, 21), "2 true true false")
	won := atOnce(t, 8, func(n int) error {
		ids, err := s.ClaimCommands(ctx, fmt.Sprint("m", n), at(10), at(30))
		if err == nil && len(ids) != 1 {
			return command.ErrNotFound
		}
		return err
	}, command.ErrNotFound)
	wantSame(t, "how many got the one whose lease ended", won[nil], 1)
}

func contains(all []string, one string) bool {
	for _, s := range all {
		if s == one {
			return true
		}
	}
	return false
}

func testDeleteCommands(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	for n, ended := range []time.Time{{}, at(1), at(2), at(9)} {
		id := fmt.Sprint("c", n)
		must(t, s.CreateCommand(ctx, command.Command{ID: id, Requested: at(n), Ended: ended}, []command.Invocation{{CommandID: id, NodeID: "n", Requested: at(n), Ended: ended}}))
	}
	wantSame(t, "deleted at most", get[int](t)(s.DeleteCommands(ctx, at(5), 1)), 1)
	wantSame(t, "deleted", get[int](t)(s.DeleteCommands(ctx, at(5), 9)), 1)
	wantSame(t, "left", names(get[[]command.Command](t)(s.Commands(ctx, command.Filter{})), commandID), "c3 c0")
	wantSame(t, "invocations left", names(get[[]command.Invocation](t)(s.Invocations(ctx, command.InvocationFilter{})), invocationID), "c3/n c0/n")
}
