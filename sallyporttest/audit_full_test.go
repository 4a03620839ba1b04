package sallyporttest_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"golang.org/x/crypto/ssh"

	"sallyport.dev/audit"
	"sallyport.dev/client"
	"sallyport.dev/identity"
	"sallyport.dev/internal/needs"
	"sallyport.dev/member"
	"sallyport.dev/node"
	"sallyport.dev/sallyporttest"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

// silent is a system whose audit log can be kept from taking records, and what somebody
// may try meanwhile.
type silent struct {
	*sallyporttest.System
	t          *testing.T
	admin      sallyporttest.Key
	signer     ssh.Signer // the admin's at the front door
	lent       *lent
	asked      *client.AccessRequest
	activation wire.RegisterManagedInstance
}

func newSilent(t *testing.T, o sallyporttest.Options) *silent {
	t.Helper()
	change := o.Configure
	o.Configure = func(c *member.Config) {
		c.SSH = &member.SSH{Listen: "127.0.0.1:0"}
		if change != nil {
			change(c)
		}
	}
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	m := &silent{System: sallyporttest.Start(t, "m1", o), t: t}
	m.Node(grantedNode, identity.Tags{"Name": "frontend-1", "Department": "FrontEnd"})
	m.admin = m.User("admin", nil, sallyporttest.Everything)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	m.must(err)
	m.signer, err = ssh.NewSignerFromKey(private)
	m.must(err)
	m.must(m.RegisterSSHKey(t.Context(), "admin", string(ssh.MarshalAuthorizedKey(m.signer.PublicKey()))))
	m.lent = lend(t, m.System)
	m.asked, err = m.API(m.lent.carol).RequestAccess(t.Context(), client.RequestAccessInput{
		Flow: "short", Reason: "to see it end", Seconds: 3600, Values: map[string][]string{"duration": {"1h"}},
	})
	m.must(err)
	m.activation.ActivationID, m.activation.ActivationCode, err = m.CreateActivation(t.Context(), "new", nil, []string{"mi-0123456789abcdef0"})
	m.must(err)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	m.must(err)
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	m.must(err)
	m.activation.PublicKey, m.activation.PublicKeyType, m.activation.Fingerprint = base64.StdEncoding.EncodeToString(der), "Rsa", "8f1c0c1e-8e5a-4d7c-9a55-0d6f3f1a2b3c"
	return m
}

func (m *silent) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// attempts are the ways in which something is allowed, each with what it does and its
// error.
func (m *silent) attempts() map[string]func() error {
	ctx := m.t.Context()
	return map[string]func() error{
		"the API, a session": func() error {
			_, err := m.API(m.admin).StartSession(ctx, &ssm.StartSessionInput{Target: aws.String(grantedNode)})
			return err
		},
		"the API, a change": func() error { return m.API(m.admin).EnableUser(ctx, "carol") },
		"the API, reading the log": func() error {
			_, err := m.API(m.admin).QueryAudit(ctx, client.QueryAuditInput{})
			return err
		},
		"the API, verifying the log": func() error {
			_, err := m.API(m.admin).AuditHeads(ctx)
			return err
		},
		"the front door": m.exec,
		"an agent":       m.register,
		"a decision": func() error {
			_, err := m.API(m.lent.bob).ApproveRequest(ctx, client.DecideInput{RequestID: m.asked.RequestID, Hash: m.asked.Hash})
			return err
		},
	}
}

// exec runs a command through the front door.
func (m *silent) exec() error {
	c, err := ssh.Dial("tcp", m.SSHAddress(), &ssh.ClientConfig{User: "frontend-1", Auth: []ssh.AuthMethod{ssh.PublicKeys(m.signer)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 10 * time.Second})
	if err != nil {
		return err
	}
	defer c.Close()
	session, err := c.NewSession()
	if err != nil {
		return err
	}
	out, err := session.Output("echo allowed")
	if err == nil && !bytes.Contains(out, []byte("allowed")) {
		err = fmt.Errorf("got %q", out)
	}
	return err
}

// register registers a node.
func (m *silent) register() error {
	body, err := json.Marshal(m.activation)
	m.must(err)
	r, err := http.NewRequestWithContext(m.t.Context(), http.MethodPost, m.PlainURL()+"/", bytes.NewReader(body))
	m.must(err)
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "AmazonSSM.RegisterManagedInstance")
	resp, err := http.DefaultClient.Do(r)
	m.must(err)
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	return nil
}

