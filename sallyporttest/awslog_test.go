//go:build linux

package sallyporttest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"sallyport.dev/audit"
	"sallyport.dev/awslog"
	"sallyport.dev/client"
	"sallyport.dev/internal/awstest"
	"sallyport.dev/member"
	"sallyport.dev/sallyporttest"
)

const logsNode = "i-060ee0879f3ec4eb9"

// logging is a system that writes sessions to AWS.
type logging struct {
	*sallyporttest.System
	t    *testing.T
	s3   *awstest.S3
	logs *awstest.Logs
	key  sallyporttest.Key
	dir  string
}

func newLogging(t *testing.T) *logging {
	l := &logging{t: t, s3: awstest.NewS3(t, "session-logs", "plain"), logs: awstest.NewLogs(t), dir: t.TempDir()}
	l.s3.Encrypt("session-logs", "AES256")
	l.logs.Group("/sallyport/sessions", "arn:aws:kms:us-east-1:111111111111:key/1")
	l.logs.Group("/sallyport/plain", "")
	keys := filepath.Join(l.dir, "credentials")
	text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", awstest.AccessKey, awstest.SecretKey)
	if err := os.WriteFile(keys, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	no := false
	l.System = sallyporttest.Start(t, "a", sallyporttest.Options{Dir: l.dir, Configure: func(c *member.Config) {
		c.Search = &member.Search{Index: &no} // it keeps text in the database, on purpose
		c.AWSLogs = &member.AWSLogs{
			Buckets: []string{"session-logs", "plain", "missing"}, LogGroups: []string{"/sallyport/*"}, CredentialsFile: keys,
			S3Endpoint: l.s3.URL, S3PathStyle: true, LogsEndpoint: l.logs.URL,
		}
	}})
	l.key = l.User("admin", nil, sallyporttest.Everything)
	return l
}

// prefer has AWS's command line make the preferences of all sessions.
func (l *logging) prefer(inputs string) {
	l.t.Helper()
	file := filepath.Join(l.t.TempDir(), "prefs.json")
	content := `{"schemaVersion":"1.0","description":"Document to hold regional settings for Session Manager","sessionType":"Standard_Stream","inputs":{` + inputs + `}}`
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		l.t.Fatal(err)
	}
	awsCLI(l.t, l.System, l.key, "create-document", "--name", "SSM-SessionManagerRunShell",
		"--document-type", "Session", "--document-format", "JSON", "--content", "file://"+file)
}

// latest is the newest session of the API, once its outputs are all written.
func (l *logging) latest() ssmtypes.Session {
	l.t.Helper()
	var latest ssmtypes.Session
	written := false // before the session was asked for
	l.Eventually(func() bool {
		wasWritten := written // what it says is then whole
		out, err := l.API(l.key).SSM.DescribeSessions(l.t.Context(), &ssm.DescribeSessionsInput{State: ssmtypes.SessionStateHistory})
		if err != nil || len(out.Sessions) == 0 {
			return false
		}
		latest = out.Sessions[0]
		jobs, err := l.Store.Logs(l.t.Context(), []string{*latest.SessionId})
		if err != nil {
			l.t.Fatal(err)
		}
		written = !slices.ContainsFunc(jobs, func(j awslog.Job) bool { return j.State != awslog.Done })
		return wasWritten && written
	}, "the session's log is written")
	return latest
}

// wholePreferences are those of AWS's console with everything on.
const wholePreferences = `"s3BucketName":"session-logs","s3KeyPrefix":"team","s3EncryptionEnabled":true,
	"cloudWatchLogGroupName":"/sallyport/sessions","cloudWatchEncryptionEnabled":true,"cloudWatchStreamingEnabled":true,
	"kmsKeyId":"","runAsEnabled":false,"runAsDefaultUser":"","idleSessionTimeout":"20"`

