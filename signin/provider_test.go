package signin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"golang.org/x/crypto/ssh"

	"sallyport.dev/client"
	"sallyport.dev/identity"
	chromium "sallyport.dev/internal/browser"
	"sallyport.dev/internal/idp"
	"sallyport.dev/internal/needs"
	"sallyport.dev/internal/readalong"
	"sallyport.dev/member"
	"sallyport.dev/sallyporttest"
)

const (
	frontend = "i-060ee0879f3ec4eb7"
	backend  = "i-05b7516a19f826be9"
)

// engineers may open shells on the nodes of their team, and assume a role.
const engineers = `{"Version":"2012-10-17","Statement":[
	{"Effect":"Allow","Action":"ssm:StartSession","Resource":["arn:aws:ec2:*:*:instance/*","arn:aws:ssm:*:*:document/*"],
	 "Condition":{"StringEquals":{"ssm:resourceTag/Team":"${aws:PrincipalTag/Team}"}}},
	{"Effect":"Allow","Action":["ssm:TerminateSession","ssm:ResumeSession"],"Resource":"arn:aws:ssm:*:*:session/${aws:username}-*"},
	{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"*"}]}`

const trustAccount = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::111111111111:root"}}]}`

// company is a whole system whose people sign in at a real OpenID provider.
type company struct {
	*sallyporttest.System
	t     *testing.T
	url   string
	idp   *idp.Provider
	bin   string // folder of sallyport and session-manager-plugin
	admin sallyporttest.Key
}

func newCompany(t *testing.T) *company {
	t.Helper()
	c := &company{t: t}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	ln.Close()
	c.url = "http://" + address
	c.idp = idp.Start(t, c.url+"/sign-in/callback/corp")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(c.idp.ClientSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.System = sallyporttest.Start(t, "one", sallyporttest.Options{Configure: func(m *member.Config) {
		m.ListenPlain = address
		m.SSH = &member.SSH{Listen: "127.0.0.1:0"}
		m.SignIn = &member.SignIn{URL: c.url, Session: "8h", OIDC: []member.OIDC{{
			Name: "corp", Title: "Corp", Issuer: c.idp.Issuer, ClientID: c.idp.ClientID, ClientSecretFile: secret,
			Scopes: []string{"profile", "groups"}, GroupsClaim: "groups", Groups: []string{"engineers"},
			Tags: []member.OIDCTag{{Key: "Team", Claim: "team"}},
		}}}
	}})
	c.must(c.CreateGroup(t.Context(), "engineers"))
	c.must(c.PutInlinePolicy(t.Context(), identity.Owner{Kind: identity.OwnerGroup, Name: "engineers"}, "work", engineers))
	c.must(c.CreateRole(t.Context(), "FrontEndSSHAccess", trustAccount))
	c.admin = c.User("admin", nil, sallyporttest.Everything)
	c.Node(frontend, identity.Tags{"Name": "frontend-1", "Team": "payments"})
	c.Node(backend, identity.Tags{"Name": "backend-1", "Team": "search"})
	c.idp.SetAccounts(t, map[string]map[string]any{
		"alice": {"preferred_username": "alice", "groups": []string{"engineers", "admin"}, "team": "payments"},
	})
	c.bin = t.TempDir()
	self, err := os.Executable()
	c.must(err)
	for _, name := range []string{"sallyport", "session-manager-plugin"} {
		if err := os.Link(self, filepath.Join(c.bin, name)); err != nil {
			c.must(copyFile(self, filepath.Join(c.bin, name)))
		}
	}
	return c
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o700)
}

func (c *company) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// laptop is a computer that somebody sits at: a home of its own.
type laptop struct {
	*company
	home string
}

func (c *company) laptop() *laptop { return &laptop{c, c.t.TempDir()} }

