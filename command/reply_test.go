package command

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/wire"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func told() Invocation {
	return Invocation{Status: Pending, Details: "Pending", Tried: noon, Sent: noon}
}

// Reports come out of order and twice, and an invocation that has ended stays as it is.
func TestApply(t *testing.T) {
	step := func(status string, code int) map[string]wire.JobPlugin {
		return map[string]wire.JobPlugin{"run": {Name: "aws:runShellScript", Status: status, Code: code}}
	}
	begun, ended := wire.JobOutcome{DocumentStatus: "InProgress"}, wire.JobOutcome{DocumentStatus: "Success", RuntimeStatus: step("Success", 0)}
	for _, tt := range []struct {
		name    string
		reports []wire.JobOutcome
		want    string
		steps   int
	}{
		{"begun", []wire.JobOutcome{begun}, "InProgress", 0},
		{"ended", []wire.JobOutcome{begun, ended}, "Success", 1},
		{"AWS's order", []wire.JobOutcome{begun, ended, {DocumentStatus: "InProgress", RuntimeStatus: step("Success", 0)}}, "Success", 1},
		{"only the end", []wire.JobOutcome{ended}, "Success", 1},
		{"another end", []wire.JobOutcome{ended, {DocumentStatus: "Failed", RuntimeStatus: step("Failed", 9)}}, "Success", 1},
		{"a step revised", []wire.JobOutcome{{DocumentStatus: "InProgress", RuntimeStatus: step("Failed", 3)}, ended}, "Success", 1},
		{"out of time", []wire.JobOutcome{{DocumentStatus: "TimedOut"}}, "ExecutionTimedOut", 0},
		{"cancelled", []wire.JobOutcome{{DocumentStatus: "Cancelled"}}, "Cancelled", 0},
		{"a word that is not known", []wire.JobOutcome{{DocumentStatus: "Success\x00"}}, "InProgress", 0},
	} {
		i := told()
		for _, o := range tt.reports {
			i.apply(o, noon)
		}
		if i.Details != tt.want || len(i.Steps) != tt.steps {
			t.Errorf("%s: got %s with %d steps, want %s with %d", tt.name, i.Details, len(i.Steps), tt.want, tt.steps)
		}
		if tt.name == "a step revised" && i.Steps[0].Code != 3 {
			t.Errorf("a step's status was revised to %d", i.Steps[0].Code)
		}
	}
}

func TestAcked(t *testing.T) {
	for code, want := range map[string]string{
		wire.JobSuccessful: "InProgress", wire.JobDuplicateCommand: "InProgress",
		wire.JobProcessorFull: "Delayed", wire.JobProcessorClosed: "Delayed",
		wire.JobInvalidDocument: "Failed", wire.JobUnexpectedDocument: "Failed", "nonsense": "Failed",
	} {
		i := told()
		i.acked(code, noon)
		if i.Details != want {
			t.Errorf("%s: got %s, want %s", code, i.Details, want)
		}
	}
}

// Whatever an agent sends, what is kept of it is bounded, and a database takes it.
func TestReportsAreBounded(t *testing.T) {
	o := wire.JobOutcome{DocumentStatus: "Failed", DocumentTraceOutput: strings.Repeat("\x00t", 10000), RuntimeStatus: map[string]wire.JobPlugin{}}
	for n := range 1000 {
		o.RuntimeStatus[fmt.Sprint(n, strings.Repeat("n", 1000))] = wire.JobPlugin{Status: "Failed", StartDateTime: "9999999-01-01",
			StandardOutput: strings.Repeat("ö", 1<<16), StandardError: "\xff\x00", Output: strings.Repeat("x", 1<<16)}
	}
	i := told()
	i.apply(o, noon)
	b, err := json.Marshal(i)
	if err != nil || len(b) > 2*maxTotal || len(i.Steps) > maxSteps || len(i.Trace) > maxTrace {
		t.Errorf("kept %d bytes in %d steps, %v", len(b), len(i.Steps), err)
	}
	for _, s := range i.Steps {
		if !utf8.ValidString(s.Stdout) || strings.ContainsRune(s.Stderr+i.Trace, 0) || len(s.Stdout) > MaxOutput || len(s.Name) > maxName {
			t.Errorf("kept step %.100q", s.Name)
		}
	}
}

