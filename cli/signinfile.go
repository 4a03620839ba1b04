package cli

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"sallyport.dev/client"
)

// signedIn is what is kept of a sign-in at a server, in a file of its own with mode 0600:
// SETTINGS/sign-ins/HOST.json. Who reads it is signed in.
type signedIn struct {
	Endpoint string    `json:"endpoint"`
	CABundle string    `json:"caBundle,omitempty"`
	User     string    `json:"user"`
	SignIn   string    `json:"signIn"`
	Region   string    `json:"region"`
	Account  string    `json:"account"`
	Expires  time.Time `json:"expires"`
	// Secret is shown once, and Next from then on. Next is written before it is sent, so
	// that an answer that is lost loses nothing.
	Secret      string                    `json:"secret"`
	Next        string                    `json:"next,omitempty"`
	Credentials client.ProcessCredentials `json:"credentials"`
}

// maxSignInFile bounds such a file, in bytes.
const maxSignInFile = 256 << 10

// errNotSignedIn is that there is no sign-in, or none any more.
var errNotSignedIn = errors.New("not signed in")

var notInHosts = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// signInDir is the folder of sign-ins; it is made if need be.
func (p *program) signInDir() (string, error) {
	settings, err := p.settingsFile()
	if err != nil {
		return "", err
	}
	dir, err := filepath.Abs(filepath.Join(filepath.Dir(settings), "sign-ins"))
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("making the folder of sign-ins: %w", err)
	}
	return dir, privateFolder(dir)
}

// signInFile is the file of the sign-in at an endpoint.
func (p *program) signInFile(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("the endpoint %q is not a URL", endpoint)
	}
	dir, err := p.signInDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, strings.ToLower(u.Scheme+"-"+notInHosts.ReplaceAllString(u.Host, "-"))+".json"), nil
}

// onlySignIn is the file of the only sign-in that there is; empty for none, or several.
func (p *program) onlySignIn() string {
	dir, err := p.signInDir()
	if err != nil {
		return ""
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) != 1 {
		return ""
	}
	return files[0]
}

func readSignIn(file string) (*signedIn, error) {
	text, err := readSmall(file, maxSignInFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotSignedIn
	}
	if err != nil {
		return nil, fmt.Errorf("reading the sign-in: %w", err)
	}
	if info, err := os.Stat(file); err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("reading the sign-in: %s has mode %04o, so others can reach it: chmod 600 %[1]s", file, info.Mode().Perm())
	}
	s := &signedIn{}
	if err := json.Unmarshal(text, s); err != nil || s.Endpoint == "" || s.SignIn == "" {
		// The decoder's own error may quote what it read, which is secret.
		return nil, fmt.Errorf("reading the sign-in: %s holds none; sign in again", file)
	}
	return s, nil
}

func (s *signedIn) write(file string) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if _, err := replaceFile(file, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing the sign-in: %w", err)
	}
	return nil
}

var (
	plainRegion = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
	plainSignIn = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
	plainUser   = regexp.MustCompile(`^[\w+=,.@-]{1,64}$`)
)

// adopt takes what the server answered with: it goes into files that other programs obey.
// The token that was next is now the token.
func (s *signedIn) adopt(a *client.SignedIn) error {
	if !plainRegion.MatchString(a.Region) || !plainSignIn.MatchString(a.SignIn) || !plainUser.MatchString(a.User) {
		return errors.New("the server's answer holds no region, user or sign-in as there are")
	}
	s.User, s.SignIn, s.Region, s.Account, s.Expires = a.User, a.SignIn, a.Region, a.Account, a.Expires
	s.Secret, s.Next, s.Credentials = s.Next, "", a.Credentials
	return nil
}

func (s *signedIn) token() string { return s.SignIn + "." + s.Secret }

// lockSignIn makes this the only program that uses a sign-in's file: a token counts once.
func lockSignIn(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the sign-in: %w", err)
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking the sign-in: %w", err)
	}
	return func() { f.Close() }, nil
}

