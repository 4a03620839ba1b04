package agent

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"sallyport.dev/wire"
)

func outcomeIn(t testing.TB, payload []byte) (o wire.JobOutcome) {
	t.Helper()
	var reply wire.JobReply
	if err := json.Unmarshal(payload, &reply); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(reply.Content), &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// finalReply reads reports until one is final, and acknowledges that.
func finalReply(t testing.TB, c *control) wire.JobOutcome {
	t.Helper()
	for {
		m := receive(t, c.jobs, "a final agent_job_reply")
		if m.Type != wire.TypeAgentJobReply {
			continue
		}
		if o := outcomeIn(t, m.Payload); o.DocumentStatus != statusInProgress {
			c.write(wire.NewJSON(wire.TypeAgentJobReplyAck, time.Now(), wire.JobReplyAck{AcknowledgedMessageID: m.ID.String()}))
			return o
		}
	}
}

const shellDocument = `{"schemaVersion":"2.2","parameters":{"commands":{"type":"StringList"},"dir":{"type":"String","default":""},
	"timeout":{"type":"String","default":"60"},"secret":{"type":"String","default":"","interpolationType":"ENV_VAR"}},
	"mainSteps":[{"action":"aws:runShellScript","name":"run","precondition":{"StringEquals":["platformType","Linux"]},
	"inputs":{"runCommand":"{{ commands }}","workingDirectory":"{{ dir }}","timeoutSeconds":"{{ timeout }}"}}]}`

// send sends a command and returns its id.
func (c *control) command(document string, parameters map[string]any) string {
	c.t.Helper()
	id := uuid.NewString()
	c.commandAs(id, document, parameters)
	return id
}

func (c *control) commandAs(id, document string, parameters map[string]any) {
	c.t.Helper()
	content, err := json.Marshal(map[string]any{"CommandId": id, "DocumentName": "D",
		"DocumentContent": json.RawMessage(document), "Parameters": parameters})
	if err != nil {
		c.t.Fatal(err)
	}
	c.jobOf(id, wire.TopicSendCommand+".us-east-1", string(content))
}

func (c *control) jobOf(id, topic, content string) {
	c.write(wire.NewJSON(wire.TypeAgentJob, time.Now(), wire.ControlTask{
		JobID: wire.JobID(id, "mi-0123456789abcdef0"), Topic: topic, Content: content, SchemaVersion: 1}))
}

func (c *control) cancel(id string) {
	c.jobOf(uuid.NewString(), wire.TopicCancelCommand, fmt.Sprintf(`{"CancelMessageId":%q}`, wire.JobID(id, "mi-0123456789abcdef0")))
}

func (c *control) jobCode() string {
	c.t.Helper()
	for {
		m := receive(c.t, c.jobs, "agent_job_ack")
		if m.Type == wire.TypeAgentJobAck {
			var ack wire.JobAck
			json.Unmarshal(m.Payload, &ack)
			return ack.StatusCode
		}
	}
}

func runCommands(lines ...string) map[string]any { return map[string]any{"commands": lines} }

func TestCommands(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	run(t, cfg)
	c := g.control()
	where := t.TempDir()
	for _, tt := range []struct {
		name       string
		parameters map[string]any
		status     string
		code       int
		stdout     string
		stderr     string
	}{
		{"output, errors and status apart", runCommands("echo out; echo err >&2", "exit 3"), "Failed", 3, "out\n", "err\n"},
		{"lines are one script", runCommands("x=1", "echo $x", `echo "a b" 'c'`), "Success", 0, "1\na b c\n", ""},
		{"a directory", map[string]any{"commands": []string{"pwd"}, "dir": where}, "Success", 0, where + "\n", ""},
		{"a directory that is not there", map[string]any{"commands": []string{"echo ran"}, "dir": where + "/x"}, "Failed", 1, "", "/x"},
		{"another interpreter", runCommands("#!/bin/cat", "shown as it is"), "Success", 0, "#!/bin/cat\nshown as it is\n", ""},
		{"a parameter in the environment", map[string]any{"commands": []string{`echo "$SSM_secret"`}, "secret": "'; echo x $(id) \n`y`"},
			"Success", 0, "'; echo x $(id) \n`y`\n", ""},
		{"no input", runCommands("cat; echo end"), "Success", 0, "end\n", ""},
		{"what success is called early", runCommands("exit 168"), "Success", 168, "", ""},
		{"a restart is not done", runCommands("exit 194"), "Failed", 194, "", "restart of the machine"},
		{"a command that a signal ends", runCommands("kill -TERM $$"), "Failed", 143, "", ""},
		{"what is left running goes on", runCommands("sleep 0.2 >/dev/null 2>&1 & echo started"), "Success", 0, "started\n", ""},
		{"time", map[string]any{"commands": []string{"echo begun; sleep 60"}, "timeout": "0.3"}, "TimedOut", 137, "begun\n", "took too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.command(shellDocument, tt.parameters)
			o := finalReply(t, c)
			s := o.RuntimeStatus["run"]
			if o.DocumentStatus != tt.status || s.Status != tt.status || s.Code != tt.code || s.StandardOutput != tt.stdout ||
				!strings.Contains(s.StandardError, tt.stderr) || tt.stderr == "" && s.StandardError != "" {
				t.Errorf("got %s %+v, want %+v", o.DocumentStatus, s, tt)
			}
		})
	}
	if left, _ := filepath.Glob(filepath.Join(cfg.StateDir, "jobs", "*", "*")); len(left) > 0 {
		t.Errorf("scripts are left: %q", left)
	}
}

