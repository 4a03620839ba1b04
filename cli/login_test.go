package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/client"
	"sallyport.dev/internal/readalong"
)

// signInServer is a server at which one signs in, as far as the command line can tell.
type signInServer struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	secret   string // hash of the good one
	spent    []string
	asked    int // refreshes that counted
	pending  int // how often a device code is still to be confirmed
	lose     int // answers to lose
	ended    bool
	revoked  []string
	region   string
	lifetime time.Duration
	meta     map[string]string // in the place of what it says of itself
	device   map[string]any    // likewise
	denied   bool              // by the person
}

func newSignInServer(t *testing.T) *signInServer {
	s := &signInServer{t: t, region: "us-east-1", lifetime: time.Hour}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/oauth-authorization-server", s.metadata)
	mux.HandleFunc("/sign-in/device_authorization", s.newDevice)
	mux.HandleFunc("/sign-in/token", s.token)
	mux.HandleFunc("/sign-in/revoke", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.revoked = append(s.revoked, r.FormValue("token"))
		s.say(w, 200, struct{}{})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Amz-Target") == "Sallyport.ListAssumableRoles" {
			s.say(w, 200, map[string]any{"Roles": []any{
				map[string]string{"RoleName": "deploy", "RoleArn": "arn:aws:iam::111111111111:role/deploy"},
				map[string]string{"RoleName": "x\n[default]", "RoleArn": "arn:aws:iam::111111111111:role/x"},
				map[string]string{"RoleName": "y", "RoleArn": "arn:aws:iam::111111111111:role/y\ncredential_process = evil"},
			}})
			return
		}
		refuse(w, "AccessDeniedException", "no")
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *signInServer) say(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.t.Error(err)
	}
}

func (s *signInServer) metadata(w http.ResponseWriter, _ *http.Request) {
	if s.meta != nil {
		s.say(w, 200, s.meta)
		return
	}
	s.say(w, 200, map[string]string{"issuer": s.URL, "authorization_endpoint": s.URL + "/sign-in/authorize"})
}

func (s *signInServer) newDevice(w http.ResponseWriter, _ *http.Request) {
	if s.device != nil {
		s.say(w, 200, s.device)
		return
	}
	s.say(w, 200, map[string]any{
		"device_code": "d", "user_code": "BCDF-GHJK", "verification_uri": s.URL + "/sign-in/device",
		"verification_uri_complete": s.URL + "/sign-in/device?user_code=BCDF-GHJK", "expires_in": 600, "interval": 1,
	})
}

func (s *signInServer) token(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := r.FormValue("next")
	switch r.FormValue("grant_type") {
	case client.GrantDevice:
		if s.denied {
			s.say(w, 400, map[string]string{"error": "access_denied"})
			return
		}
		if s.pending > 0 {
			s.pending--
			s.say(w, 400, map[string]string{"error": "authorization_pending"})
			return
		}
	case client.GrantRefresh:
		_, secret, _ := strings.Cut(r.FormValue("refresh_token"), ".")
		have := client.HashSecret(secret)
		if again := have != s.secret && next == s.secret && len(s.spent) > 0 && s.spent[len(s.spent)-1] == have; s.ended || have != s.secret && !again {
			s.ended = true
			s.say(w, 400, map[string]string{"error": "invalid_grant", "error_description": "it was used before\x1b[2J"})
			return
		}
		if have == s.secret {
			s.spent = append(s.spent, have)
			s.asked++
		}
	}
	s.secret = next
	if s.lose > 0 {
		s.lose--
		panic(http.ErrAbortHandler)
	}
	s.say(w, 200, client.SignedIn{
		SignIn: "si-1", User: "alice", ARN: "arn:aws:iam::111111111111:user/alice", Method: "oidc corp", Account: "111111111111", Region: s.region,
		Expires:     time.Now().Add(8 * time.Hour),
		Credentials: client.ProcessCredentials{AccessKeyID: fmt.Sprint("ASIA", s.asked), SecretAccessKey: "k", SessionToken: "t", Expiration: time.Now().Add(s.lifetime)},
	})
}

