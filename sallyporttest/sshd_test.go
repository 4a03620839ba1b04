//go:build linux

package sallyporttest_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport.dev/agent"
	"sallyport.dev/agent/keysync"
	"sallyport.dev/identity"
	"sallyport.dev/internal/needs"
	"sallyport.dev/sallyporttest"
)

// sshd is an OpenSSH server on a loopback port, and its clients.
type sshd struct {
	t    *testing.T
	dir  string // which sshd trusts: only root can write on the way to it
	port int
	user string
	log  bytes.Buffer
}

// newSSHD makes a place for an sshd that lets the test's own user in. It begins with
// start, once its configuration is known.
func newSSHD(t *testing.T) *sshd {
	t.Helper()
	needs.Program(t, "sshd")
	needs.Program(t, "ssh")
	needs.Root(t) // only root can make folders that sshd trusts
	me, err := user.Current()
	fatal(t, err)
	dir, err := os.MkdirTemp("/var/lib", "sallyport-test-")
	fatal(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	fatal(t, os.Chmod(dir, 0o755))
	s := &sshd{t: t, dir: dir, port: freePort(t), user: me.Username}
	s.keygen("host")
	return s
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *sshd) path(name string) string { return filepath.Join(s.dir, name) }

func (s *sshd) write(name, text string, mode os.FileMode) string {
	s.t.Helper()
	fatal(s.t, os.WriteFile(s.path(name), []byte(text), mode))
	fatal(s.t, os.Chmod(s.path(name), mode))
	return s.path(name)
}

// keygen makes a key pair and returns the public one.
func (s *sshd) keygen(name string) string {
	s.t.Helper()
	out, err := exec.Command(needs.Program(s.t, "ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", s.path(name)).CombinedOutput()
	if err != nil {
		s.t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	b, err := os.ReadFile(s.path(name + ".pub"))
	fatal(s.t, err)
	return strings.TrimSpace(string(b))
}

// start runs sshd with more lines of configuration.
func (s *sshd) start(lines ...string) {
	s.t.Helper()
	fatal(s.t, os.MkdirAll("/run/sshd", 0o755)) // which Debian's sshd insists on
	config := s.write("sshd_config", strings.Join(append([]string{
		"Port " + strconv.Itoa(s.port), "ListenAddress 127.0.0.1", "HostKey " + s.path("host"), "PidFile none",
		"PermitRootLogin prohibit-password", "PasswordAuthentication no", "KbdInteractiveAuthentication no",
		"StrictModes yes", "UsePAM no", "LogLevel VERBOSE", "PrintMotd no",
	}, lines...), "\n")+"\n", 0o644)
	cmd := exec.Command(needs.Program(s.t, "sshd"), "-D", "-e", "-f", config)
	cmd.Stderr = &s.log
	fatal(s.t, cmd.Start())
	s.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if s.t.Failed() {
			s.t.Logf("sshd:\n%s", s.log.String())
		}
	})
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("sshd does not listen: %v", err)
		}
	}
}

