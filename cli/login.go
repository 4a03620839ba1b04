package cli

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

type loginFlags struct {
	device, noBrowser, factor bool
	writeProfiles             bool
	prefix                    string
	noSSH                     bool
}

func (p *program) newLoginCommand() *cobra.Command {
	var f loginFlags
	cmd := &cobra.Command{
		Use:   "login [URL]",
		Short: "Sign in at a server, for the aws CLI and ssh, too",
		Long: `Sign in at a server, in the browser: there you say who you are and let this program in.
Where there is no browser, --device shows a code to enter in one somewhere else.

The sign-in is kept in ~/.config/sallyport/sign-ins and lasts as long as the server says.
The commands of sallyport use it where no profile and no keys are given; "sallyport
credentials" gives it to other programs, and --write-profiles makes profiles of the AWS
configuration that ask it: one for yourself and one for each role that you may assume.
Where the server has an SSH front door, a certificate is there afterwards, too.`,
		Example: `  sallyport login https://sallyport.example.com
  sallyport login --device
  sallyport login --write-profiles && aws --profile sallyport sts get-caller-identity`,
		Args: between(0, 1, "want at most the URL of a server"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				p.flags.endpoint = args[0]
			}
			return p.login(cmd.Context(), f)
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.device, "device", false, "show a code to enter in a browser on any computer")
	fs.BoolVar(&f.noBrowser, "no-browser", false, "only print the address to open on this computer")
	fs.BoolVar(&f.factor, "mfa", false, "give a second factor anew, even if you are signed in")
	fs.BoolVar(&f.writeProfiles, "write-profiles", false, "write profiles of the AWS configuration")
	fs.StringVar(&f.prefix, "prefix", "sallyport", "what the profiles' names begin with")
	fs.BoolVar(&f.noSSH, "no-ssh", false, "get no SSH certificate")
	return cmd
}

// loginTimeout is how long a person may take.
const loginTimeout = 10 * time.Minute

func (p *program) login(ctx context.Context, f loginFlags) error {
	if f.device && f.factor {
		return usagef("--mfa needs the browser of this computer, which --device does without")
	}
	if !profilePrefix.MatchString(f.prefix) {
		return usagef("--prefix %q: want letters, digits, dots, dashes and underscores", f.prefix)
	}
	ctx, stop := untilInterrupted(ctx)
	defer stop()
	o, err := p.loginOptions(ctx)
	if err != nil {
		return err
	}
	server, err := client.NewSignInServer(ctx, o)
	if err != nil {
		return err
	}
	file, err := p.signInFile(o.Endpoint)
	if err != nil {
		return err
	}
	in := &signedIn{Endpoint: o.Endpoint, CABundle: o.CABundle, Next: newSecret()}
	waiting, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	how := p.loginByBrowser
	if f.device {
		how = p.loginByDevice
	}
	answer, err := how(waiting, server, client.HashSecret(in.Next), f)
	if err != nil {
		if cause := context.Cause(waiting); cause != nil {
			return interrupted(cause)
		}
		return err
	}
	if err := in.adopt(answer); err != nil {
		return err
	}
	if err := p.keep(ctx, file, in); err != nil {
		return err
	}
	return p.loggedIn(ctx, f, file, in, answer)
}

// loginOptions find the server: named, configured, or the one signed in at before.
func (p *program) loginOptions(ctx context.Context) (client.Options, error) {
	o := client.Options{
		Profile: p.flags.profile, Endpoint: p.flags.endpoint, UserAgent: p.userAgent(), Logger: p.logger(), CABundle: p.flags.bundle,
	}
	o.Endpoint = strings.TrimRight(client.EndpointOf(ctx, o), "/")
	if o.Endpoint == "" {
		if before, err := readSignIn(p.onlySignIn()); err == nil {
			o.Endpoint, o.CABundle = before.Endpoint, cmp.Or(o.CABundle, before.CABundle)
		}
	}
	if o.Endpoint == "" {
		return o, usagef("which server? give its URL, or set AWS_ENDPOINT_URL")
	}
	if o.CABundle != "" {
		abs, err := filepath.Abs(o.CABundle)
		if err != nil {
			return o, err
		}
		o.CABundle = abs
	}
	return o, nil
}

// keep writes a new sign-in, and ends the one that was there before.
func (p *program) keep(ctx context.Context, file string, in *signedIn) error {
	unlock, err := lockSignIn(file)
	if err != nil {
		return err
	}
	defer unlock()
	before, err := readSignIn(file)
	if err == nil {
		p.revoke(ctx, before)
	}
	return in.write(file)
}