// Who says no in the browser reads that it was they.
func TestLoginDenied(t *testing.T) {
	s := newSignInServer(t)
	s.denied = true
	status, _, errOut := newPerson(t).run("login", "--device", s.URL)
	if status != statusRefused || !strings.Contains(errOut, "nobody was signed in: it was refused in the browser") {
		t.Errorf("got status %d: %s", status, errOut)
	}
}

// person runs commands in a home of their own.
type person struct {
	t    *testing.T
	home string
}

func newPerson(t *testing.T) *person {
	p := &person{t, t.TempDir()}
	for k, v := range map[string]string{
		"HOME": p.home, "XDG_CONFIG_HOME": "", "SALLYPORT_CONFIG": "", "AWS_CONFIG_FILE": filepath.Join(p.home, "aws-config"),
		"AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_PROFILE": "", "AWS_DEFAULT_PROFILE": "", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
		"AWS_SESSION_TOKEN": "", "AWS_REGION": "", "AWS_ENDPOINT_URL": "", "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1",
		"BROWSER": "", "DISPLAY": "", "WAYLAND_DISPLAY": "",
	} {
		t.Setenv(k, v)
	}
	return p
}

func (p *person) run(args ...string) (status int, stdout, stderr string) {
	prog, _ := newTestProgram(p.t)
	prog.flags.endpoint, prog.flags.region, prog.getenv = "", "", os.Getenv
	var out, errOut bytes.Buffer
	prog.stdout, prog.stderr = &out, &errOut
	status = prog.run(p.t.Context(), args)
	return status, out.String(), errOut.String()
}

func (p *person) mustRun(args ...string) string {
	p.t.Helper()
	status, out, errOut := p.run(args...)
	if status != 0 {
		p.t.Fatalf("%v: got status %d: %s", args, status, errOut)
	}
	return out
}

// file is the only sign-in's file.
func (p *person) file() string {
	p.t.Helper()
	files, err := filepath.Glob(filepath.Join(p.home, ".config", "sallyport", "sign-ins", "*.json"))
	if err != nil || len(files) != 1 {
		p.t.Fatalf("got files %v, %v", files, err)
	}
	return files[0]
}

func accessKey(t *testing.T, out string) string {
	t.Helper()
	var c client.ProcessCredentials
	if err := json.Unmarshal([]byte(out), &c); err != nil || c.Version != 1 {
		t.Fatalf("got %q (%v), want credentials of version 1", out, err)
	}
	return c.AccessKeyID
}

func TestLoginByDevice(t *testing.T) {
	s, p := newSignInServer(t), newPerson(t)
	s.pending = 1
	status, out, errOut := p.run("login", "--device", s.URL)
	if status != 0 || !strings.HasPrefix(out, "signed in as alice at "+s.URL+" until ") {
		t.Fatalf("got status %d, %q, %q", status, out, errOut)
	}
	if !strings.Contains(errOut, "\n    BCDF-GHJK\n") || !strings.Contains(errOut, s.URL+"/sign-in/device\n") && !strings.Contains(errOut, s.URL+"/sign-in/device in a browser") {
		t.Errorf("standard error: got %q", errOut)
	}
	info, err := os.Stat(p.file())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: got %v, %v", info.Mode(), err)
	}
	if got, want := accessKey(t, p.mustRun("credentials")), "ASIA0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if out := p.mustRun("credentials", "--env"); !strings.Contains(out, "export AWS_ACCESS_KEY_ID=ASIA0\n") || !strings.Contains(out, "export AWS_ENDPOINT_URL="+s.URL+"\n") {
		t.Errorf("got %q", out)
	}

	// Signing in once more ends the sign-in of before.
	p.mustRun("login", "--device")
	if len(s.revoked) != 1 || !strings.HasPrefix(s.revoked[0], "si-1.") {
		t.Errorf("revoked: got %q", s.revoked)
	}
	p.mustRun("logout")
	if len(s.revoked) != 2 {
		t.Errorf("revoked: got %q", s.revoked)
	}
	if status, _, errOut := p.run("credentials"); status != 1 || !strings.Contains(errOut, "hint: sallyport login") {
		t.Errorf("signed out: got status %d, %q", status, errOut)
	}
}

