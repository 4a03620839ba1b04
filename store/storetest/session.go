package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"sallyport.dev/session"
)

func sessionID(s session.Session) string { return s.ID }

func testSessions(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	status := 3
	full := session.Session{ID: "alice-1", NodeID: "mi-1", Target: "web", Document: "D", SessionType: "Standard_Stream",
		Owner: "arn:alice", OwnerID: "AIDA1", OwnerName: "alice", RootID: "AIDA0", Reason: "why", SourceIP: "192.0.2.1", RunAs: "ec2-user", Authority: `{"at":"2026"}`,
		State: session.StateTerminated, Started: at(1), Ended: at(2), EndReason: "exit", ExitStatus: &status,
		Member: "one", Recording: "2026/03/01/alice-1.cast", BytesIn: 1 << 40, BytesOut: 1<<62 + 1,
		MaxDuration: time.Hour, IdleTimeout: 20 * time.Minute, KMSKey: "key", Encryption: session.EncryptionRecorded}
	must(t, s.CreateSession(ctx, full))
	wantSame(t, "session", get[session.Session](t)(s.Session(ctx, "alice-1")), full)
	bare := session.Session{ID: "bob-1", State: session.StateConnecting, Started: at(3)}
	must(t, s.CreateSession(ctx, bare))
	wantSame(t, "session without more", get[session.Session](t)(s.Session(ctx, "bob-1")), bare)
	if err := s.CreateSession(ctx, bare); err == nil {
		t.Error("creating a session twice: got no error")
	}
	_, err := s.Session(ctx, "x")
	wantErr(t, "unknown session", err, session.ErrNotFound)
}

func testSessionFilters(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	states := []session.State{session.StateConnected, session.StateTerminated, session.StateConnecting, session.StateFailed, session.StateDisconnected, session.StateTerminating}
	for i, state := range states {
		n := i + 1
		must(t, s.CreateSession(ctx, session.Session{ID: fmt.Sprint("s", n), State: state, Started: at(n),
			NodeID: fmt.Sprint("mi-", n%2), Owner: fmt.Sprint("arn:", n%3), OwnerID: fmt.Sprint("id", n%3), RootID: fmt.Sprint("root", n%3), Member: fmt.Sprint("m", n%2)}))
	}
	must(t, s.CreateSession(ctx, session.Session{ID: "s0", State: session.StateConnected, Started: at(6)})) // same moment as s6
	yes, no := true, false
	tests := []struct {
		name   string
		filter session.Filter
		want   string
	}{
		{"all, newest first", session.Filter{}, "s6 s0 s5 s4 s3 s2 s1"},
		{"active", session.Filter{Active: &yes}, "s6 s0 s5 s3 s1"},
		{"history", session.Filter{Active: &no}, "s4 s2"},
		{"by state", session.Filter{State: session.StateConnected}, "s0 s1"},
		{"by node", session.Filter{NodeID: "mi-1"}, "s5 s3 s1"},
		{"by owner", session.Filter{Owner: "arn:2"}, "s5 s2"},
		{"by owner id", session.Filter{OwnerID: "id0"}, "s6 s3"},
		{"by root id", session.Filter{RootID: "root0"}, "s6 s3"},
		{"by member, active", session.Filter{Member: "m0", Active: &yes}, "s6"},
		{"by ids", session.Filter{IDs: []string{"s2", "s5", "none"}}, "s5 s2"},
		{"started after", session.Filter{StartedAfter: at(5)}, "s6 s0"},
		{"started before", session.Filter{StartedBefore: at(3)}, "s2 s1"},
		{"page", session.Filter{Limit: 1}, "s6"},
		{"next page, at the same moment", session.Filter{After: "s6", Limit: 2}, "s0 s5"},
		{"page of some", session.Filter{After: "s5", Active: &yes, Limit: 1}, "s3"},
		{"last page", session.Filter{After: "s1"}, ""},
	}
	for _, tt := range tests {
		if got := names(get[[]session.Session](t)(s.Sessions(ctx, tt.filter)), sessionID); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	_, err := s.Sessions(ctx, session.Filter{After: "none"})
	wantErr(t, "after an unknown session", err, session.ErrNotFound)
}

func testUpdateSession(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	must(t, s.CreateSession(ctx, session.Session{ID: "a", State: session.StateConnected, Started: at(1)}))
	update := func(id string, change func(*session.Session) error) bool {
		t.Helper()
		return get[bool](t)(s.UpdateSession(ctx, id, change))
	}
	status := 0
	if !update("a", func(s *session.Session) error { s.BytesOut, s.ID = 5, "forged"; return nil }) {
		t.Error("changing an active session: got false")
	}
	refuse := errors.New("no")
	changed, err := s.UpdateSession(ctx, "a", func(s *session.Session) error { s.BytesOut = 9; return refuse })
	wantErr(t, "a change that refuses", err, refuse)
	wantSame(t, "a change that refuses", changed, false)
	if !update("a", func(s *session.Session) error {
		s.State, s.Ended, s.ExitStatus = session.StateTerminated, at(2), &status
		return nil
	}) {
		t.Error("ending a session: got false")
	}
	if update("a", func(s *session.Session) error { t.Error("change called"); return nil }) {
		t.Error("changing an ended session: got true")
	}
	wantSame(t, "session", get[session.Session](t)(s.Session(ctx, "a")), session.Session{ID: "a",
		State: session.StateTerminated, Started: at(1), Ended: at(2), BytesOut: 5, ExitStatus: &status})
	_, err = s.UpdateSession(ctx, "x", func(*session.Session) error { return nil })
	wantErr(t, "unknown session", err, session.ErrNotFound)
}