func newSecret() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// renewCredentials is how long credentials must still last to be given out again. The aws
// CLI asks for new ones 15 minutes before the end, and takes what it gets.
const renewCredentials = 20 * time.Minute

// credentialsOf returns temporary credentials of a sign-in: those of before, or new ones.
func (p *program) credentialsOf(ctx context.Context, file string, fresh bool) (*signedIn, error) {
	unlock, err := lockSignIn(file)
	if err != nil {
		return nil, err
	}
	defer unlock()
	s, err := readSignIn(file)
	if err != nil {
		return nil, err
	}
	// Near the end of a sign-in credentials last no longer than it does.
	left := time.Until(s.Credentials.Expiration)
	if !fresh && left > 0 && (left > renewCredentials || !s.Credentials.Expiration.Before(s.Expires.Truncate(time.Second))) {
		return s, nil
	}
	return s, p.refresh(ctx, file, s)
}

// refresh exchanges the token of a sign-in for the next one, and for credentials.
func (p *program) refresh(ctx context.Context, file string, s *signedIn) error {
	server, err := client.OldSignInServer(p.signInOptions(s))
	if err != nil {
		return err
	}
	if s.Next == "" {
		s.Next = newSecret()
		if err := s.write(file); err != nil {
			return err
		}
	}
	answer, err := server.Token(ctx, client.GrantRefresh, client.HashSecret(s.Next), url.Values{"refresh_token": {s.token()}})
	var refused *client.SignInError
	if errors.As(err, &refused) && (refused.Code == "invalid_grant" || refused.Code == "expired_token") {
		return fmt.Errorf("%w at %s any more: the sign-in of %s has ended", errNotSignedIn, s.Endpoint, s.User)
	}
	if err != nil {
		return fmt.Errorf("asking %s for credentials: %w", s.Endpoint, err)
	}
	if err := s.adopt(answer); err != nil {
		return err
	}
	return s.write(file)
}

func (p *program) signInOptions(s *signedIn) client.Options {
	o := client.Options{Endpoint: s.Endpoint, CABundle: s.CABundle, UserAgent: p.userAgent(), Logger: p.logger()}
	if p.flags.bundle != "" {
		o.CABundle = p.flags.bundle
	}
	return o
}

// signInProvider gives the SDK the credentials of a sign-in.
type signInProvider struct {
	program *program
	file    string
}

// Retrieve implements aws.CredentialsProvider.
func (s signInProvider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	in, err := s.program.credentialsOf(ctx, s.file, false)
	if err != nil {
		return aws.Credentials{}, err
	}
	c := in.Credentials
	return aws.Credentials{
		AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken,
		Source: "sallyport login", CanExpire: true, Expires: c.Expiration,
	}, nil
}

// bySignIn makes options use a sign-in where nothing else says who one is: no profile, no
// keys in the environment. ok is false where there is none.
func (p *program) bySignIn(ctx context.Context, o client.Options) (client.Options, bool) {
	for _, name := range []string{"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ACCESS_KEY_ID"} {
		if p.getenv(name) != "" {
			return o, false
		}
	}
	if o.Profile != "" {
		return o, false
	}
	file := ""
	if endpoint := client.EndpointOf(ctx, o); endpoint == "" {
		file = p.onlySignIn()
	} else if f, err := p.signInFile(endpoint); err == nil {
		file = f
	}
	if file == "" {
		return o, false
	}
	in, err := readSignIn(file)
	if err != nil {
		return o, false
	}
	o.Credentials, p.signIn = signInProvider{p, file}, in.SignIn
	o.Endpoint = in.Endpoint
	if o.Region == "" && p.getenv("AWS_REGION") == "" {
		o.Region = in.Region
	}
	if o.CABundle == "" {
		o.CABundle = in.CABundle
	}
	return o, true
}