// revoke ends a sign-in at its server. One that is over, or at a server that is gone, is
// not worth more than a word.
func (p *program) revoke(ctx context.Context, in *signedIn) bool {
	server, err := client.OldSignInServer(p.signInOptions(in))
	if err == nil {
		for _, secret := range []string{in.Next, in.Secret} {
			if secret != "" && err == nil {
				err = server.Revoke(ctx, in.SignIn+"."+secret)
			}
		}
	}
	if err != nil {
		p.say("the sign-in of before at %s was not ended: %s", client.CleanLine(in.Endpoint), errorText(err))
	}
	return err == nil
}

// loggedInOutput is what the command tells.
type loggedInOutput struct {
	User     string    `json:"user"`
	ARN      string    `json:"arn"`
	Endpoint string    `json:"endpoint"`
	SignIn   string    `json:"signIn"`
	Factor   string    `json:"factor,omitempty"`
	Expires  time.Time `json:"expires"`
	Profiles []string  `json:"profiles,omitempty"`
	SSH      string    `json:"sshCertificate,omitempty"`
	// SSO are the sso-sessions and start URLs that a token was kept for.
	SSO []string `json:"sso,omitempty"`
}

func (p *program) loggedIn(ctx context.Context, f loginFlags, file string, in *signedIn, answer *client.SignedIn) error {
	out := loggedInOutput{User: in.User, ARN: answer.ARN, Endpoint: in.Endpoint, SignIn: in.SignIn, Factor: answer.Factor, Expires: in.Expires}
	api, err := p.connectBySignIn(ctx, file, in)
	if err != nil {
		return err
	}
	if f.writeProfiles {
		if out.Profiles, err = p.writeProfiles(ctx, api, f.prefix, file, in); err != nil {
			return err
		}
	}
	if !f.noSSH {
		out.SSH = p.loginSSH(ctx, api)
	}
	if out.SSO, err = p.cacheSSO(ctx, api, in); err != nil {
		p.say("no token for profiles with sso_start_url: %s", errorText(err)) // the sign-in stands
	}
	if p.flags.json {
		return p.writeJSON(out)
	}
	fmt.Fprintf(p.stdout, "signed in as %s at %s until %s\n", client.CleanLine(out.User), client.CleanLine(out.Endpoint), out.Expires.Local().Format(time.DateTime))
	for _, name := range out.Profiles {
		fmt.Fprintf(p.stdout, "profile      %s\n", client.CleanLine(name))
	}
	if out.SSH != "" {
		fmt.Fprintf(p.stdout, "certificate  %s\n", client.CleanLine(out.SSH))
	}
	for _, name := range out.SSO {
		fmt.Fprintf(p.stdout, "sso token    %s\n", client.CleanLine(name))
	}
	return nil
}

func (p *program) connectBySignIn(ctx context.Context, file string, in *signedIn) (*client.API, error) {
	o := p.signInOptions(in)
	o.Region, o.Credentials = in.Region, signInProvider{p, file}
	api, err := client.Connect(ctx, o)
	if err == nil {
		p.connected, p.signIn = api, in.SignIn
	}
	return api, err
}

// loginSSH gets a certificate where the server has an SSH front door. That it cannot is
// no reason not to be signed in.
func (p *program) loginSSH(ctx context.Context, api *client.API) string {
	authorities, err := api.GetSSHAuthorities(ctx)
	if err != nil || authorities.Gateway == "" {
		return ""
	}
	issued, err := p.certify(ctx, sshCertFlags{force: true})
	if err != nil {
		p.say("no SSH certificate: %s", errorText(err))
		return ""
	}
	return issued.Certificate
}

func computerName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// codeDenied is a server's word for a person's no, of which errDenied tells.
const codeDenied = "access_denied"

var errDenied = errors.New("nobody was signed in: it was refused in the browser")