// A token counts once, however many programs want credentials at the same moment, and an
// answer that is lost loses nothing.
func TestCredentialsRefresh(t *testing.T) {
	s, p := newSignInServer(t), newPerson(t)
	s.lifetime = time.Minute
	p.mustRun("login", "--device", s.URL, "--no-ssh")
	s.lifetime = time.Hour
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if status, out, errOut := p.run("credentials"); status != 0 {
				t.Errorf("got status %d, %q", status, errOut)
			} else if got := accessKey(t, out); got != "ASIA1" {
				t.Errorf("got %s, want ASIA1", got)
			}
		})
	}
	wg.Wait()
	s.lose = 2
	for range 2 {
		if status, _, errOut := p.run("credentials", "--fresh"); status != 1 || !strings.Contains(errOut, "asking "+s.URL) {
			t.Errorf("an answer that is lost: got status %d, %q", status, errOut)
		}
	}
	if got, want := accessKey(t, p.mustRun("credentials", "--fresh")), "ASIA2"; got != want {
		t.Errorf("after lost answers: got %s, want %s", got, want)
	}

	// A copy of the file that was used elsewhere ends it.
	before, err := os.ReadFile(p.file())
	if err != nil {
		t.Fatal(err)
	}
	p.mustRun("credentials", "--fresh")
	if err := os.WriteFile(p.file(), before, 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, errOut := p.run("credentials", "--fresh")
	if status != 1 || !strings.Contains(errOut, "the sign-in of alice has ended") || strings.Contains(errOut, "\x1b") {
		t.Errorf("a spent token: got status %d, %q", status, errOut)
	}
}

