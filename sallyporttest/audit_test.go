package sallyporttest_test

import (
	"bufio"
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"sallyport.dev/audit"
	"sallyport.dev/internal/hooksign"
	"sallyport.dev/member"
	"sallyport.dev/sallyporttest"
)

// asCLI makes this test's program our command line.
const asCLI = "SALLYPORT_TEST_AS_CLI"

// sallyport runs our command line and returns what it prints and its exit status.
func sallyport(t testing.TB, s *sallyporttest.System, key sallyporttest.Key, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(s.Env(key), asCLI+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// tampered is a database that the test writes to behind the server's back, and makes
// whole again.
type tampered struct {
	t  *testing.T
	db *sql.DB
}

func openTampered(t *testing.T, dir string) *tampered {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "sallyport.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return &tampered{t, db}
}

func (d *tampered) do(statements ...string) {
	d.t.Helper()
	for _, s := range statements {
		if _, err := d.db.ExecContext(d.t.Context(), s); err != nil {
			d.t.Fatalf("%s: %v", s, err)
		}
	}
}

func (d *tampered) save() {
	d.t.Helper()
	d.do("CREATE TEMP TABLE a AS SELECT * FROM audit", "CREATE TEMP TABLE c AS SELECT * FROM audit_checkpoints")
}

func (d *tampered) restore() {
	d.t.Helper()
	d.do("DELETE FROM audit", "INSERT INTO audit SELECT * FROM a", "DELETE FROM audit_checkpoints", "INSERT INTO audit_checkpoints SELECT * FROM c")
}

// rewrite makes a chain that holds together and does not say who.
func (d *tampered) rewrite(member string) {
	d.t.Helper()
	rows, err := d.db.QueryContext(d.t.Context(), "SELECT record FROM audit WHERE member = $1 ORDER BY seq", member)
	if err != nil {
		d.t.Fatal(err)
	}
	var all []audit.Record
	for rows.Next() {
		var text string
		var r audit.Record
		if err := rows.Scan(&text); err != nil {
			d.t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			d.t.Fatal(err)
		}
		all = append(all, r)
	}
	if err := rows.Close(); err != nil {
		d.t.Fatal(err)
	}
	prev := audit.NoPrev
	for _, r := range all {
		r.Principal, r.Prev = "nobody", prev
		r.Hash, _ = audit.Sum(r)
		prev = r.Hash
		text, _ := json.Marshal(r)
		if _, err := d.db.ExecContext(d.t.Context(), "UPDATE audit SET record = $1, principal = $2, hash = $3 WHERE member = $4 AND seq = $5",
			string(text), r.Principal, r.Hash, member, r.Seq); err != nil {
			d.t.Fatal(err)
		}
	}
}

// "sallyport audit verify" names the place of whatever somebody does who has the database
// and the recording store, but not the key.
func TestAuditVerify(t *testing.T) {
	dir := t.TempDir()
	s := sallyporttest.Start(t, "m1", sallyporttest.Options{Dir: dir})
	admin := s.User("admin", nil, sallyporttest.Everything)
	for i := range 5 {
		s.User(fmt.Sprint("user-", i), nil, "")
	}
	s.Stop() // makes a checkpoint
	s = sallyporttest.Start(t, "m1", sallyporttest.Options{Dir: dir})
	checkpoints := filepath.Join(dir, "recordings", "audit", "checkpoints")
	s.Eventually(func() bool { names, _ := os.ReadDir(checkpoints); return len(names) >= 6 }, "three checkpoints in the store")

	key, note := filepath.Join(dir, "audit.pub"), filepath.Join(dir, "note.json")
	out, _ := sallyport(t, s, admin, "ssh-authority", "list", "--json")
	var authorities struct {
		Authorities []struct{ Kind, PublicKey string }
	}
	if err := json.Unmarshal([]byte(out), &authorities); err != nil {
		t.Fatal(err, out)
	}
	for _, a := range authorities.Authorities {
		if a.Kind == "audit" {
			if err := os.WriteFile(key, []byte(a.PublicKey+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	out, status := sallyport(t, s, admin, "audit", "verify", "--note", note)
	if status != 0 || !strings.Contains(out, ": whole\n") || !strings.Contains(out, "pin them with --key") || !strings.Contains(out, "head m1 ") {
		t.Fatalf("a log that is whole: got status %d, %s", status, out)
	}
	export := filepath.Join(dir, "audit.jsonl")
	if out, status := sallyport(t, s, admin, "audit", "export", "-o", export); status != 0 {
		t.Fatal(out)
	}
	d := openTampered(t, dir)
	d.save()
	for _, test := range []struct {
		name   string
		tamper func()
		want   string
	}{
		{"one byte changed", func() {
			d.do("UPDATE audit SET record = REPLACE(record, 'user-2', 'user-X') WHERE record LIKE '%user-2%'")
		}, `of member "m1" was changed: its hash is not that of its content`},
		{"one record removed", func() { d.do("DELETE FROM audit WHERE seq = 5") }, `record 6 of member "m1" comes after record 4: record 5 is missing`},
		{"two swapped", func() {
			d.do("UPDATE audit SET seq = -4 WHERE seq = 4", "UPDATE audit SET seq = 4 WHERE seq = 5", "UPDATE audit SET seq = 5 WHERE seq = -4")
		}, `record 4 of member "m1" holds record 5 of member "m1": they were swapped`},
		{"the tail cut", func() { d.do("DELETE FROM audit WHERE seq > 5") }, `the chain of member "m1" ends with record 5, but checkpoint`},
		{"a chain missing", func() { d.do("DELETE FROM audit") }, `the chain of member "m1" is missing altogether`},
		{"a checkpoint removed", func() { d.do("DELETE FROM audit_checkpoints WHERE number = 2") }, "checkpoint 2 in the database is missing"},
		{"a checkpoint altered", func() {
			d.do(`UPDATE audit_checkpoints SET text = REPLACE(text, '"seq"', '"seq" ') WHERE number = 2`)
		}, "checkpoint 2 in the database is not signed by a trusted key"},
		{"checkpoints reordered", func() {
			d.do("UPDATE audit_checkpoints SET number = -1 WHERE number = 1", "UPDATE audit_checkpoints SET number = 1 WHERE number = 2", "UPDATE audit_checkpoints SET number = 2 WHERE number = -1")
		}, "checkpoint 1 in the database is checkpoint 2: it was moved"},
		{"rewritten from the start", func() { d.rewrite("m1") }, `is not the one that checkpoint 1 in the database saw: the chain was rewritten`},
	} {
		test.tamper()
		for name, args := range map[string][]string{"with the pinned key": {"--key", key, "--noted", note}, "with the server's": nil} {
			out, status := sallyport(t, s, admin, append([]string{"audit", "verify"}, args...)...)
			if status != 1 || !strings.Contains(out, test.want) {
				t.Errorf("%s, %s: got status %d, %swant %s", test.name, name, status, out, test.want)
			}
		}
		d.restore()
	}
	if out, status := sallyport(t, s, admin, "audit", "verify", "--key", key, "--noted", note); status != 0 {
		t.Errorf("made whole again: got status %d, %s", status, out)
	}

	// Without the server, with the pinned key and a copy of the store's folder.
	offline := func(change func([]string) []string, args ...string) (string, int) {
		text, err := os.ReadFile(export)
		if err != nil {
			t.Fatal(err)
		}
		lines := change(strings.SplitAfter(strings.TrimSuffix(string(text), "\n"), "\n"))
		file := filepath.Join(t.TempDir(), "log.jsonl")
		if err := os.WriteFile(file, []byte(strings.Join(lines, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"audit", "verify", "--file", file, "--key", key}, args...)...)
		cmd.Env = []string{asCLI + "=1", "HOME=" + dir}
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	for _, test := range []struct {
		name   string
		change func([]string) []string
		args   []string
		status int
		want   string
	}{
		{"whole", func(l []string) []string { return l }, nil, 0, ": whole"},
		{"from the store's root", func(l []string) []string { return l }, []string{"--checkpoints", filepath.Join(dir, "recordings")}, 0, ": whole"},
		{"a line removed", func(l []string) []string { return append(l[:3:3], l[4:]...) }, nil, 1, "record 4 is missing"},
		{"two lines swapped", func(l []string) []string { l[3], l[4] = l[4], l[3]; return l }, nil, 1, "moved or repeated"},
		{"the tail cut", func(l []string) []string { return l[:4] }, nil, 1, "its end was cut off"},
		{"a line that is none", func(l []string) []string { l[2] = "{}\n"; return l }, nil, 1, "line 3 of the file"},
		{"a part", func(l []string) []string { return l[3:6] }, nil, 1, "records 1 to 3 are missing"},
		{"a part, said so", func(l []string) []string { return l[3:6] }, []string{"--partial"}, 0, ": whole"},
	} {
		args := test.args
		if len(args) == 0 || args[0] != "--checkpoints" {
			args = append(args, "--checkpoints", checkpoints)
		}
		if out, status := offline(test.change, args...); status != test.status || !strings.Contains(out, test.want) {
			t.Errorf("offline, %s: got status %d, %swant %d, %s", test.name, status, out, test.status, test.want)
		}
	}
	// Without checkpoints, nobody can see that the end is missing, and that is said.
	out, _ = sallyport(t, s, admin, "audit", "verify", "--file", export, "--key", key)
	if !strings.Contains(out, "without --checkpoints, an end that was cut off cannot be seen") {
		t.Errorf("without checkpoints: got %s", out)
	}
	// Who may not is told so.
	alice := s.User("alice", nil, "")
	if out, status := sallyport(t, s, alice, "audit", "verify", "--key", key); status == 0 || !strings.Contains(out, "sallyport:VerifyAudit") {
		t.Errorf("without the right: got status %d, %s", status, out)
	}
}

// gathered is what is forwarded, by destination.
type gathered struct {
	mu    sync.Mutex
	lines map[string][]string
}

func (c *gathered) take(name string, text []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for line := range strings.SplitSeq(strings.TrimSuffix(string(text), "\n"), "\n") {
		c.lines[name] = append(c.lines[name], line)
	}
}

// missing lists numbers up to n that no line holds after a text.
func (c *gathered) missing(name, before string, n int64) (all []int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := strings.Join(c.lines[name], "\n")
	for seq := int64(1); seq <= n; seq++ {
		if !strings.Contains(text, fmt.Sprint(before, seq, ",")) {
			all = append(all, seq)
		}
	}
	return all
}

// syslogServer takes octet-counted messages.
func syslogServer(t *testing.T, take func([]byte)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer conn.Close()
				for in := bufio.NewReader(conn); ; {
					length, err := in.ReadString(' ')
					if err != nil {
						return
					}
					n, _ := strconv.Atoi(strings.TrimSpace(length))
					message := make([]byte, n)
					if _, err := io.ReadFull(in, message); err != nil {
						return
					}
					_, line, _ := bytes.Cut(message, []byte("\xef\xbb\xbf"))
					take(line)
				}
			})
		}
	})
	t.Cleanup(func() { ln.Close(); done.Wait() })
	return "tcp://" + ln.Addr().String()
}

// The log arrives at every destination whole, in its format, across a restart; one that
// is dead holds nothing up.
func TestAuditForwarded(t *testing.T) {
	got := &gathered{lines: map[string][]string{}}
	const secret = "0123456789abcdef-secret"
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get(hooksign.HeaderSignature) != hooksign.Sign(secret, r.Header.Get(hooksign.HeaderTimestamp), body) {
			t.Error("a wrong signature")
		}
		got.take("webhook", body)
	}))
	t.Cleanup(hook.Close)
	backend := s3mem.New()
	if err := backend.CreateBucket("logs"); err != nil {
		t.Fatal(err)
	}
	s3 := httptest.NewServer(gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server())
	t.Cleanup(s3.Close)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	credentials := file("credentials", "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret\n")
	options := sallyporttest.Options{Dir: dir, Configure: func(c *member.Config) {
		c.Audit = &member.Audit{Forward: []*member.Forward{
			{Kind: "syslog", Name: "siem", Address: syslogServer(t, func(line []byte) { got.take("syslog", line) })},
			{Kind: "webhook", Name: "hook", URL: hook.URL, SecretFile: file("secret", secret), Format: "ocsf"},
			{Kind: "s3", Name: "lake", URL: "s3://logs/audit?region=us-east-1&path_style=true&endpoint=" + s3.URL, CredentialsFile: credentials, Format: "ecs"},
			{Kind: "syslog", Name: "dead", Address: "tcp://127.0.0.1:1"},
		}}
	}}
	s := sallyporttest.Start(t, "m1", options)
	admin := s.User("admin", nil, sallyporttest.Everything)
	s.Eventually(func() bool {
		return len(got.missing("syslog", `"seq":`, 3)) == 0 && len(got.missing("webhook", `"sequence":`, 3)) == 0
	}, "the first records")
	out, status := sallyport(t, s, admin, "audit", "status")
	if status != 0 || !strings.Contains(out, "syslog/dead") || !strings.Contains(out, "connection refused") || !strings.Contains(out, "s3/lake") {
		t.Errorf("status: got %d, %s", status, out)
	}
	s.Stop()
	s = sallyporttest.Start(t, "m1", options)
	s.User("bob", nil, "")
	s.Stop()

	state, err := member.OpenState(t.Context(), configOf(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	last, _, err := state.Store.LastAudit(t.Context(), "m1")
	if err := errors.Join(err, state.Close()); err != nil || last.Action != "stop" || last.Seq < 8 {
		t.Fatalf("the last record: got %+v, %v", last, err)
	}
	// What a stop in a hurry left, the next start sends.
	s = sallyporttest.Start(t, "m1", options)
	s.Eventually(func() bool {
		return len(got.missing("syslog", `"seq":`, last.Seq)) == 0 && len(got.missing("webhook", `"sequence":`, last.Seq)) == 0
	}, "all records")
	s.Stop()

	objects, err := backend.ListBucket("logs", &gofakes3.Prefix{HasPrefix: true, Prefix: "audit/"}, gofakes3.ListBucketPage{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects.Contents {
		object, err := backend.GetObject("logs", o.Key, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(object.Contents)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(o.Key, "audit/"+time.Now().UTC().Format("2006/")) || !strings.HasSuffix(o.Key, ".jsonl") {
			t.Errorf("an object named %s", o.Key)
		}
		got.take("s3", text)
	}
	for name, before := range map[string]string{"syslog": `"seq":`, "webhook": `"sequence":`, "s3": `"sequence":`} {
		if missing := got.missing(name, before, last.Seq); len(missing) > 0 {
			t.Errorf("%s: of %d records these did not arrive: %v", name, last.Seq, missing)
		}
	}
	for name, want := range map[string]string{"syslog": `{"member":"m1"`, "webhook": `"class_uid":`, "s3": `"ecs":{"version"`} {
		for _, line := range got.lines[name] {
			if !strings.Contains(line, want) || strings.Contains(line, secret) {
				t.Errorf("%s: got %s", name, line)
			}
		}
	}
}

// configOf is a configuration that opens a member's state.
func configOf(t *testing.T, dir string) member.Config {
	t.Helper()
	cfg := member.Config{Account: sallyporttest.Account, Region: sallyporttest.Region, Member: "m1", DataDir: dir,
		ListenPlain: "127.0.0.1:0", Logger: sallyporttest.Logger(t)}
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	return cfg
}