// wantLogged checks what the session in a shell left at AWS.
func (l *logging) wantLogged() {
	l.t.Helper()
	v := l.latest()
	id := *v.SessionId
	text, kind := l.s3.Object(l.t, "session-logs", "team/"+id+".log")
	if !strings.Contains(text, "\nsum-is-42\n") || strings.ContainsAny(text, "\x1b\r") || kind != "text/plain" {
		l.t.Errorf("object: got %s, %q", kind, text)
	}
	var lines []string
	for _, e := range l.logs.Events("/sallyport/sessions", id) {
		var m struct {
			EventVersion, AwsRegion, SessionID, RunAsUser string
			Target                                        struct{ ID string }
			UserIdentity                                  struct{ Arn string }
			SessionData                                   []string
		}
		if err := json.Unmarshal([]byte(e.Message), &m); err != nil {
			l.t.Fatalf("event %q: %v", e.Message, err)
		}
		if m.EventVersion != "1.0" || m.AwsRegion != sallyporttest.Region || m.SessionID != id || m.Target.ID != *v.Target || m.RunAsUser != "ssm-user" || m.UserIdentity.Arn != *v.Owner {
			l.t.Errorf("event: got %q", e.Message)
		}
		lines = append(lines, m.SessionData...)
	}
	if got := strings.Join(lines, "\n") + "\n"; got != text {
		l.t.Errorf("events: got %q, want what is in the object, %q", got, text)
	}
	url := v.OutputUrl
	if url == nil || aws.ToString(url.S3OutputUrl) != l.s3.URL+"/session-logs/team/"+id+".log" || !strings.Contains(aws.ToString(url.CloudWatchOutputUrl), "/log-events/") {
		l.t.Errorf("OutputUrl: got %+v", url)
	}
}