func TestSignInFileOfOthers(t *testing.T) {
	s, p := newSignInServer(t), newPerson(t)
	p.mustRun("login", "--device", s.URL, "--no-ssh")
	if err := os.Chmod(p.file(), 0o644); err != nil {
		t.Fatal(err)
	}
	if status, _, errOut := p.run("credentials"); status != 1 || !strings.Contains(errOut, "chmod 600") {
		t.Errorf("a file that others read: got status %d, %q", status, errOut)
	}
	if err := os.WriteFile(p.file(), []byte(`{"secret": "SECRET", "endpoint": 1`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(p.file(), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, errOut := p.run("credentials"); status != 1 || strings.Contains(errOut, "SECRET") {
		t.Errorf("a broken file: got status %d, %q", status, errOut)
	}
}

// What a server says ends up on terminals, in browsers and in files that others obey.
func TestHostileSignInServer(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*signInServer)
		want   string
	}{
		"page without encryption": {func(s *signInServer) {
			s.meta = map[string]string{"issuer": "http://evil.example.com", "authorization_endpoint": "http://evil.example.com/"}
		}, "not be encrypted"},
		"page that is a program": {func(s *signInServer) {
			s.meta = map[string]string{"issuer": s.URL, "authorization_endpoint": "file:///etc/passwd"}
		}, "no URL"},
		"no sign-in": {func(s *signInServer) { s.meta = map[string]string{} }, "no URL"},
		"code page without encryption": {func(s *signInServer) {
			s.device = map[string]any{"device_code": "d", "user_code": "x", "verification_uri": "http://evil.example.com/", "verification_uri_complete": s.URL}
		}, "not be encrypted"},
		"region with a line end": {func(s *signInServer) { s.region = "x\ncredential_process = evil" }, "holds no region"},
	} {
		t.Run(name, func(t *testing.T) {
			s, p := newSignInServer(t), newPerson(t)
			c.change(s)
			status, out, errOut := p.run("login", "--device", "--write-profiles", "--no-ssh", s.URL)
			if status != 1 || !strings.Contains(errOut, c.want) {
				t.Errorf("got status %d, %q, %q; want %q", status, out, errOut, c.want)
			}
			if text, err := os.ReadFile(filepath.Join(p.home, "aws-config")); err == nil {
				t.Errorf("profiles were written: %s", text)
			}
		})
	}
	t.Run("codes with escapes", func(t *testing.T) {
		s, p := newSignInServer(t), newPerson(t)
		s.device = map[string]any{"device_code": "d", "user_code": "x\x1b]0;y\x07\n\nz", "verification_uri": s.URL, "verification_uri_complete": s.URL, "interval": 1}
		if _, _, errOut := p.run("login", "--device", s.URL, "--no-ssh"); strings.ContainsAny(errOut, "\x1b\x07") {
			t.Errorf("got %q", errOut)
		}
	})
}

func TestWriteProfiles(t *testing.T) {
	s, p := newSignInServer(t), newPerson(t)
	path := filepath.Join(p.home, "aws-config")
	const mine = "[default]\nregion = eu-west-1\n# a word\n[profile sallyport-deploy] ; mine\nregion=eu-west-1"
	if err := os.WriteFile(path, []byte(mine), 0o640); err != nil {
		t.Fatal(err)
	}
	status, out, errOut := p.run("login", "--device", "--write-profiles", "--no-ssh", s.URL)
	if status != 0 || !strings.Contains(out, "profile      sallyport\n") || strings.Contains(out, "deploy") || !strings.Contains(errOut, "profile sallyport-deploy is there already") {
		t.Fatalf("got status %d, %q, %q", status, out, errOut)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), mine+"\n\n# >>> sallyport "+s.URL+" ") || strings.Contains(string(text), "evil") {
		t.Errorf("got %s", text)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode: got %v, %v", info.Mode(), err)
	}
	process := regexp.MustCompile(`credential_process = (\S+) credentials --sign-in (\S+)`).FindStringSubmatch(string(text))
	if process == nil || process[2] != p.file() {
		t.Errorf("got %s", text)
	}
	// Once more changes nothing; with another prefix the role's profile fits in.
	p.mustRun("login", "--device", "--write-profiles", "--no-ssh")
	again, err := os.ReadFile(path)
	if err != nil || string(again) != string(text) {
		t.Errorf("the second time (%v): got %s", err, cmp.Diff(string(text), string(again)))
	}
	p.mustRun("login", "--device", "--write-profiles", "--no-ssh", "--prefix", "work")
	if again, err = os.ReadFile(path); err != nil || !strings.Contains(string(again), "[profile work-deploy]") || strings.Contains(string(again), "[profile sallyport]") {
		t.Errorf("another prefix (%v): got %s", err, again)
	}
}

func TestEditProfiles(t *testing.T) {
	wanted := []profileText{{"a", []string{"region = x"}}, {"a-r", []string{"role_arn = y"}}}
	const url = "https://s"
	block := beginMark(url) + "\n[profile a]\nregion = x\n\n[profile a-r]\nrole_arn = y\n" + endMark(url) + "\n"
	other := beginMark("https://s2") + "\n[profile b]\n" + endMark("https://s2") + "\n"
	for name, c := range map[string]struct{ text, want, foreign string }{
		"empty":                   {"", block, ""},
		"another's after it":      {"x\n\n" + block + other, "x\n\n" + other + "\n" + block, ""},
		"twice":                   {block + "y\n" + block, "y\n\n" + block, ""},
		"its end is gone":         {beginMark(url) + "\nkept\n", beginMark(url) + "\nkept\n\n" + block, ""},
		"in the middle of a line": {"x " + block, "x " + block + "\n" + block, "a a-r"},
		"the person's name taken": {"[profile a]\n", "[profile a]\n", "a"},
		"in quotes":               {"[profile \"a\"]\n", "[profile \"a\"]\n", "a"},
		"a role's name taken":     {"[ profile  a-r ]\n", "[ profile  a-r ]\n\n" + beginMark(url) + "\n[profile a]\nregion = x\n" + endMark(url) + "\n", "a-r"},
	} {
		got, _, foreign := editProfiles(c.text, url, wanted)
		if name == "in the middle of a line" {
			c.want = c.text // the profiles there are somebody's
		}
		if diff := cmp.Diff(c.want, got); diff != "" || strings.Join(foreign, " ") != c.foreign {
			t.Errorf("%s: foreign %v (-want +got)\n%s", name, foreign, diff)
		}
	}
}

