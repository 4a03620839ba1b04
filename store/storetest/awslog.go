package storetest

import (
	"testing"
	"time"

	"sallyport.dev/awslog"
	"sallyport.dev/session"
	"sallyport.dev/store"
)

func logJob(session string, kind awslog.Kind, streaming bool) awslog.Job {
	return awslog.Job{
		Session: awslog.Session{ID: session, Recording: "2026/03/01/" + session, Node: "mi-1", Owner: "arn:alice"},
		Kind:    kind, Place: "logs", Name: session + ".log", Encrypted: true, Streaming: streaming, RunAs: "ssm-user",
		State: awslog.Waiting, Created: at(1), Due: at(1),
	}
}

func jobID(j awslog.Job) string { return j.ID + "/" + string(j.Kind) }

func claimLogs(t *testing.T, s *store.Store, member string, live bool, now time.Time) []awslog.Job {
	t.Helper()
	return get[[]awslog.Job](t)(s.ClaimLogs(t.Context(), awslog.Claim{
		Member: member, Now: now, Lease: now.Add(time.Second), Live: live, Orphaned: now.Add(-10 * time.Second), Limit: 10,
	}))
}

func testAWSLogs(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	for id, state := range map[string]session.State{"live": session.StateConnected, "over": session.StateTerminated, "void": session.StateFailed} {
		row := session.Session{ID: id, State: state, Started: at(1), Member: "one"}
		if !state.Active() {
			row.Ended = at(2)
		}
		must(t, s.CreateSession(ctx, row))
	}
	stream := logJob("live", awslog.Logs, true)
	must(t, s.AddLogs(ctx, []awslog.Job{stream, logJob("live", awslog.S3, false)}))
	must(t, s.AddLogs(ctx, []awslog.Job{logJob("over", awslog.S3, false), logJob("void", awslog.Logs, true), logJob("unknown", awslog.S3, false)}))
	must(t, s.AddLogs(ctx, []awslog.Job{{Session: awslog.Session{ID: "live"}, Kind: awslog.Logs}})) // there already
	wantSame(t, "job", get[[]awslog.Job](t)(s.Logs(ctx, []string{"live"}))[1], stream)
	wantSame(t, "of no session", len(get[[]awslog.Job](t)(s.Logs(ctx, nil))), 0)

	wantSame(t, "live, of another member", names(claimLogs(t, s, "two", true, at(5)), jobID), "")
	wantSame(t, "live", names(claimLogs(t, s, "one", true, at(5)), jobID), "live/logs")
	wantSame(t, "live, held", names(claimLogs(t, s, "one", true, at(5)), jobID), "")
	wantSame(t, "live, lease ran out, another member", names(claimLogs(t, s, "two", true, at(30)), jobID), "live/logs")
	stream.Member = "one"
	wantErr(t, "taken over", s.SaveLog(ctx, stream), awslog.ErrLost)
	stream.Member, stream.Lease, stream.Position, stream.Tries, stream.Error = "two", at(31), 1<<40, 2, "no"
	must(t, s.SaveLog(ctx, stream))
	wantSame(t, "saved", get[[]awslog.Job](t)(s.Logs(ctx, []string{"live"}))[1], stream)

	over := claimLogs(t, s, "two", false, at(30))
	wantSame(t, "ended", len(over), 2)
	for _, j := range over {
		wantSame(t, "end of the session", j.Ended, at(2))
		wantSame(t, "failed "+j.ID, j.Void, j.ID == "void")
	}
	wantSame(t, "pending", get[awslog.Pending](t)(s.PendingLogs(ctx)), awslog.Pending{Jobs: 4, Failing: 1, Oldest: at(2)})
	wantSame(t, "ended sessions", get[map[string]time.Time](t)(s.RenewLogs(ctx, "two", at(40))), map[string]time.Time{"over": at(2), "void": at(2)})
	wantSame(t, "renewed", len(claimLogs(t, s, "one", false, at(39))), 0)
	done := over[0]
	done.State, done.Written, done.Lease = awslog.Done, at(33), time.Time{}
	must(t, s.SaveLog(ctx, done))
	wantErr(t, "done once", s.SaveLog(ctx, done), awslog.ErrLost)
	must(t, s.ReleaseLogs(ctx, "two"))
	wantSame(t, "released", names(claimLogs(t, s, "one", false, at(39)), jobID), jobID(over[1]))
}

// testAWSLogRace: of members that claim at once each job goes to one.
func testAWSLogRace(t *testing.T, fresh Fresh) {
	url := fresh(t)
	members := []*store.Store{Open(t, url), Open(t, url)}
	ctx := t.Context()
	must(t, members[0].CreateSession(ctx, session.Session{ID: "over", State: session.StateTerminated, Started: at(1), Ended: at(2)}))
	must(t, members[0].AddLogs(ctx, []awslog.Job{logJob("over", awslog.S3, false), logJob("over", awslog.Logs, false)}))
	got := make(chan int, 10)
	atOnce(t, 10, func(i int) error {
		jobs, err := members[i%2].ClaimLogs(ctx, awslog.Claim{Member: string(rune('a' + i)), Now: at(3), Lease: at(9), Limit: 10})
		got <- len(jobs)
		return err
	})
	total := 0
	for range 10 {
		total += <-got
	}
	wantSame(t, "claimed", total, 2)
}