// lets reports whether sshd lets a key in, with options of ssh's.
func (s *sshd) lets(key string, options ...string) bool {
	args := append([]string{
		"-F", "none", "-p", strconv.Itoa(s.port), "-i", s.path(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10",
	}, options...)
	out, err := exec.Command("ssh", append(args, s.user+"@127.0.0.1", "echo let-$((40+2))-in")...).Output()
	return err == nil && strings.Contains(string(out), "let-42-in")
}

// awsCommand runs the real aws command as whoever has the key, and returns what it printed.
func awsCommand(t *testing.T, s *sallyporttest.System, key sallyporttest.Key, args ...string) string {
	t.Helper()
	cmd := exec.Command(needs.Program(t, "aws"), append(args, "--output", "text")...)
	// To the aws command an empty profile is one that does not exist.
	cmd.Env = slices.DeleteFunc(s.Env(key), func(kv string) bool { return strings.HasPrefix(kv, "AWS_PROFILE=") })
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("aws %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// A key that a member of a group uploads works for the node's own sshd within seconds,
// and stops within seconds of being made inactive, of its owner's leaving the group,
// and of their being disabled. The emergency key always works.
func TestKeySyncWithSSHD(t *testing.T) {
	d := newSSHD(t)
	needs.Program(t, "aws")
	s := sallyporttest.Start(t, "a", sallyporttest.Options{})
	admin := s.User("admin", nil, sallyporttest.Everything)
	s.User("alice", nil, "")
	fatal(t, s.CreateGroup(t.Context(), "ops"))
	fatal(t, s.Store.AddMember(t.Context(), "ops", "alice"))

	root := d.keygen("root")
	d.keygen("alice")
	file := d.path("authorized_keys")
	node := s.NodeWith("i-0123456789abcdef0", identity.Tags{"SSHKeyGroups": "ops"}, func(c *agent.Config) {
		c.KeySync = []keysync.Config{{Login: d.user, Groups: []string{"ops"}, RootKeys: []string{root}, File: file}}
	})
	d.start("AuthorizedKeysFile " + file)

	within := func(what string, want bool) {
		t.Helper()
		began := time.Now()
		s.Eventually(func() bool { return d.lets("alice") == want }, "%s", what)
		took := time.Since(began).Round(10 * time.Millisecond)
		t.Logf("%s: after %v", what, took)
		if took > 15*time.Second {
			t.Errorf("%s: took %v", what, took)
		}
		if !d.lets("root") {
			t.Errorf("%s: the emergency key does not work", what)
		}
	}
	within("before any upload", false)
	id := awsCommand(t, s, admin, "iam", "upload-ssh-public-key", "--user-name", "alice",
		"--ssh-public-key-body", "file://"+d.path("alice.pub"), "--query", "SSHPublicKey.SSHPublicKeyId")
	within("uploaded", true)
	status := func(status string) {
		awsCommand(t, s, admin, "iam", "update-ssh-public-key", "--user-name", "alice", "--ssh-public-key-id", id, "--status", status)
	}
	status("Inactive")
	within("made inactive", false)
	status("Active")
	within("made active", true)
	awsCommand(t, s, admin, "iam", "remove-user-from-group", "--group-name", "ops", "--user-name", "alice")
	within("left the group", false)
	awsCommand(t, s, admin, "iam", "add-user-to-group", "--group-name", "ops", "--user-name", "alice")
	within("back in the group", true)
	disable := func(disabled bool) {
		fatal(t, s.Store.UpdateUser(t.Context(), "alice", func(u *identity.User) error { u.Disabled = disabled; return nil }))
	}
	disable(true)
	within("disabled", false)
	disable(false)
	within("enabled", true)
	// The node may not read the group's keys any more.
	tag := func(groups string) {
		awsCommand(t, s, admin, "ssm", "add-tags-to-resource", "--resource-type", "ManagedInstance", "--resource-id", node.ID,
			"--tags", "Key=SSHKeyGroups,Value="+groups)
	}
	tag("web")
	within("another group in the node's tag", false)
	tag("ops")
	within("the group in the node's tag", true)

	// What is known holds while the server is away, and without the agent.
	s.Stop()
	if !d.lets("alice") {
		t.Error("the server is away: the key does not work")
	}
	node.Stop()
	if !d.lets("alice") || !d.lets("root") {
		t.Error("the agent has stopped: a key does not work")
	}
}

// sallyport is a build of the client that sshd is willing to run.
func (d *sshd) sallyport() string {
	d.t.Helper()
	path := d.path("sallyport")
	if out, err := exec.Command(needs.Program(d.t, "go"), "build", "-o", path, "sallyport.dev/cmd/sallyport").CombinedOutput(); err != nil {
		d.t.Fatalf("building sallyport: %v\n%s", err, out)
	}
	return path
}

// The client serves as sshd's AuthorizedKeysCommand, as a user with no other rights.
func TestAuthorizedKeysCommand(t *testing.T) {
	d := newSSHD(t)
	nobody, err := user.Lookup("nobody")
	fatal(t, err)
	uid, _ := strconv.Atoi(nobody.Uid)
	s := sallyporttest.Start(t, "a", sallyporttest.Options{})
	s.User("alice", nil, "")
	s.User("bob", nil, "")
	reader := s.User("sshd", nil, fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
		"Action":"sallyport:ListGroupSSHKeys","Resource":"arn:aws:iam::%s:group/ops"}]}`, sallyporttest.Account))
	fatal(t, s.CreateGroup(t.Context(), "ops"))
	fatal(t, s.Store.AddMember(t.Context(), "ops", "alice"))
	upload(t, s, d, "alice")
	upload(t, s, d, "bob")

	program := d.sallyport()
	config := d.write("aws", "[default]\nregion = "+sallyporttest.Region+"\nendpoint_url = "+s.PlainURL()+
		"\naws_access_key_id = "+reader.ID+"\naws_secret_access_key = "+reader.Secret+"\n", 0o600)
	fatal(t, os.Chown(config, uid, -1))
	cache := d.path("cache")
	fatal(t, os.Mkdir(cache, 0o700))
	fatal(t, os.Chown(cache, uid, -1))
	d.start("AuthorizedKeysFile none", "AuthorizedKeysCommandUser nobody",
		"AuthorizedKeysCommand /usr/bin/env AWS_CONFIG_FILE="+config+" AWS_EC2_METADATA_DISABLED=true "+program+
			" authorized-keys --group ops --login "+d.user+" --cache "+cache+" %u")
	for _, tt := range []struct {
		what   string
		change func()
		alice  bool
	}{
		{"a member of the group", func() {}, true},
		{"left the group", func() { fatal(t, s.Store.RemoveMember(t.Context(), "ops", "alice")) }, false},
		{"back in the group", func() { fatal(t, s.Store.AddMember(t.Context(), "ops", "alice")) }, true},
		{"the reader may read no more", func() { setReader(t, s, "Deny") }, false},
		{"the reader may read again", func() { setReader(t, s, "Allow") }, true},
		{"the server is away", s.Stop, true},
		{"the copy can be written by others", func() { fatal(t, os.Chmod(cache, 0o777)) }, false},
		{"the copy is right again", func() { fatal(t, os.Chmod(cache, 0o700)) }, true},
		{"there is no copy", func() { fatal(t, os.RemoveAll(cache)) }, false},
	} {
		tt.change()
		if got := d.lets("alice"); got != tt.alice {
			t.Errorf("%s: got in %v, want %v", tt.what, got, tt.alice)
		}
		if d.lets("bob") {
			t.Errorf("%s: bob got in, who is not in the group", tt.what)
		}
	}
}

func setReader(t *testing.T, s *sallyporttest.System, effect string) {
	t.Helper()
	fatal(t, s.PutInlinePolicy(t.Context(), identity.Owner{Kind: identity.OwnerUser, Name: "sshd"}, "test", fmt.Sprintf(
		`{"Version":"2012-10-17","Statement":[{"Effect":%q,"Action":"sallyport:ListGroupSSHKeys","Resource":"*"}]}`, effect)))
}

// upload makes a key and registers it for a user of the same name.
func upload(t *testing.T, s *sallyporttest.System, d *sshd, name string) {
	t.Helper()
	fatal(t, s.Store.CreateSSHKey(t.Context(), identity.SSHPublicKey{
		ID: identity.NewSSHKeyID(), User: name, Body: d.keygen(name), Active: true, Uploaded: time.Now(),
	}, 5))
}

// A node's own sshd that trusts the authority lets in whom it is told to, by certificate.
func TestCertificatesWithSSHD(t *testing.T) {
	d := newSSHD(t)
	s := sallyporttest.Start(t, "a", sallyporttest.Options{})
	people := map[string]sallyporttest.Key{"alice": s.User("alice", nil, ""), "bob": s.User("bob", nil, ""), "carol": s.User("carol", nil, "")}
	fatal(t, s.CreateGroup(t.Context(), "ops"))
	fatal(t, s.Store.AddMember(t.Context(), "ops", "bob"))
	program := d.sallyport()
	for name, key := range people {
		d.keygen(name)
		cmd := exec.Command(program, "ssh-cert", "--key", d.path(name), "--lifetime", "10m")
		cmd.Env = append(s.Env(key), "HOME="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), name) {
			t.Fatalf("ssh-cert of %s: %v\n%s", name, err, out)
		}
	}
	authorities, err := s.API(people["alice"]).GetSSHAuthorities(t.Context())
	fatal(t, err)
	trusted := d.write("trusted", strings.Join(authorities.TrustedUserCAKeys, "\n")+"\n", 0o644)
	principals := d.write("principals", "", 0o644)
	d.start("AuthorizedKeysFile none", "TrustedUserCAKeys "+trusted, "AuthorizedPrincipalsFile "+principals)
	for _, tt := range []struct{ principals, in string }{
		{"", ""},
		{"user/alice", "alice"},
		{"group/ops", "bob"},
		{"user/alice\ngroup/ops", "alice bob"},
		{"alice\nroot\nuser", ""},
	} {
		d.write("principals", tt.principals+"\n", 0o644)
		for name := range people {
			want := strings.Contains(tt.in, name)
			if got := d.lets(name, "-o", "CertificateFile="+d.path(name)+"-cert.pub"); got != want {
				t.Errorf("principals %q: %s got in %v, want %v", tt.principals, name, got, want)
			}
		}
	}
}