func TestCommandSteps(t *testing.T) {
	g := newGateway(t)
	run(t, g.config())
	c := g.control()
	step := func(name, script, more string) string {
		return fmt.Sprintf(`{"action":"aws:runShellScript","name":%q,"inputs":{"runCommand":[%q]%s}}`, name, script, more)
	}
	for _, tt := range []struct {
		name, steps, status, ran string
	}{
		{"all steps run though one fails", step("a", "exit 1", "") + "," + step("b", "true", ""), "Failed", "a=Failed b=Success"},
		{"a failure that ends it", step("a", "exit 1", `,"onFailure":"exit"`) + "," + step("b", "true", "") + "," + step("c", "true", `,"finallyStep":true`),
			"Failed", "a=Failed c=Success"},
		{"a failure that is none", step("a", "exit 1", `,"onFailure":"successAndExit"`) + "," + step("b", "true", ""), "Success", "a=Success"},
		{"a success that ends it", step("a", "true", `,"onSuccess":"exit"`) + "," + step("b", "true", ""), "Success", "a=Success"},
		{"status 168 ends it", step("a", "exit 168", "") + "," + step("b", "true", ""), "Success", "a=Success"},
		{"a step for another platform", `{"action":"aws:runPowerShellScript","name":"w","precondition":{"StringEquals":["platformType","Windows"]},"inputs":{}},` + step("b", "true", ""),
			"Success", "b=Success w=Skipped"},
		{"a plugin that is not known", `{"action":"aws:configurePackage","name":"p","inputs":{}}`, "Failed", "p=Failed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.command(`{"schemaVersion":"2.2","mainSteps":[`+tt.steps+`]}`, nil)
			o := finalReply(t, c)
			var ran []string
			for _, name := range []string{"a", "b", "c", "p", "w"} {
				if s, ok := o.RuntimeStatus[name]; ok {
					ran = append(ran, name+"="+s.Status)
				}
			}
			if got := strings.Join(ran, " "); o.DocumentStatus != tt.status || got != tt.ran {
				t.Errorf("got %s: %s, want %s: %s", o.DocumentStatus, got, tt.status, tt.ran)
			}
		})
	}
}