func TestAWSLogs(t *testing.T) {
	l := newLogging(t)
	l.prefer(wholePreferences)
	l.Node(logsNode, nil)
	t.Run("a shell", func(t *testing.T) {
		wantSum(t, l.Shell(l.key, logsNode, typed), "")
		l.wantLogged()
	})
	t.Run("a command, by the preferences", func(t *testing.T) {
		createDocument(t, l.System, l.key, "Sum", `{"schemaVersion":"1.0","sessionType":"NonInteractiveCommands","properties":{"linux":{"commands":"sh -c 'echo one; echo two'"}}}`)
		if r := runEncrypted(t, l.System, l.key, logsNode, "Sum", ""); r.err != nil {
			t.Fatal(r.err)
		}
		id := *l.latest().SessionId
		if text, _ := l.s3.Object(t, "session-logs", "team/"+id+".log"); text != "one\ntwo\n" {
			t.Errorf("object: got %q", text)
		}
		if events := l.logs.Events("/sallyport/sessions", id); len(events) != 1 || events[0].Message != "one\ntwo\n" {
			t.Errorf("events: got %+v", events)
		}
	})
	t.Run("a port", func(t *testing.T) {
		stream, err := l.API(l.key).Start(t.Context(), client.StartInput{Target: logsNode, Document: "AWS-StartPortForwardingSession", Parameters: map[string][]string{"portNumber": {"9"}}})
		if err != nil {
			t.Fatal(err)
		}
		jobs, err := l.Store.Logs(t.Context(), []string{stream.SessionID})
		if err != nil || len(jobs) > 0 {
			t.Errorf("got %+v, %v, want nothing to be written", jobs, err)
		}
		if err := l.API(l.key).TerminateSession(t.Context(), stream.SessionID); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("nothing in the clear on disk", func(t *testing.T) {
		l.Stop()
		err := filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if bytes.Contains(b, []byte("sum-is-42")) {
				t.Errorf("%s holds what the session showed", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// Who writes documents has the server write nowhere that its configuration does not name,
// and what is demanded of a place is so, or nothing begins.
func TestAWSLogsRefused(t *testing.T) {
	l := newLogging(t)
	l.Node(logsNode, nil)
	for i, test := range []struct {
		name, inputs string
		parameters   map[string][]string
		want         string // "" for none
	}{
		{"another bucket", `"s3BucketName":"backups","s3KeyPrefix":"a"`, nil, "may not write to s3://backups/a/: its configuration does not name it (aws_logs.buckets). Document: Logged-0."},
		{"another group", `"cloudWatchLogGroupName":"/aws/x"`, nil, "aws_logs.log_groups"},
		{"another bucket, by a parameter", `"s3BucketName":"{{ place }}"`, map[string][]string{"place": {"backups"}}, "aws_logs.buckets"},
		{"out of a prefix, by a parameter", `"s3BucketName":"plain","s3KeyPrefix":"a/{{ place }}"`, map[string][]string{"place": {"../b"}}, "it has a part . or .. in it"},
		{"a bucket that does not encrypt", `"s3BucketName":"plain","s3EncryptionEnabled":true`, nil, "We couldn't start the session because the S3 bucket plain has no default encryption"},
		{"a group that does not encrypt", `"cloudWatchLogGroupName":"/sallyport/plain","cloudWatchEncryptionEnabled":true`, nil, "We couldn't start the session because there is no CloudWatch log group /sallyport/plain with a KMS key"},
		{"a bucket that is missing, with a demand", `"s3BucketName":"missing","s3EncryptionEnabled":true`, nil, "could not be found out whether the S3 bucket missing is encrypted"},
		{"a bucket that is missing, without one", `"s3BucketName":"missing"`, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			name := fmt.Sprint("Logged-", i)
			createDocument(t, l.System, l.key, name, `{"schemaVersion":"1.0","sessionType":"Standard_Stream","parameters":{"place":{"type":"String","default":"x"}},"inputs":{`+test.inputs+`}}`)
			stream, err := l.API(l.key).Start(t.Context(), client.StartInput{Target: logsNode, Document: name, Parameters: test.parameters})
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want an error with %q", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := l.API(l.key).TerminateSession(t.Context(), stream.SessionID); err != nil {
				t.Fatal(err)
			}
		})
	}
	l.Eventually(func() bool {
		records, err := l.Store.Audit(t.Context(), audit.Filter{Event: audit.EventRecording, Action: "log failed"})
		return err == nil && len(records) == 1 && records[0].Details["place"] == "missing"
	}, "the audit log tells of the bucket that is missing")
}

// Without aws_logs in the configuration nothing begins that is to be written.
func TestAWSLogsNotConfigured(t *testing.T) {
	s := sallyporttest.Start(t, "a", sallyporttest.Options{})
	key := s.User("admin", nil, sallyporttest.Everything)
	s.Node(logsNode, nil)
	createDocument(t, s, key, "Logged", `{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"s3BucketName":"logs"}}`)
	_, err := s.API(key).Start(t.Context(), client.StartInput{Target: logsNode, Document: "Logged"})
	if err == nil || !strings.Contains(err.Error(), "its configuration has no aws_logs") {
		t.Errorf("got %v", err)
	}
	// A command takes over the preferences: they are what is named.
	createDocument(t, s, key, "SSM-SessionManagerRunShell", `{"schemaVersion":"1.0","sessionType":"Standard_Stream","inputs":{"s3BucketName":"logs"}}`)
	_, err = s.API(key).Start(t.Context(), client.StartInput{
		Target: logsNode, Document: "AWS-StartNonInteractiveCommand", Parameters: map[string][]string{"command": {"id"}}})
	if err == nil || !strings.Contains(err.Error(), "Document SSM-SessionManagerRunShell has sessions written") {
		t.Errorf("a command: got %v, want the preferences named", err)
	}
}

// Of an agent that would upload by itself the server does it, too.
func TestAWSLogsOfOfficialAgent(t *testing.T) {
	agent := official(t, agentVariable)
	l := newLogging(t)
	l.prefer(wholePreferences)
	startOfficialAgent(t, l.System, agent)
	wantSum(t, l.Shell(l.key, officialNode, typed), "")
	l.wantLogged()
}
