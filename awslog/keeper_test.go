package awslog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"sallyport.dev/audit"
	"sallyport.dev/awslog"
	"sallyport.dev/internal/awstest"
	"sallyport.dev/recording"
	"sallyport.dev/session"
	"sallyport.dev/store"
)

// system is a keeper with what it works with.
type system struct {
	t     *testing.T
	s3    *awstest.S3
	logs  *awstest.Logs
	store *store.Store
	tapes *tapes
	audit *auditLog
	now   clock
	dead  *dying // the store of the next member; optional
}

// dying is a store that a member loses, as when it is killed: at once, or where it notes a
// place behind the last.
type dying struct {
	awslog.Store
	last atomic.Int64 // unless zero
	dead atomic.Bool
}

var errDead = errors.New("the member is dead")

func (d *dying) SaveLog(ctx context.Context, j awslog.Job) error {
	if last := d.last.Load(); last > 0 && j.Position > last {
		d.dead.Store(true)
	}
	if d.dead.Load() {
		return errDead
	}
	return d.Store.SaveLog(ctx, j)
}

func (d *dying) ReleaseLogs(ctx context.Context, member string) error {
	if d.dead.Load() {
		return nil
	}
	return d.Store.ReleaseLogs(ctx, member)
}

// clock is a clock that tests set ahead.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return time.Now().Add(c.ahead) }

func (c *clock) advance(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.ahead += d }

// tapes are recordings that grow.
type tapes struct {
	mu  sync.Mutex
	all map[string][]byte
}

type tape struct{ *bytes.Reader }

func (tape) Close() error { return nil }

func (t *tapes) open(_ context.Context, name string) (awslog.Recording, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.all[name]
	if b == nil {
		return nil, fmt.Errorf("%s: %w", name, recording.ErrNotFound)
	}
	return tape{bytes.NewReader(b)}, nil
}

// Write adds to the recording of session s.
func (t *tapes) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all["r/s"] = append(t.all["r/s"], p...)
	return len(p), nil
}

// set replaces the recording of session s, nil for none, and returns what it was.
func (t *tapes) set(b []byte) (old []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old, t.all["r/s"] = t.all["r/s"], b
	return old
}

type auditLog struct {
	mu  sync.Mutex
	all []audit.Record
}

func (a *auditLog) Append(_ context.Context, r audit.Record) (audit.Record, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, r)
	return r, nil
}

func (a *auditLog) actions() (all []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.all {
		all = append(all, r.Action+" "+r.Details["output"])
	}
	return all
}

func newSystem(t *testing.T) *system {
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), store.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s := &system{t: t, s3: awstest.NewS3(t, "logs"), logs: awstest.NewLogs(t), store: db, tapes: &tapes{all: map[string][]byte{}}, audit: &auditLog{}}
	s.logs.Group("/sessions", "")
	return s
}