func TestCommandsRefused(t *testing.T) {
	g := newGateway(t)
	run(t, g.config())
	c := g.control()
	for _, tt := range []struct{ name, id, topic, content, code string }{
		{"an id that leaves the folder", "../../../../etc/cron.d/x-0123456789ab", wire.TopicSendCommand, `{}`, wire.JobParseError},
		{"content that is no JSON", uuid.NewString(), wire.TopicSendCommand, `x`, wire.JobParseError},
		{"a topic that is not known", uuid.NewString(), "aws.ssm.other", `{}`, wire.JobUnexpectedDocument},
		{"a cancel of nothing", uuid.NewString(), wire.TopicCancelCommand, `{"CancelMessageId":"aws.ssm.x"}`, wire.JobParseError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.jobOf(tt.id, tt.topic, tt.content)
			if got := c.jobCode(); got != tt.code {
				t.Errorf("got %s, want %s", got, tt.code)
			}
			if tt.code == wire.JobParseError && strings.HasPrefix(tt.topic, wire.TopicSendCommand) {
				finalReply(t, c)
			}
		})
	}
	for name, document := range map[string]string{
		"a pattern":  `{"schemaVersion":"2.2","parameters":{"commands":{"type":"StringList","allowedPattern":"^[a-z]+$"}},"mainSteps":[{"action":"aws:runShellScript","name":"s","inputs":{"runCommand":"{{commands}}"}}]}`,
		"a version":  `{"schemaVersion":"9.9"}`,
		"no steps":   `{"schemaVersion":"2.2"}`,
		"no text":    `{"schemaVersion":"2.2","mainSteps":[{"action":"aws:runShellScript","name":"s","inputs":{}}]}`,
		"conditions": `{"schemaVersion":"2.2","mainSteps":[{"action":"aws:runShellScript","name":"s","precondition":{"StringLike":["a","b"]},"inputs":{}}]}`,
	} {
		c.command(document, runCommands("echo ran; id"))
		if o := finalReply(t, c); o.DocumentStatus != "Failed" || o.DocumentTraceOutput == "" || len(o.RuntimeStatus) > 0 {
			t.Errorf("%s: got %+v, want a refusal", name, o)
		}
	}
}

func TestCommandsOnce(t *testing.T) {
	g := newGateway(t)
	run(t, g.config())
	c := g.control()
	file := filepath.Join(t.TempDir(), "ran")
	id := c.command(shellDocument, runCommands("echo ran >> "+file))
	if got := c.jobCode(); got != wire.JobSuccessful {
		t.Fatalf("got %s", got)
	}
	c.commandAs(id, shellDocument, runCommands("echo again >> "+file))
	if got := c.jobCode(); got != wire.JobDuplicateCommand {
		t.Errorf("while it runs: got %s, want DuplicateCommand", got)
	}
	if o := finalReply(t, c); o.DocumentStatus != "Success" {
		t.Errorf("got %+v", o)
	}
	c.commandAs(id, shellDocument, runCommands("echo again >> "+file))
	if got := c.jobCode(); got != wire.JobDuplicateCommand {
		t.Errorf("once it has ended: got %s, want DuplicateCommand", got)
	}
	if b, _ := os.ReadFile(file); string(b) != "ran\n" {
		t.Errorf("the file holds %q", b)
	}
}

// A cancelled command ends with all that it started.
func TestCancelCommand(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	cfg.CommandWorkers = 1
	run(t, cfg)
	c := g.control()
	file := filepath.Join(t.TempDir(), "pid")
	id := c.command(shellDocument, runCommands("setsid sleep 300 & echo $! > "+file+".tmp; mv "+file+".tmp "+file+"; wait"))
	var pid int
	for deadline := time.Now().Add(patience); pid == 0; time.Sleep(10 * time.Millisecond) {
		b, _ := os.ReadFile(file)
		fmt.Sscan(string(b), &pid)
		if time.Now().After(deadline) {
			t.Fatal("the command did not start")
		}
	}
	waiting := c.command(shellDocument, runCommands("echo never"))
	c.cancel(waiting)
	if o := finalReply(t, c); o.DocumentStatus != "Cancelled" || len(o.RuntimeStatus) > 0 {
		t.Errorf("the one that waited: got %+v", o)
	}
	c.cancel(id)
	if o := finalReply(t, c); o.DocumentStatus != "Cancelled" || o.RuntimeStatus["run"].Status != "Cancelled" {
		t.Errorf("got %+v", o)
	}
	for deadline := time.Now().Add(patience); syscall.Kill(pid, 0) == nil; time.Sleep(10 * time.Millisecond) {
		if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); strings.Contains(string(b), ") Z ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d is left", pid)
		}
	}
}