func TestJobIDs(t *testing.T) {
	const id = "3494cc35-0e12-464e-840b-edfc6d10d9a6"
	for _, tt := range []struct {
		job  string
		want string
	}{
		{wire.JobID(id, "mi-1"), id},
		{wire.JobID(strings.ToUpper(id), "mi-1"), id},
		{wire.JobID(id, "mi-2"), ""},
		{wire.JobID("{"+id[1:], "mi-1"), ""},
		{wire.JobID("urn:uuid:"+id, "mi-1"), ""},
		{wire.JobID("", "mi-1"), ""},
		{id, ""},
		{"", ""},
	} {
		if got, err := commandOf(tt.job, "mi-1"); got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q: got %q, %v, want %q", tt.job, got, err, tt.want)
		}
	}
}

func TestExecutionOf(t *testing.T) {
	values := map[string]json.RawMessage{"t": json.RawMessage(`"90"`), "bad": json.RawMessage(`"soon"`)}
	for _, tt := range []struct {
		content string
		want    time.Duration
	}{
		{`{"mainSteps":[{"inputs":{"timeoutSeconds":"{{ t }}"}}]}`, 90 * time.Second},
		{`{"mainSteps":[{"inputs":{"timeoutSeconds":10}},{"inputs":{}}]}`, time.Hour + 10*time.Second},
		{`{"mainSteps":[{"inputs":{"timeoutSeconds":"{{ bad }}"}}]}`, time.Hour},
		{`{"runtimeConfig":{"aws:runShellScript":{"properties":[{"timeoutSeconds":"{{t}}"}]}}}`, 90 * time.Second},
		{`{"runtimeConfig":{"aws:runShellScript":{"properties":{"timeoutSeconds":5}}}}`, 5 * time.Second},
		{`{"mainSteps":[{"inputs":{"timeoutSeconds":-1}}]}`, time.Hour},
	} {
		if got := ExecutionOf(json.RawMessage(tt.content), values); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.content, got, tt.want)
		}
	}
}

// A job has the form that AWS's agent was recorded with.
func TestRecordedJob(t *testing.T) {
	c := Command{ID: "3494cc35-0e12-464e-840b-edfc6d10d9a6", Document: "D", Content: json.RawMessage(`{"a":1}`)}
	job, err := c.job("mi-1", "us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	want := wire.ControlTask{JobID: "aws.ssm." + c.ID + ".mi-1", Topic: "aws.ssm.sendCommand.us-east-1", SchemaVersion: 1,
		Content: `{"CommandId":"` + c.ID + `","DocumentName":"D","DocumentContent":{"a":1},"Parameters":null,"OutputS3BucketName":"","OutputS3KeyPrefix":"","CloudWatchLogGroupName":"","CloudWatchOutputEnabled":"false"}`}
	if diff := cmp.Diff(want, job); diff != "" {
		t.Error(diff)
	}
	first, again := c.cancelJob("mi-1", "us-east-1"), c.cancelJob("mi-1", "us-east-1")
	if first != again || first.JobID == job.JobID || cancelled(first) != job.JobID {
		t.Errorf("got %+v and %+v", first, again)
	}
}

func FuzzApply(f *testing.F) {
	f.Add([]byte(`{"documentStatus":"Success","runtimeStatus":{"a":{"status":"Success","standardOutput":"x"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var o wire.JobOutcome
		if json.Unmarshal(b, &o) != nil {
			return
		}
		i := told()
		i.apply(o, noon)
		if before := i; before.Status.Final() {
			if i.apply(wire.JobOutcome{DocumentStatus: "Failed"}, noon) || i.Status != before.Status {
				t.Error("a final status changed")
			}
		}
	})
}