// Where the log takes no records nothing is allowed, by whichever way; and once it does
// again everything is, and the log is whole.
func TestNothingWithoutAudit(t *testing.T) {
	dir := t.TempDir()
	m := newSilent(t, sallyporttest.Options{Dir: dir})
	d := openTampered(t, dir)
	d.do(`CREATE TRIGGER audit_full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END`)
	before := m.state()
	for name, attempt := range m.attempts() {
		if err := attempt(); err == nil {
			t.Errorf("%s: allowed without a record", name)
		}
	}
	if after := m.state(); after != before {
		t.Errorf("what there is: got %s, want %s as before", after, before)
	}
	d.do(`DROP TRIGGER audit_full`)
	for name, attempt := range m.attempts() {
		if err := attempt(); err != nil {
			t.Errorf("%s, once records are taken again: %v", name, err)
		}
	}
	m.wantWhole()
}

// state is what attempts would change.
func (m *silent) state() string {
	m.t.Helper()
	r, err := m.Access().Request(m.t.Context(), m.asked.RequestID)
	m.must(err)
	nodes, err := m.Store.Nodes(m.t.Context(), node.Filter{})
	m.must(err)
	return fmt.Sprintf("request %s of %d decisions, %d nodes", r.State, len(r.Decisions), len(nodes))
}

// wantWhole looks through the log.
func (m *silent) wantWhole() {
	m.t.Helper()
	m.must(audit.Verify(audit.All(m.t.Context(), m.Store, audit.Filter{})))
	if out, status := sallyport(m.t, m.System, m.admin, "audit", "verify"); status != 0 {
		m.t.Errorf("audit verify: got status %d, %s", status, out)
	}
}

// On a disk that is really full, whatever was allowed is in the log all the same.
func TestFullDisk(t *testing.T) {
	disk := tmpfs(t)
	m := newSilent(t, sallyporttest.Options{Store: "sqlite:" + filepath.Join(disk, "state.db")})
	ballast := filepath.Join(disk, "ballast")
	m.must(fill(ballast))
	start := m.attempts()["the API, a session"]
	refused := 0
	for range 2000 { // the database has some room of its own
		if err := start(); err != nil {
			refused++
		}
		if refused > 20 {
			break
		}
	}
	if refused <= 20 {
		t.Fatalf("the disk never was full: %d refused", refused)
	}
	for _, attempt := range m.attempts() {
		_ = attempt() // allowed or not, see below
	}
	m.must(os.Remove(ballast))
	m.Eventually(func() bool { return start() == nil }, "sessions again")
	allowed := 0
	for r, err := range audit.All(t.Context(), m.Store, audit.Filter{Action: "ssm:StartSession", Decision: "Allowed"}) {
		m.must(err)
		if r.Hash != "" {
			allowed++
		}
	}
	sessions, err := m.Store.Sessions(t.Context(), session.Filter{Limit: 3000})
	m.must(err)
	if len(sessions) == 0 || len(sessions) > allowed {
		t.Errorf("there are %d sessions, and %d records that allow one", len(sessions), allowed)
	}
	m.wantWhole()
}

// fill writes a file until the disk is full.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	if !strings.Contains(err.Error(), "no space") {
		return err
	}
	return f.Close()
}

// tmpfs is a disk of a few megabytes.
func tmpfs(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		needs.Missing(t, "mounting a small disk needs root")
	}
	dir := t.TempDir()
	if err := mountTmpfs(dir, "8m"); err != nil {
		needs.Missing(t, fmt.Sprintf("mounting a small disk: %v", err))
	}
	t.Cleanup(func() {
		if err := unmount(dir); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return dir
}