func (l *laptop) command(name string, args ...string) *exec.Cmd {
	if name == "sallyport" {
		name = filepath.Join(l.bin, name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	l.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "AWS_") && !strings.HasPrefix(v, "SALLYPORT_CONFIG") && !strings.HasPrefix(v, "XDG_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+l.home, "PATH="+l.bin+":"+os.Getenv("PATH"), "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=",
		"AWS_MAX_ATTEMPTS=1", "BROWSER=", "DISPLAY=", "WAYLAND_DISPLAY=")
	return cmd
}

// run runs a program and returns what it wrote.
func (l *laptop) run(name string, args ...string) (string, error) {
	out, err := l.command(name, args...).CombinedOutput()
	return string(out), err
}

func (l *laptop) mustRun(name string, args ...string) string {
	l.t.Helper()
	out, err := l.run(name, args...)
	if err != nil {
		l.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// aws runs the stock command line with a profile. Versions before 1.29 and 2.13 do not
// read endpoint_url of profiles.
func (l *laptop) aws(profile string, args ...string) (string, error) {
	return l.run(needs.Program(l.t, "aws"), append([]string{"--profile", profile, "--endpoint-url", l.url}, args...)...)
}

// running is a program that goes on, with what it has written.
type running struct {
	readalong.Text
	cmd   *exec.Cmd
	stdin io.WriteCloser
	done  chan struct{}
	err   error // once done
}

func (l *laptop) start(name string, args ...string) *running {
	l.t.Helper()
	r := &running{cmd: l.command(name, args...), done: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = r, r
	var err error
	r.stdin, err = r.cmd.StdinPipe()
	l.must(err)
	l.must(r.cmd.Start())
	go func() { r.err = r.cmd.Wait(); close(r.done) }()
	l.t.Cleanup(func() { _ = r.cmd.Process.Kill(); <-r.done })
	return r
}

// find waits until a program has written what matches.
func (l *laptop) find(r *running, pattern string) string {
	l.t.Helper()
	re := regexp.MustCompile(pattern)
	var m []string
	l.Eventually(func() bool {
		m = re.FindStringSubmatch(r.String())
		select {
		case <-r.done:
			m = re.FindStringSubmatch(r.String())
			return true
		default:
			return m != nil
		}
	}, "%s in %q", pattern, r.String())
	if m == nil {
		l.t.Fatalf("%s is not in %q", pattern, r.String())
	}
	return m[len(m)-1]
}

func (l *laptop) wait(r *running) string {
	l.t.Helper()
	select {
	case <-r.done:
	case <-time.After(time.Minute):
		l.t.Fatalf("it goes on: %s", r.String())
	}
	if r.err != nil {
		l.t.Fatalf("%v: %s", r.err, r.String())
	}
	return r.String()
}

// atProvider signs in at the provider as somebody, from our page with the ways to do so
// on, and gets to our next page.
func atProvider(name string) chromedp.Action[chromedp.Void] {
	return chromedp.Steps(
		chromedp.WaitVisible(`a[href^="/sign-in/with/corp"]`),
		chromedp.Click(`a[href^="/sign-in/with/corp"]`),
		chromedp.WaitVisible(`input[name="login"]`),
		chromedp.SendKeys(`input[name="login"]`, name),
		chromedp.SendKeys(`input[name="password"]`, "any"),
		chromedp.Click(`button[type="submit"]`),
		chromedp.WaitVisible(`input[name="prompt"][value="consent"] ~ button, form button[autofocus]`),
		chromedp.Click(`button[type="submit"]`),
	)
}

func pageText(ctx context.Context, t *testing.T) string {
	t.Helper()
	text, err := chromedp.Run(ctx, chromedp.Text("body"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// People sign in at a certified OpenID provider, with a real browser, on the computer
// that they sit at and for one without a browser; AWS's command line works with what comes
// of it; and all of it ends at once when the person is disabled.
func TestRealProvider(t *testing.T) {
	c := newCompany(t)
	ctx := chromium.New(t)
	do := func(what string, steps ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, steps...); err != nil {
			var text string
			text, _ = chromedp.Run(context.WithoutCancel(ctx), chromedp.Text("body"))
			t.Fatalf("%s: %v; the page says %q", what, err, text)
		}
	}

	desk := c.laptop()
	login := desk.start("sallyport", "login", c.url, "--write-profiles")
	page := desk.find(login, `(http://\S+/sign-in/authorize\S+)`)
	do("signing in at the provider", chromedp.Navigate(page), atProvider("alice"), chromedp.WaitVisible("#confirm"))
	if text := pageText(ctx, t); !strings.Contains(text, "act as alice") {
		t.Errorf("the question: got %q", text)
	}
	do("letting the program in", chromedp.Click("#confirm"), chromedp.WaitVisible("body"))
	out := desk.wait(login)
	for _, want := range []string{"signed in as alice at " + c.url, "profile      sallyport\n", "profile      sallyport-FrontEndSSHAccess", "certificate  "} {
		if !strings.Contains(out, want) {
			t.Errorf("login lacks %q:\n%s", want, out)
		}
	}

	t.Run("the stock command line", func(t *testing.T) { desk.worksWithAWS(t) })

	cell := c.laptop() // without a browser
	login = cell.start("sallyport", "login", "--device", c.url)
	code := cell.find(login, `\s([B-Z]{4}-[B-Z]{4})\s`)
	do("entering the code", chromedp.Navigate(c.url+"/sign-in/device"), chromedp.WaitVisible("#user_code"),
		chromedp.SendKeys("#user_code", strings.ToLower(code)), chromedp.Click("button"), chromedp.WaitVisible("#confirm"))
	if text := pageText(ctx, t); !strings.Contains(text, code) || !strings.Contains(text, "127.0.0.1") || !strings.Contains(text, "sallyport/") {
		t.Errorf("the question: got %q", text)
	}
	do("confirming the code", chromedp.Click("#confirm"), chromedp.WaitVisible("#done"))
	cell.wait(login)

	var all []client.SignIn
	c.must(json.Unmarshal([]byte(cell.mustRun("sallyport", "--json", "sign-ins")), &all))
	kinds := map[string]int{}
	for _, s := range all {
		kinds[s.Kind]++
	}
	if len(all) != 3 || kinds["browser"] != 1 || kinds["cli"] != 2 {
		t.Errorf("sign-ins: got %+v", all)
	}

	t.Run("disabled", func(t *testing.T) { c.disabledAtOnce(t, ctx, desk, cell) })
}

func (l *laptop) worksWithAWS(t *testing.T) {
	for profile, want := range map[string]string{
		"sallyport":                   "arn:aws:iam::111111111111:user/people/alice",
		"sallyport-FrontEndSSHAccess": "arn:aws:sts::111111111111:assumed-role/FrontEndSSHAccess/alice",
	} {
		if out, err := l.aws(profile, "sts", "get-caller-identity", "--output", "text"); err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: got %s (%v), want %s", profile, out, err, want)
		}
	}
	out, err := l.aws("sallyport", "ssm", "start-session", "--target", backend)
	if err == nil || !strings.Contains(out, "AccessDenied") {
		t.Errorf("a node of another team: got %s (%v), want a refusal", out, err)
	}
	shell := l.startShell()
	fmt.Fprintln(shell.stdin, "exit")
	select {
	case <-shell.done:
	case <-time.After(30 * time.Second):
		t.Errorf("the shell goes on: %s", shell)
	}
}

// startShell opens a shell with the stock command line and types into it.
func (l *laptop) startShell() *running {
	l.t.Helper()
	shell := l.start(needs.Program(l.t, "aws"), "--profile", "sallyport", "--endpoint-url", l.url, "ssm", "start-session", "--target", frontend)
	fmt.Fprintln(shell.stdin, "echo hel''lo")
	l.find(shell, "hello")
	return shell
}

// sshIn opens a connection to the front door with the laptop's certificate.
func (l *laptop) sshIn() error {
	l.t.Helper()
	dir := filepath.Join(l.home, ".sallyport", "ssh", "default")
	private, err := os.ReadFile(filepath.Join(dir, "id_ed25519"))
	l.must(err)
	line, err := os.ReadFile(filepath.Join(dir, "id_ed25519-cert.pub"))
	l.must(err)
	signer, err := ssh.ParsePrivateKey(private)
	l.must(err)
	public, _, _, _, err := ssh.ParseAuthorizedKey(line)
	l.must(err)
	cert, err := ssh.NewCertSigner(public.(*ssh.Certificate), signer)
	l.must(err)
	conn, err := ssh.Dial("tcp", l.SSHAddress(), &ssh.ClientConfig{
		User: "frontend-1", Auth: []ssh.AuthMethod{ssh.PublicKeys(cert)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 10 * time.Second,
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	session, err := conn.NewSession()
	if err != nil {
		return err
	}
	defer session.Close()
	return session.Run("true")
}

// disabledAtOnce disables a person who is signed in in a browser and twice on command
// lines, with a shell open.
func (c *company) disabledAtOnce(t *testing.T, ctx context.Context, desk, cell *laptop) {
	if err := desk.sshIn(); err != nil {
		t.Errorf("ssh with the certificate: %v", err)
	}
	shell := desk.startShell()
	credentials := desk.mustRun("sallyport", "credentials")

	began := time.Now()
	admin := exec.Command(filepath.Join(c.bin, "sallyport"), "user", "disable", "--yes", "alice")
	admin.Env = c.Env(c.admin)
	if out, err := admin.CombinedOutput(); err != nil {
		t.Fatalf("disabling: %v: %s", err, out)
	}
	select {
	case <-shell.done:
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the shell ended after %v, want 5s at most", took)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("the shell goes on: %s", shell)
	}
	wantGone := func(when string) {
		t.Helper()
		for name, use := range map[string]func() error{
			"credentials of a profile": func() error { _, err := desk.aws("sallyport", "sts", "get-caller-identity"); return err },
			"a role's credentials": func() error {
				_, err := desk.aws("sallyport-FrontEndSSHAccess", "sts", "get-caller-identity")
				return err
			},
			"credentials in use": func() error { return c.useCredentials(credentials) },
			"a refresh token":    func() error { _, err := cell.run("sallyport", "credentials", "--fresh"); return err },
			"an SSH certificate": desk.sshIn,
			"the cookie": func() error {
				if err := chromedp.Do(ctx, chromedp.Navigate(c.url+"/sign-in"), chromedp.WaitVisible("h1")); err != nil {
					return nil
				}
				if !strings.Contains(pageText(ctx, t), "How do you want to sign in?") {
					return nil
				}
				return errors.New("not signed in")
			},
		} {
			if use() == nil {
				t.Errorf("%s: %s still works", when, name)
			}
		}
	}
	wantGone("disabled")
	do := func(steps ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		c.must(chromedp.Do(ctx, steps...))
	}
	// The provider still knows them and lets them through; we do not.
	do(chromedp.Click(`a[href^="/sign-in/with/corp"]`), chromedp.WaitVisible("#problem"))
	if text := pageText(ctx, t); !strings.Contains(text, "the person is disabled") {
		t.Errorf("signing in again: got %q", text)
	}

	enable := exec.Command(filepath.Join(c.bin, "sallyport"), "user", "enable", "alice")
	enable.Env = c.Env(c.admin)
	if out, err := enable.CombinedOutput(); err != nil {
		t.Fatalf("enabling: %v: %s", err, out)
	}
	wantGone("enabled again")
}

// useCredentials calls with credentials that were given out before.
func (c *company) useCredentials(text string) error {
	var k client.ProcessCredentials
	c.must(json.Unmarshal([]byte(text), &k))
	cmd := exec.Command(needs.Program(c.t, "aws"), "--endpoint-url", c.url, "sts", "get-caller-identity")
	cmd.Env = append(c.Env(sallyporttest.Key{ID: k.AccessKeyID, Secret: k.SecretAccessKey}), "AWS_SESSION_TOKEN="+k.SessionToken)
	return cmd.Run()
}