// Other pages may call the port on which the answer is awaited.
func TestCallback(t *testing.T) {
	answers := make(chan url.Values, 1)
	h := callbackHandler("127.0.0.1:7", "state", answers)
	for _, c := range []struct {
		method, host, target string
		status               int
	}{
		{"GET", "127.0.0.1:7", "/sallyport?state=x&code=evil", 404},
		{"GET", "127.0.0.1:7", "/sallyport?code=evil", 404},
		{"POST", "127.0.0.1:7", "/sallyport?state=state&code=evil", 404},
		{"GET", "evil.example.com", "/sallyport?state=state&code=evil", 404},
		{"GET", "127.0.0.1:7", "/?state=state&code=evil", 404},
		{"GET", "127.0.0.1:7", "/sallyport?state=state&code=good", 200},
		{"GET", "127.0.0.1:7", "/sallyport?state=state&code=late", 200},
	} {
		r := httptest.NewRequest(c.method, c.target, nil)
		r.Host = c.host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%+v: got %d", c, w.Code)
		}
	}
	if got := (<-answers).Get("code"); got != "good" {
		t.Errorf("got the code %q", got)
	}
}

// The answer must come from the server that was asked.
func TestLoginMixUp(t *testing.T) {
	s, p := newSignInServer(t), newPerson(t)
	prog, _ := newTestProgram(t)
	prog.flags.endpoint, prog.flags.region, prog.getenv = "", "", os.Getenv
	opened := &readalong.Text{}
	prog.stderr = opened
	status := make(chan int, 1)
	go func() { status <- prog.run(t.Context(), []string{"login", "--no-browser", s.URL}) }()
	address := regexp.MustCompile(`http://\S+/sign-in/authorize\S+\s`)
	if err := opened.Await(address, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	page, err := url.Parse(strings.TrimSpace(address.FindString(opened.String())))
	if err != nil {
		t.Fatal(err)
	}
	q := page.Query()
	answer, err := http.Get(q.Get("redirect_uri") + "?" + url.Values{"state": {q.Get("state")}, "code": {"c"}, "iss": {"https://evil.example.com"}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if got := <-status; got != 1 || !strings.Contains(opened.String(), "another server") {
		t.Errorf("got status %d, %q", got, opened.String())
	}
	if _, err := os.Stat(filepath.Join(p.home, ".config", "sallyport", "sign-ins")); err == nil {
		files, _ := filepath.Glob(filepath.Join(p.home, ".config", "sallyport", "sign-ins", "*.json"))
		if len(files) > 0 {
			t.Errorf("signed in: %v", files)
		}
	}
}

// Profiles and keys that somebody gives go before a sign-in.
func TestSignInOrder(t *testing.T) {
	s, p := newSignInServer(t), newPerson(t)
	p.mustRun("login", "--device", s.URL, "--no-ssh")
	prog, _ := newTestProgram(t)
	prog.getenv = os.Getenv
	for name, c := range map[string]struct {
		options  client.Options
		variable string
		want     bool
	}{
		"nothing":            {client.Options{}, "", true},
		"the endpoint":       {client.Options{Endpoint: s.URL}, "", true},
		"another endpoint":   {client.Options{Endpoint: "https://other.example.com"}, "", false},
		"a profile":          {client.Options{Profile: "x"}, "", false},
		"a profile variable": {client.Options{}, "AWS_PROFILE", false},
		"keys":               {client.Options{}, "AWS_ACCESS_KEY_ID", false},
	} {
		t.Run(name, func(t *testing.T) {
			if c.variable != "" {
				t.Setenv(c.variable, "x")
			}
			o, got := prog.bySignIn(t.Context(), c.options)
			if got != c.want || got && (o.Endpoint != s.URL || o.Region != "us-east-1" || o.Credentials == nil) {
				t.Errorf("got %v %+v", got, o)
			}
		})
	}
	if _, err := readSignIn(filepath.Join(t.TempDir(), "none")); !errors.Is(err, errNotSignedIn) {
		t.Errorf("no file: got %v", err)
	}
}
