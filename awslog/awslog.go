package awslog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Outputs say where the text of a session is written; the inputs of its document.
type Outputs struct {
	Bucket          string `json:"bucket,omitempty"` // of S3; empty for none
	Prefix          string `json:"prefix,omitempty"` // of the object's key
	BucketEncrypted bool   `json:"bucket_encrypted,omitempty"`
	LogGroup        string `json:"log_group,omitempty"` // of CloudWatch Logs; empty for none
	GroupEncrypted  bool   `json:"group_encrypted,omitempty"`
	Streaming       bool   `json:"streaming,omitempty"` // to the log group, while the session runs
	// RunAs is the login that events name.
	RunAs string `json:"run_as,omitempty"`
}

// None reports whether nothing is written anywhere.
func (o Outputs) None() bool { return o.Bucket == "" && o.LogGroup == "" }

// Session is whose text is written.
type Session struct {
	ID        string
	Recording string // name in the archive
	Node      string // id
	Owner     string // ARN
}

// Kind is what a job writes to.
type Kind string

// Kinds of jobs.
const (
	S3   Kind = "s3"
	Logs Kind = "logs"
)

// State is how far a job has come.
type State string

// States of jobs. Waiting ones are tried until they are Done, or Failed for good.
const (
	Waiting State = "waiting"
	Done    State = "done"
	Failed  State = "failed"
)

// Job is one output of a session.
type Job struct {
	Session
	Kind      Kind
	Place     string // bucket or log group
	Name      string // of the object (its key) or of the stream
	Encrypted bool   // the place must encrypt
	Streaming bool   // while the session runs
	RunAs     string
	State     State
	// Position is how much of the text was delivered to CloudWatch Logs, in bytes.
	Position int64
	Created  time.Time
	Due      time.Time // not to be tried before
	Tries    int       // that failed, one after the other
	Error    string    // of the last one
	Written  time.Time // when it was done
	// Member works on it until Lease.
	Member string
	Lease  time.Time

	// URL is where people find what was written, "" while there is nothing; filled in by
	// Keeper.Jobs.
	URL string

	// Of the session's row, filled in by ClaimLogs:
	Ended time.Time // zero while the session runs
	Void  bool      // the session failed to start, or failed
}

// ErrLost means that another member has taken a job over.
var ErrLost = errors.New("another member has taken over")

// Claim says which jobs a member wants.
type Claim struct {
	Member string
	Now    time.Time
	Lease  time.Time // the new one
	// Live wants streaming jobs of sessions that run here, or that nobody has looked after
	// since Orphaned; otherwise jobs of sessions that have ended are wanted.
	Live     bool
	Orphaned time.Time
	Limit    int
}

// Pending says how much waits.
type Pending struct {
	Jobs    int
	Failing int       // that have failed at least once
	Oldest  time.Time // when the oldest one's session ended; zero for none
}

// Store keeps jobs.
type Store interface {
	// AddLogs adds jobs; those of a session and kind that are there already stay.
	AddLogs(ctx context.Context, jobs []Job) error
	// ClaimLogs gives the member waiting jobs that are due and that nobody holds.
	ClaimLogs(ctx context.Context, c Claim) ([]Job, error)
	// RenewLogs holds what the member holds until lease, and returns when those of its
	// sessions ended that have.
	RenewLogs(ctx context.Context, member string, lease time.Time) (ended map[string]time.Time, err error)
	// ReleaseLogs lets go of all that the member holds.
	ReleaseLogs(ctx context.Context, member string) error
	// SaveLog saves the state of a job that the member still holds; ErrLost if it does not.
	SaveLog(ctx context.Context, j Job) error
	// Logs returns the jobs of sessions.
	Logs(ctx context.Context, sessions []string) ([]Job, error)
	// PendingLogs counts what waits.
	PendingLogs(ctx context.Context) (Pending, error)
}

// Recording is the plain text of a recording (asciicast) as far as it was flushed.
type Recording interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// jobs are what is to be written of a session.
func jobs(s Session, o Outputs, now time.Time) (all []Job) {
	j := Job{Session: s, RunAs: o.RunAs, State: Waiting, Created: now, Due: now}
	if o.Bucket != "" {
		j.Kind, j.Place, j.Name, j.Encrypted = S3, o.Bucket, Key(o.Prefix, s.ID), o.BucketEncrypted
		all = append(all, j)
	}
	if o.LogGroup != "" {
		j.Kind, j.Place, j.Name, j.Encrypted, j.Streaming = Logs, o.LogGroup, streamName(s.ID), o.GroupEncrypted, o.Streaming
		all = append(all, j)
	}
	return all
}

// Key is the key of a session's object, in AWS's form: PREFIX/SESSION.log.
func Key(prefix, session string) string {
	return strings.TrimPrefix(path.Join(prefix, session+".log"), "/")
}

// streamName is the name of a session's stream. Session ids hold neither : nor *, which
// stream names must not.
func streamName(session string) string { return session }

const maxPrefix = 500 // bytes; keys have 1024 at most

var (
	bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	groupName  = regexp.MustCompile(`^[A-Za-z0-9_/.#-]{1,512}$`)
)

// check finds what cannot be a name. ARNs cannot: they would lead to other accounts and
// regions.
func (o Outputs) check() error {
	if o.Bucket != "" && !bucketName.MatchString(o.Bucket) {
		return fmt.Errorf("s3BucketName %q is not the name of a bucket", clip(o.Bucket))
	}
	if o.LogGroup != "" && !groupName.MatchString(o.LogGroup) {
		return fmt.Errorf("cloudWatchLogGroupName %q is not the name of a log group", clip(o.LogGroup))
	}
	if o.Bucket == "" {
		return nil
	}
	odd := func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }
	if len(o.Prefix) > maxPrefix || strings.ContainsFunc(o.Prefix, odd) {
		return fmt.Errorf("s3KeyPrefix %q: it has at most %d bytes and no control characters", clip(o.Prefix), maxPrefix)
	}
	for part := range strings.SplitSeq(o.Prefix, "/") {
		if part == "." || part == ".." {
			return fmt.Errorf("s3KeyPrefix %q: it has a part . or .. in it", clip(o.Prefix))
		}
	}
	return nil
}

// clip shortens what is put into errors.
func clip(s string) string {
	const most = 300
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// url is where people find what a job has written, "" while there is nothing: in S3 itself,
// or in AWS's console.
func (j Job) url(s3, region string) string {
	switch {
	case j.Kind == S3 && j.State == Done && !j.Written.IsZero():
		return s3 + (&url.URL{Path: "/" + j.Place + "/" + j.Name}).String()
	case j.Kind == Logs && j.Position > 0:
		return fmt.Sprintf("https://%[1]s.console.aws.amazon.com/cloudwatch/home?region=%[1]s#logsV2:log-groups/log-group/%[2]s/log-events/%[3]s",
			region, consoleEscape(j.Place), consoleEscape(j.Name))
	}
	return ""
}

// consoleEscape escapes a name as AWS's console does behind the #: twice, with $ for %.
func consoleEscape(s string) string {
	return strings.ReplaceAll(url.QueryEscape(url.QueryEscape(s)), "%", "$")
}