// member starts a keeper, and returns it with what stops it.
func (s *system) member(name string) (k *awslog.Keeper, stop func()) {
	s.t.Helper()
	keys := credentials.NewStaticCredentialsProvider(awstest.AccessKey, awstest.SecretKey, "")
	var db awslog.Store = s.store
	if s.dead != nil {
		db = s.dead
	}
	k, err := awslog.New(s.t.Context(), awslog.Config{
		S3: s3.New(s3.Options{Region: "eu-central-1", BaseEndpoint: &s.s3.URL, UsePathStyle: true, Credentials: keys, RetryMaxAttempts: 1,
			RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired}),
		Logs:    cloudwatchlogs.New(cloudwatchlogs.Options{Region: "eu-central-1", BaseEndpoint: &s.logs.URL, Credentials: keys, RetryMaxAttempts: 1}),
		Buckets: []string{"logs", "other/sessions/*"}, LogGroups: []string{"/sess*"}, Region: "us-east-1", Place: "eu-central-1",
		Store: db, Open: s.tapes.open, Audit: s.audit, Member: name,
		Logger: slog.New(slog.NewTextHandler(s.t.Output(), nil)), Now: s.now.now, Interval: 5 * time.Millisecond, PartSize: 1 << 20,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := k.Close(ctx); err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(stop)
	return k, stop
}

var started = time.Now().Add(-time.Minute).UTC().Truncate(time.Second)

// begin starts session s with its recording.
func (s *system) begin(k *awslog.Keeper, o awslog.Outputs) *recording.Writer {
	s.t.Helper()
	w, err := recording.NewWriter(s.tapes, recording.Header{Width: 80, Height: 24, Metadata: recording.Metadata{Session: "s", Started: started}})
	if err != nil {
		s.t.Fatal(err)
	}
	must(s.t, s.store.CreateSession(s.t.Context(), session.Session{ID: "s", State: session.StateConnected, Started: started, Member: "a"}))
	must(s.t, k.Begin(s.t.Context(), awslog.Session{ID: "s", Recording: "r/s", Node: "mi-1", Owner: "arn:alice"}, o))
	return w
}

func (s *system) show(w *recording.Writer, after time.Duration, text string) {
	must(s.t, w.Output(started.Add(after), []byte(text)))
	must(s.t, w.Flush())
}

// end ends session s, with the end in its recording or without.
func (s *system) end(w *recording.Writer, state session.State) {
	s.t.Helper()
	if w != nil {
		if _, err := w.Close(recording.End{Reason: "exit", Ended: started.Add(30 * time.Second)}); err != nil {
			s.t.Fatal(err)
		}
	}
	_, err := s.store.UpdateSession(s.t.Context(), "s", func(v *session.Session) error {
		v.State, v.Ended = state, s.now.now()
		return nil
	})
	must(s.t, err)
}

func (s *system) job(kind awslog.Kind) awslog.Job {
	s.t.Helper()
	all, err := s.store.Logs(s.t.Context(), []string{"s"})
	must(s.t, err)
	for _, j := range all {
		if j.Kind == kind {
			return j
		}
	}
	s.t.Fatalf("there is no job of kind %s", kind)
	return awslog.Job{}
}

func (s *system) waitFor(what string, holds func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func (s *system) waitState(kind awslog.Kind, state awslog.State) {
	s.t.Helper()
	s.waitFor(fmt.Sprintf("%s is %s", kind, state), func() bool { return s.job(kind).State == state })
}

// data are the lines of session data in a stream, in order.
func (s *system) data() (all []string) {
	for _, e := range s.logs.Events("/sessions", "s") {
		var m struct{ SessionData []string }
		if err := json.Unmarshal([]byte(e.Message), &m); err != nil {
			s.t.Fatalf("event %q: %v", e.Message, err)
		}
		all = append(all, m.SessionData...)
	}
	return all
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var (
	toS3   = awslog.Outputs{Bucket: "logs", Prefix: "team/a"}
	stream = awslog.Outputs{LogGroup: "/sessions", Streaming: true, RunAs: "ssm-user"}
)

func TestObject(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(s *system)
		out     awslog.Outputs
		key     string
		headers map[string]string
	}{
		{"as AWS's agent makes it", func(*system) {}, toS3, "team/a/s.log",
			map[string]string{"X-Amz-Acl": "bucket-owner-full-control", "X-Amz-Server-Side-Encryption": ""}},
		{"without a prefix", func(*system) {}, awslog.Outputs{Bucket: "logs"}, "s.log", nil},
		{"slashes of a prefix", func(*system) {}, awslog.Outputs{Bucket: "logs", Prefix: "/x//y/"}, "x/y/s.log", nil},
		{"encrypted with S3's key", func(s *system) { s.s3.Encrypt("logs", "AES256") }, awslog.Outputs{Bucket: "logs", BucketEncrypted: true}, "s.log",
			map[string]string{"X-Amz-Server-Side-Encryption": "AES256"}},
		{"encrypted with a key of KMS, though nobody demands it", func(s *system) { s.s3.Encrypt("logs", "aws:kms alias/logs") }, awslog.Outputs{Bucket: "logs"}, "s.log",
			map[string]string{"X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "alias/logs"}},
		{"a bucket that takes no ACL", func(s *system) { s.s3.RefuseACLs() }, awslog.Outputs{Bucket: "logs"}, "s.log", map[string]string{"X-Amz-Acl": ""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSystem(t)
			test.prepare(s)
			k, _ := s.member("a")
			w := s.begin(k, test.out)
			s.show(w, time.Second, "\x1b[32m$ \x1b[0mlz\bs\r\nfile\r\n$ ")
			if keys := s.s3.Keys(t, "logs"); len(keys) > 0 {
				t.Errorf("before the session's end: got %v, want nothing", keys)
			}
			s.end(w, session.StateTerminated)
			s.waitState(awslog.S3, awslog.Done)
			if diff := cmp.Diff([]string{test.key}, s.s3.Keys(t, "logs")); diff != "" {
				t.Fatalf("objects: %s", diff)
			}
			text, kind := s.s3.Object(t, "logs", test.key)
			if want := "$ ls\nfile\n$\n"; text != want || kind != "text/plain" {
				t.Errorf("object: got %q (%s), want %q", text, kind, want)
			}
			for name, want := range test.headers {
				if got := s.s3.Headers().Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
		})
	}
}

// TestLargeObject writes what takes several parts.
func TestLargeObject(t *testing.T) {
	s := newSystem(t)
	k, _ := s.member("a")
	w := s.begin(k, toS3)
	line := strings.Repeat("0123456789", 7) + "\n"
	var want strings.Builder
	for want.Len() < 5<<19 {
		must(t, w.Output(started, []byte(strings.Repeat(line, 100))))
		want.WriteString(strings.Repeat(line, 100))
	}
	s.end(w, session.StateTerminated)
	s.waitState(awslog.S3, awslog.Done)
	text, kind := s.s3.Object(t, "logs", "team/a/s.log")
	if text != want.String() || kind != "text/plain" {
		t.Errorf("got %d bytes (%s), want %d", len(text), kind, want.Len())
	}
	if n := s.s3.Calls("PUT partNumber&uploadId&x-id"); n != 3 {
		t.Errorf("parts: got %d, want 3", n)
	}
}

// TestStoreAway: nothing is lost while S3 is away, nor by a restart in that time; the audit
// log tells of it once.
func TestStoreAway(t *testing.T) {
	s := newSystem(t)
	k, stop := s.member("a")
	w := s.begin(k, toS3)
	s.show(w, 0, "kept\r\n")
	s.s3.Fail(503)
	s.end(w, session.StateTerminated)
	s.waitFor("two tries", func() bool { s.now.advance(time.Minute); return s.job(awslog.S3).Tries >= 2 })
	if j := s.job(awslog.S3); j.State != awslog.Waiting || !strings.Contains(j.Error, "503") {
		t.Errorf("job: got %+v", j)
	}
	if st := k.Stats(); st.Failures < 2 || st.Objects != 0 {
		t.Errorf("stats: got %+v", st)
	}
	stop()
	s.s3.Fail(0)
	s.now.advance(time.Hour)
	s.member("b") // another member: a is gone
	s.waitState(awslog.S3, awslog.Done)
	if text, _ := s.s3.Object(t, "logs", "team/a/s.log"); text != "kept\n" {
		t.Errorf("got %q", text)
	}
	if diff := cmp.Diff([]string{"log failed s3", "log written late s3"}, s.audit.actions()); diff != "" {
		t.Errorf("audit: %s", diff)
	}
}

// TestGivenUp: a bucket that is not there blocks nothing, and is over one day.
func TestGivenUp(t *testing.T) {
	s := newSystem(t)
	k, _ := s.member("a")
	o := awslog.Outputs{Bucket: "other", Prefix: "sessions"}
	must(t, k.Check(t.Context(), o))
	w := s.begin(k, o)
	s.end(w, session.StateTerminated)
	s.waitFor("a try", func() bool { return s.job(awslog.S3).Tries == 1 })
	s.now.advance(15 * 24 * time.Hour)
	s.waitState(awslog.S3, awslog.Failed)
	if diff := cmp.Diff([]string{"log failed s3", "log given up s3"}, s.audit.actions()); diff != "" {
		t.Errorf("audit: %s", diff)
	}
	if k.Stats().GivenUp != 1 {
		t.Errorf("given up: got %d, want 1", k.Stats().GivenUp)
	}
}

func TestStreaming(t *testing.T) {
	s := newSystem(t)
	k, _ := s.member("a")
	w := s.begin(k, stream)
	s.show(w, 2*time.Second, "$ echo \"<hi>\"\r\n<hi>\r\n$ ")
	s.waitFor("an event", func() bool { return len(s.logs.Events("/sessions", "s")) > 0 })
	e := s.logs.Events("/sessions", "s")[0]
	want := fmt.Sprintf(`{"eventVersion":"1.0","eventTime":"%s","awsRegion":"us-east-1","target":{"id":"mi-1"},"userIdentity":{"arn":"arn:alice"},"runAsUser":"ssm-user","sessionId":"s","sessionData":["$ echo \"<hi>\"","<hi>"]}`,
		started.Add(2*time.Second).Format(time.RFC3339))
	if e.Message != want || e.Timestamp != started.Add(2*time.Second).UnixMilli() {
		t.Errorf("event: got\n%d %s, want\n%s", e.Timestamp, e.Message, want)
	}
	s.show(w, 5*time.Second, "exit\r\n")
	s.end(w, session.StateTerminated)
	s.waitState(awslog.Logs, awslog.Done)
	if diff := cmp.Diff([]string{`$ echo "<hi>"`, "<hi>", "$ exit"}, s.data()); diff != "" {
		t.Errorf("data: %s", diff)
	}
	jobs, err := k.Jobs(t.Context(), []string{"s"})
	must(t, err)
	if want := "https://eu-central-1.console.aws.amazon.com/cloudwatch/home?region=eu-central-1#logsV2:log-groups/log-group/$252Fsessions/log-events/s"; jobs[0].URL != want {
		t.Errorf("URL: got %s, want %s", jobs[0].URL, want)
	}
}

// TestNotStreamed puts plain text at the end, as AWS's agent does.
func TestNotStreamed(t *testing.T) {
	s := newSystem(t)
	k, _ := s.member("a")
	w := s.begin(k, awslog.Outputs{LogGroup: "/sessions"})
	s.show(w, 0, "one\r\ntwo\r\n")
	if n := s.logs.Calls("PutLogEvents"); n != 0 {
		t.Errorf("calls while the session runs: got %d, want none", n)
	}
	s.end(w, session.StateTerminated)
	s.waitState(awslog.Logs, awslog.Done)
	if events := s.logs.Events("/sessions", "s"); len(events) != 1 || events[0].Message != "one\ntwo\n" {
		t.Errorf("events: got %+v", events)
	}
}

// TestGoesOn: another member goes on where the first one was stopped, without holes.
func TestGoesOn(t *testing.T) {
	s := newSystem(t)
	k, stop := s.member("a")
	w := s.begin(k, stream)
	s.show(w, 0, "one\r\ntwo\r\nthr")
	s.waitFor("an event", func() bool { return len(s.data()) == 2 })
	stop()
	if j := s.job(awslog.Logs); j.Position != int64(len("one\ntwo\n")) || !j.Lease.IsZero() {
		t.Errorf("job: got position %d, lease %v", j.Position, j.Lease)
	}
	s.show(w, time.Second, "ee\r\n")
	s.now.advance(2 * time.Minute) // b is not the session's member
	s.member("b")
	s.waitFor("more events", func() bool { return len(s.data()) == 3 })
	s.show(w, 2*time.Second, "four\r\n")
	s.end(w, session.StateTerminated)
	s.waitState(awslog.Logs, awslog.Done)
	if diff := cmp.Diff([]string{"one", "two", "three", "four"}, s.data()); diff != "" {
		t.Errorf("data: %s", diff)
	}
}

// TestKilled: of a member that is killed another takes over once its lease has run out. What
// was put and not noted comes again; nothing is left out.
func TestKilled(t *testing.T) {
	s := newSystem(t)
	s.dead = &dying{Store: s.store}
	k, stop := s.member("a")
	w := s.begin(k, stream)
	s.show(w, 0, "one\r\n")
	s.waitFor("an event", func() bool { return len(s.data()) == 1 })
	s.now.advance(6 * time.Second) // its place is noted
	s.show(w, time.Second, "two\r\n")
	s.waitFor("its place", func() bool {
		s.now.advance(6 * time.Second)
		return s.job(awslog.Logs).Position == int64(len("one\ntwo\n"))
	})
	s.dead.last.Store(s.job(awslog.Logs).Position)
	before := len(s.data())
	s.show(w, 2*time.Second, "three\r\n")
	s.waitFor("an event that is not noted", func() bool { return len(s.data()) > before })
	s.dead.dead.Store(true)
	stop()
	if s.job(awslog.Logs).Lease.IsZero() {
		t.Fatal("the lease was given back")
	}
	s.dead = nil
	s.show(w, 3*time.Second, "four\r\n")
	s.end(w, session.StateTerminated)
	s.member("b")
	time.Sleep(20 * time.Millisecond) // some looks
	if s.job(awslog.Logs).Member != "a" {
		t.Error("the job was taken before its lease ran out")
	}
	s.now.advance(2 * time.Minute)
	s.waitState(awslog.Logs, awslog.Done)
	var once []string
	for _, line := range s.data() {
		if !slices.Contains(once, line) {
			once = append(once, line)
		}
	}
	if diff := cmp.Diff([]string{"one", "two", "three", "four"}, once); diff != "" || !slices.Contains(s.data()[before:], "three") {
		t.Errorf("data: %v, %s", s.data(), diff)
	}
}

// TestThrottled: what CloudWatch Logs refuses for a while comes later, once.
func TestThrottled(t *testing.T) {
	s := newSystem(t)
	k, _ := s.member("a")
	w := s.begin(k, stream)
	s.logs.Fail(3, "ThrottlingException")
	s.show(w, 0, "one\r\n")
	s.waitFor("tries", func() bool { s.now.advance(time.Second); return s.logs.Calls("PutLogEvents") > 0 && len(s.data()) > 0 })
	s.show(w, time.Second, "two\r\n")
	s.end(w, session.StateTerminated)
	s.waitState(awslog.Logs, awslog.Done)
	if diff := cmp.Diff([]string{"one", "two"}, s.data()); diff != "" {
		t.Errorf("data: %s", diff)
	}
	if diff := cmp.Diff([]string{"log failed logs", "log resumed logs"}, s.audit.actions()); diff != "" {
		t.Errorf("audit: %s", diff)
	}
}

// TestGroupComesLater: a missing log group blocks nothing; once it is there, all is.
func TestGroupComesLater(t *testing.T) {
	s := newSystem(t)
	k, _ := s.member("a")
	o := awslog.Outputs{LogGroup: "/sessions-later", Streaming: true}
	must(t, k.Check(t.Context(), o))
	w := s.begin(k, o)
	s.show(w, 0, "one\r\n")
	s.waitFor("a try", func() bool { return s.job(awslog.Logs).Tries > 0 })
	s.end(w, session.StateTerminated)
	s.logs.Group("/sessions-later", "")
	s.now.advance(time.Minute)
	s.waitState(awslog.Logs, awslog.Done)
	if events := s.logs.Events("/sessions-later", "s"); len(events) != 1 {
		t.Errorf("events: got %+v", events)
	}
}

// TestLimits sends more than a call may have, and older than events may be.
func TestLimits(t *testing.T) {
	for _, streaming := range []bool{true, false} {
		t.Run(fmt.Sprintf("streaming %v", streaming), func(t *testing.T) {
			s := newSystem(t)
			k, _ := s.member("a")
			w := s.begin(k, awslog.Outputs{LogGroup: "/sessions", Streaming: streaming})
			var want strings.Builder
			long := strings.Repeat(`"äöü\"`, 10000) + "\n" // longer than an event, and longer as JSON
			for i := range 25 {
				text := fmt.Sprintf("%s%d\n%s", long, i, strings.Repeat("\n", i%5))
				must(t, w.Output(started.Add(time.Duration(i)*100*time.Minute), []byte(text)))
				want.WriteString(text)
			}
			s.now.advance(16 * 24 * time.Hour)
			s.logs.SetNow(s.now.now)
			s.end(w, session.StateTerminated)
			s.waitState(awslog.Logs, awslog.Done)
			var got strings.Builder
			for _, e := range s.logs.Events("/sessions", "s") {
				var m struct{ SessionData []string }
				if !streaming {
					got.WriteString(e.Message)
				} else if err := json.Unmarshal([]byte(e.Message), &m); err != nil {
					t.Fatal(err)
				}
				for _, line := range m.SessionData {
					got.WriteString(line)
				}
			}
			text := want.String()
			if streaming { // where lines end is not in pieces of long ones
				text = strings.ReplaceAll(text, "\n", "")
			}
			if got.String() != text {
				t.Errorf("got %d bytes, want %d", got.Len(), len(text))
			}
		})
	}
}

// TestLostRecording: of a recording whose member never comes back there is what the store
// has, after an hour.
func TestLostRecording(t *testing.T) {
	s := newSystem(t)
	k, _ := s.member("a")
	w := s.begin(k, awslog.Outputs{Bucket: "logs", LogGroup: "/sessions", Streaming: true})
	s.show(w, 0, "one\r\ntw")
	s.waitFor("an event", func() bool { return len(s.data()) == 1 })
	s.end(nil, session.StateFailed)
	s.waitFor("a look", func() bool { return !s.job(awslog.S3).Due.Before(s.now.now().Add(-time.Second)) })
	if n := len(s.s3.Keys(t, "logs")); n != 0 {
		t.Errorf("objects before an hour: got %d, want none", n)
	}
	s.now.advance(2 * time.Hour)
	s.waitState(awslog.S3, awslog.Done)
	const lost = "[the recording has no end: the server that wrote it was lost]"
	if text, _ := s.s3.Object(t, "logs", "s.log"); text != "one\ntw\n"+lost+"\n" {
		t.Errorf("object: got %q", text)
	}
}

// TestNothingShown: of a session that did not come to be there is no object.
func TestNothingShown(t *testing.T) {
	s := newSystem(t)
	k, _ := s.member("a")
	w := s.begin(k, toS3)
	s.end(w, session.StateFailed)
	s.waitState(awslog.S3, awslog.Done)
	if keys := s.s3.Keys(t, "logs"); len(keys) > 0 {
		t.Errorf("got %v, want nothing", keys)
	}
}

// TestRecordingAway: a recording of which nothing is there may be in the spool of a member
// that is away. It is waited for, and given up where it does not come for an hour.
func TestRecordingAway(t *testing.T) {
	for want, after := range map[awslog.State]time.Duration{awslog.Done: 50 * time.Minute, awslog.Failed: 2 * time.Hour} {
		t.Run(string(want), func(t *testing.T) {
			s := newSystem(t)
			k, _ := s.member("a")
			w := s.begin(k, toS3)
			s.show(w, 0, "kept\r\n")
			if _, err := w.Close(recording.End{Reason: "server-restart", Ended: started.Add(30 * time.Second)}); err != nil {
				t.Fatal(err)
			}
			away := s.tapes.set(nil)
			due := s.job(awslog.S3).Due
			s.end(nil, session.StateFailed)
			s.waitFor("a look", func() bool { return !s.job(awslog.S3).Due.Equal(due) })
			if j := s.job(awslog.S3); j.State != awslog.Waiting || j.Tries > 0 {
				t.Errorf("while the member is away: got %s after %d tries, want it to wait", j.State, j.Tries)
			}
			if want == awslog.Done {
				s.tapes.set(away)
			}
			s.now.advance(after)
			s.waitState(awslog.S3, want)
		})
	}
}

func TestCheck(t *testing.T) {
	s := newSystem(t)
	s.s3.Create(t, "other")
	s.s3.Encrypt("logs", "aws:kms")
	s.logs.Group("/sess-kms", "arn:aws:kms:x")
	s.logs.Group("/sess", "arn:aws:kms:x")
	k, _ := s.member("a")
	for _, test := range []struct {
		name string
		out  awslog.Outputs
		want error
	}{
		{"nothing demanded", awslog.Outputs{Bucket: "logs", LogGroup: "/sessions"}, nil},
		{"missing, and nothing demanded", awslog.Outputs{Bucket: "logs", LogGroup: "/sessionless"}, nil},
		{"both encrypted", awslog.Outputs{Bucket: "logs", BucketEncrypted: true, LogGroup: "/sess-kms", GroupEncrypted: true}, nil},
		{"a bucket without encryption", awslog.Outputs{Bucket: "other", Prefix: "sessions/x", BucketEncrypted: true}, awslog.ErrNotEncrypted},
		{"a group without a key", awslog.Outputs{LogGroup: "/sessions", GroupEncrypted: true}, awslog.ErrNotEncrypted},
		{"no such group", awslog.Outputs{LogGroup: "/sess-km", GroupEncrypted: true}, awslog.ErrNotEncrypted},

		// Attacks: who writes documents names places that the server could write to.
		{"another bucket", awslog.Outputs{Bucket: "backups"}, awslog.ErrNotAllowed},
		{"a name that begins alike", awslog.Outputs{Bucket: "logs-evil"}, awslog.ErrNotAllowed},
		{"another prefix of a bucket", awslog.Outputs{Bucket: "other", Prefix: "recordings"}, awslog.ErrNotAllowed},
		{"a prefix that begins alike", awslog.Outputs{Bucket: "other", Prefix: "sessions-evil"}, awslog.ErrNotAllowed},
		{"out of the prefix", awslog.Outputs{Bucket: "other", Prefix: "sessions/../recordings"}, awslog.ErrNotAllowed},
		{"an access point's ARN", awslog.Outputs{Bucket: "arn:aws:s3:us-west-2:666666666666:accesspoint/logs"}, awslog.ErrNotAllowed},
		{"a bucket with a path", awslog.Outputs{Bucket: "logs/../backups"}, awslog.ErrNotAllowed},
		{"control characters", awslog.Outputs{Bucket: "logs", Prefix: "a\r\nX-Amz-Acl: public-read"}, awslog.ErrNotAllowed},
		{"a long prefix", awslog.Outputs{Bucket: "logs", Prefix: strings.Repeat("x", 501)}, awslog.ErrNotAllowed},
		{"a placeholder", awslog.Outputs{Bucket: "{{ bucket }}"}, awslog.ErrNotAllowed},
		{"another group", awslog.Outputs{LogGroup: "/aws/lambda/x"}, awslog.ErrNotAllowed},
		{"a group's ARN", awslog.Outputs{LogGroup: "arn:aws:logs:us-west-2:666666666666:log-group:/sessions"}, awslog.ErrNotAllowed},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := k.Check(t.Context(), test.out)
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// TestCheckRemembers: an answer is believed for a minute, also by those who ask at once.
func TestCheckRemembers(t *testing.T) {
	s := newSystem(t)
	s.s3.Encrypt("logs", "AES256")
	k, _ := s.member("a")
	o := awslog.Outputs{Bucket: "logs", BucketEncrypted: true}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := k.Check(t.Context(), o); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := s.s3.Calls("GET encryption"); n != 1 {
		t.Errorf("calls: got %d, want 1", n)
	}
	s.s3.Fail(503)
	must(t, k.Check(t.Context(), o))
	s.now.advance(time.Minute)
	if err := k.Check(t.Context(), o); !errors.Is(err, awslog.ErrUnknown) {
		t.Errorf("away: got %v, want %v", err, awslog.ErrUnknown)
	}
	s.s3.Fail(0)
	s.now.advance(5 * time.Second)
	must(t, k.Check(t.Context(), o))
}

// TestEncryptionGone: what must be encrypted is not written where it no longer would be.
func TestEncryptionGone(t *testing.T) {
	s := newSystem(t)
	s.s3.Encrypt("logs", "AES256")
	k, _ := s.member("a")
	o := awslog.Outputs{Bucket: "logs", BucketEncrypted: true}
	must(t, k.Check(t.Context(), o))
	w := s.begin(k, o)
	s.s3.Encrypt("logs", "")
	s.now.advance(2 * time.Minute)
	s.end(w, session.StateTerminated)
	s.waitFor("a try", func() bool { return s.job(awslog.S3).Tries == 1 })
	if keys := s.s3.Keys(t, "logs"); len(keys) > 0 {
		t.Errorf("got %v, want nothing", keys)
	}
}

// TestEncryptionGoneMeanwhile: a log group whose key is taken away gets no more of a session
// whose document demands one, until it has a key again.
func TestEncryptionGoneMeanwhile(t *testing.T) {
	s := newSystem(t)
	s.logs.Group("/sessions", "arn:aws:kms:x")
	k, _ := s.member("a")
	o := stream
	o.GroupEncrypted = true
	w := s.begin(k, o)
	s.show(w, 0, "one\r\n")
	s.waitFor("an event", func() bool { return len(s.data()) == 1 })
	s.logs.Group("/sessions", "")
	s.now.advance(2 * time.Minute)
	s.waitFor("a refusal", func() bool { return s.job(awslog.Logs).Tries > 0 })
	s.show(w, time.Second, "two\r\n")
	tries := s.job(awslog.Logs).Tries
	s.waitFor("another", func() bool { s.now.advance(time.Minute); return s.job(awslog.Logs).Tries > tries })
	if got := s.data(); len(got) != 1 {
		t.Errorf("without a key: got %q, want the first line alone", got)
	}
	s.logs.Group("/sessions", "arn:aws:kms:x")
	s.waitFor("the rest", func() bool { s.now.advance(time.Minute); return len(s.data()) == 2 })
}