// loginByDevice shows a code and waits until somebody has confirmed it in a browser.
func (p *program) loginByDevice(ctx context.Context, server *client.SignInServer, next string, _ loginFlags) (*client.SignedIn, error) {
	verifier := newSecret()
	code, err := server.BeginDevice(ctx, computerName(), client.HashSecret(verifier))
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(p.stderr, "Open %s in a browser on any computer and enter the code\n\n    %s\n\nor open %s and compare the code.\n",
		client.CleanLine(code.URL), client.CleanLine(code.UserCode), client.CleanLine(code.CompleteURL))
	every := time.Duration(min(max(code.Interval, 1), 60)) * time.Second
	form := url.Values{"device_code": {code.DeviceCode}, "code_verifier": {verifier}}
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(every):
		}
		answer, err := server.Token(ctx, client.GrantDevice, next, form)
		var refused *client.SignInError
		var network net.Error
		switch {
		case errors.As(err, &refused) && refused.Code == "authorization_pending":
		case errors.As(err, &refused) && refused.Code == codeDenied:
			return nil, errDenied
		case errors.As(err, &refused) && refused.Code == "slow_down":
			every += 5 * time.Second // RFC 8628, 3.5
		case errors.As(err, &network) && ctx.Err() == nil:
			every = min(2*every, time.Minute)
		default:
			return answer, err
		}
	}
}

// callbackPath is where the browser brings the answer to (RFC 8252, 7.3).
const callbackPath = "/sallyport"

// loginByBrowser opens the server's page and waits for the answer on a port of this
// machine's own.
func (p *program) loginByBrowser(ctx context.Context, server *client.SignInServer, next string, f loginFlags) (*client.SignedIn, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("waiting for the browser: %w", err)
	}
	verifier, state := newSecret(), newSecret()
	redirect := "http://" + ln.Addr().String() + callbackPath
	answers := make(chan url.Values, 1)
	callback := &http.Server{
		Handler: callbackHandler(ln.Addr().String(), state, answers), ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 32 << 10,
	}
	served := make(chan struct{})
	go func() { // ends when the server is shut down
		defer close(served)
		_ = callback.Serve(ln)
	}()
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if callback.Shutdown(stop) != nil {
			callback.Close()
		}
		<-served
	}()
	page := server.AuthorizeURL(redirect, state, client.HashSecret(verifier), computerName(), f.factor)
	p.openPage(page, f.noBrowser)
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case q := <-answers:
		if q.Get("iss") != server.Issuer {
			return nil, errors.New("the answer came from another server than the one that was asked")
		}
		if problem := q.Get("error"); problem == codeDenied {
			return nil, errDenied
		} else if problem != "" {
			return nil, fmt.Errorf("the server did not let this program in: %s", problem)
		}
		return server.Token(ctx, client.GrantCode, next, url.Values{"code": {q.Get("code")}, "redirect_uri": {redirect}, "code_verifier": {verifier}})
	}
}

// callbackHandler takes the first answer to what was asked. Other pages can call this
// port, too: they do not know the state.
func callbackHandler(host, state string, answers chan<- url.Values) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		right := subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) == 1
		if r.Method != http.MethodGet || r.URL.Path != callbackPath || r.Host != host || !right {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		text := "You are signed in on the command line. You can close this page.\n"
		if q.Get("error") != "" {
			text = "The command line was not let in. You can close this page.\n"
		}
		_, _ = io.WriteString(w, text)
		select {
		case answers <- q:
		default: // there was one before
		}
	})
}

// openPage opens a page in the person's browser, and says where it is in any case.
func (p *program) openPage(page string, printOnly bool) {
	if !printOnly {
		if program := browserCommand(p.getenv, page); program != nil && program.Start() == nil {
			fmt.Fprintf(p.stderr, "Your browser is to open. If it does not, open this address on this computer:\n\n  %s\n\n", client.CleanLine(page))
			go func() { _ = program.Wait() }() // it ends when the browser has the page, or with it; nothing waits for that
			return
		}
	}
	fmt.Fprintf(p.stderr, "Open this address in a browser on this computer:\n\n  %s\n\n", client.CleanLine(page))
	if !printOnly {
		p.hint("without a browser here: sallyport login --device")
	}
}

// browserCommand opens a page: BROWSER, or what the system has. No shell reads the
// address.
func browserCommand(getenv func(string) string, page string) *exec.Cmd {
	if b := getenv("BROWSER"); b != "" && !strings.ContainsAny(b, ":%") {
		return exec.Command(b, page)
	}
	switch runtime.GOOS {
	case "darwin":
		return exec.Command("open", page)
	case "windows":
		return exec.Command("rundll32", "url.dll,FileProtocolHandler", page)
	}
	if getenv("DISPLAY") == "" && getenv("WAYLAND_DISPLAY") == "" {
		return nil
	}
	return exec.Command("xdg-open", page)
}