// What a command came to is told after a restart, too, also days later; one that ran then
// has failed.
func TestCommandsOutliveTheAgent(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	_, stop := run(t, cfg)
	c := g.control()
	ended := c.command(shellDocument, runCommands("echo kept"))
	for m := receive(t, c.jobs, "a final report"); ; m = receive(t, c.jobs, "a final report") {
		if m.Type == wire.TypeAgentJobReply && outcomeIn(t, m.Payload).DocumentStatus == "Success" {
			break // and not acknowledged
		}
	}
	c.command(shellDocument, runCommands("sleep 300"))
	if got := c.jobCode(); got != wire.JobSuccessful {
		t.Fatalf("got %s", got)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	killed := uuid.NewString()
	j := &jobs{a: &Agent{cfg: cfg}}
	if err := j.keep(record{ID: killed, JobID: wire.JobID(killed, "mi-1"), State: jobRunning}); err != nil {
		t.Fatal(err)
	}
	kept, err := filepath.Glob(filepath.Join(j.dir(), "*.json"))
	if err != nil || len(kept) != 3 {
		t.Fatalf("got records %v, %v", kept, err)
	}
	for _, path := range kept {
		old := time.Now().Add(-72 * time.Hour)
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	j.tidy(time.Now())
	run(t, cfg)
	c = g.control()
	traces := map[string]string{}
	for len(traces) < 3 {
		o := finalReply(t, c)
		// Whether the step had begun when the agent stopped, is left to chance.
		run := o.RuntimeStatus["run"]
		traces[strings.TrimSpace(o.DocumentTraceOutput+run.StandardOutput+run.StandardError)] = o.DocumentStatus
	}
	if traces["kept"] != "Success" || traces[jobInterrupted] != "Failed" || traces[errJobStopped.Error()] != "Failed" {
		t.Errorf("got %q", traces)
	}
	c.commandAs(ended, shellDocument, runCommands("echo again"))
	if got := c.jobCode(); got != wire.JobDuplicateCommand {
		t.Errorf("a command from before the restart: got %s, want DuplicateCommand", got)
	}
}

func TestNoCommands(t *testing.T) {
	g := newGateway(t)
	cfg := g.config()
	cfg.NoCommands = true
	run(t, cfg)
	c := g.control()
	c.command(shellDocument, runCommands("true"))
	if o := finalReply(t, c); o.DocumentStatus != "Failed" || o.DocumentTraceOutput != noCommands || len(o.RuntimeStatus) > 0 {
		t.Errorf("got %+v", o)
	}
}

func TestOutputIsBounded(t *testing.T) {
	g := newGateway(t)
	run(t, g.config())
	c := g.control()
	c.command(shellDocument, runCommands(`head -c 3000000 /dev/zero | tr '\0' '\001'; echo; echo the end`))
	s := finalReply(t, c).RuntimeStatus["run"]
	if len(s.StandardOutput) > maxStdout+100 || !strings.HasSuffix(s.StandardOutput, "\nthe end\n") || !strings.Contains(s.StandardOutput, "bytes left out--") {
		t.Errorf("got %d bytes, ending in %q", len(s.StandardOutput), s.StandardOutput[max(0, len(s.StandardOutput)-50):])
	}
	if len(s.Output) > maxPluginOutput {
		t.Errorf("the short form has %d bytes", len(s.Output))
	}
}

func FuzzReadJob(f *testing.F) {
	f.Add([]byte(shellDocument), []byte(`{"commands":["a"]}`))
	f.Add([]byte(`{"schemaVersion":"1.2","runtimeConfig":{"aws:runShellScript":{"properties":[{"runCommand":"{{ a }}"}]}}}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, document, parameters []byte) {
		var given map[string]json.RawMessage
		if json.Unmarshal(parameters, &given) != nil || !json.Valid(document) {
			return
		}
		steps, err := readJob(wire.Command{DocumentContent: document, Parameters: given})
		if err != nil {
			return
		}
		for _, s := range steps {
			if s.timeout <= 0 || s.timeout > maxStepTimeout || strings.ContainsRune(s.script, 0) {
				t.Errorf("got step %+v", s)
			}
		}
	})
}
