package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
	"time"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/spf13/cobra"
	"github.com/zclconf/go-cty/cty"

	_ "embed"

	"sallyport.dev/identity"
	"sallyport.dev/internal/ca"
	"sallyport.dev/internal/seal"
	"sallyport.dev/member"
)

//go:embed sallyportd.hcl.tmpl
var configTemplate string

type initOptions struct {
	config  string
	dataDir string
	account string
	region  string
	listen  string
	names   []string
	store   string
	admin   string
}

func newInit() *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Prepare a server: keys, a CA, an administrator and a commented configuration",
		Long: `Prepare a server: a master key, a certificate authority, an administrator with an
access key, and a commented configuration file. Nothing that exists is replaced.
The administrator's key is written to DATA_DIR/admin-credentials (mode 0600) in the
form of an AWS credentials file; move it to where it belongs.`,
		Example: `  sallyportd init --name sallyport.example.com
  sallyportd init --config ./sallyportd.hcl --data-dir ./state --listen 127.0.0.1:8443 --name localhost`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runInit(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", "/etc/sallyport/sallyportd.hcl", "configuration file to write")
	f.StringVar(&o.dataDir, "data-dir", "/var/lib/sallyport", "folder for database, keys and recordings")
	f.StringVar(&o.account, "account", "", "AWS account id that resource names carry, twelve digits; a random one by default")
	f.StringVar(&o.region, "region", "us-east-1", "AWS region that resource names carry")
	f.StringVar(&o.listen, "listen", "0.0.0.0:8443", "address of the TLS listener")
	f.StringSliceVar(&o.names, "name", nil, "host name or address that clients and nodes use; may be repeated")
	f.StringVar(&o.store, "store", "", "postgres://… to keep state in PostgreSQL; SQLite in DATA_DIR by default")
	f.StringVar(&o.admin, "admin", "admin", "name of the administrator")
	return cmd
}

func runInit(ctx context.Context, o initOptions, out io.Writer) error {
	if err := o.complete(); err != nil {
		return err
	}
	if _, err := os.Lstat(o.config); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists already; it is left as it is", o.config)
	}
	text, err := o.render()
	if err != nil {
		return err
	}
	cfg, err := o.checked(text)
	if err != nil {
		return usageError{err}
	}
	if err := os.MkdirAll(o.dataDir, 0o700); err != nil {
		return err
	}
	authority, err := ca.LoadOrCreate(o.dataDir, "Sallyport CA of account "+o.account, time.Now())
	if err != nil {
		return err
	}
	if _, err := seal.LoadOrCreate(cfg.MasterKeyFile); err != nil {
		return err
	}
	credentials := filepath.Join(o.dataDir, "admin-credentials")
	if err := makeAdministrator(ctx, cfg, o.admin, credentials); err != nil {
		return fmt.Errorf("making the administrator: %w", err)
	}
	// The configuration comes last: while it is missing, init can be run again.
	if err := writeNewFile(o.config, text, 0o600); err != nil {
		return err
	}
	fmt.Fprintf(out, `configuration  %s
CA             %s
CA SHA-256     %s   (pin it on nodes: ca_sha256)
administrator  %s, with an access key in %s

start with: sallyportd server --config %s
`, o.config, filepath.Join(o.dataDir, "ca.crt"), authority.Fingerprint(), o.admin, credentials, o.config)
	return nil
}

// userName is what IAM allows.
var userName = regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]{1,64}$`)

func (o *initOptions) complete() (err error) {
	if !userName.MatchString(o.admin) {
		return usageError{fmt.Errorf("--admin: %q is not 1 to 64 letters, digits and _+=,.@-", o.admin)}
	}
	if o.dataDir, err = filepath.Abs(o.dataDir); err != nil {
		return err
	}
	if o.config, err = filepath.Abs(o.config); err != nil {
		return err
	}
	if o.account == "" {
		o.account = randomAccount()
	}
	if len(o.names) == 0 {
		host, err := os.Hostname()
		if err != nil {
			return usageError{errors.New("--name: give the host name that clients and nodes use")}
		}
		o.names = []string{host}
	}
	return nil
}

// randomAccount returns twelve random digits, not starting with a zero.
func randomAccount() string {
	var b [12]byte
	rand.Read(b[:])
	for i := range b {
		b[i] = '0' + b[i]%10
	}
	if b[0] == '0' {
		b[0] = '1'
	}
	return string(b[:])
}

func (o *initOptions) render() (string, error) {
	quote := func(s string) string { return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes()) }
	t, err := template.New("sallyportd.hcl").Funcs(template.FuncMap{"quote": quote}).Parse(configTemplate)
	if err != nil {
		return "", err
	}
	names := make([]string, len(o.names))
	for i, n := range o.names {
		names[i] = quote(n)
	}
	var b bytes.Buffer
	err = t.Execute(&b, map[string]string{
		"Account": o.account, "Region": o.region, "DataDir": o.dataDir, "Listen": o.listen,
		"Store": o.store, "Names": strings.Join(names, ", "),
		"Advertise": o.advertise(),
	})
	return b.String(), err
}

func (o *initOptions) advertise() string {
	port := o.listen[strings.LastIndex(o.listen, ":")+1:]
	return "https://" + o.names[0] + ":" + port
}

// checked reads the configuration back the way the server will.
func (o *initOptions) checked(text string) (member.Config, error) {
	f, err := os.CreateTemp("", "sallyportd-*.hcl")
	if err != nil {
		return member.Config{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		return member.Config{}, err
	}
	cfg, err := member.LoadConfig(f.Name())
	if err != nil {
		return cfg, errors.New(strings.TrimPrefix(err.Error(), f.Name()+": "))
	}
	return cfg, nil
}

// makeAdministrator makes the user and writes its access key; an administrator that
// exists keeps what it has.
func makeAdministrator(ctx context.Context, cfg member.Config, name, credentials string) error {
	cfg.Logger = slog.New(slog.DiscardHandler)
	state, err := member.OpenState(ctx, cfg)
	if err != nil {
		return err
	}
	defer state.Close()
	switch err := state.CreateUser(ctx, name, nil, ""); {
	case errors.Is(err, identity.ErrExists):
		return nil
	case err != nil:
		return err
	}
	if err := state.PutInlinePolicy(ctx, identity.Owner{Kind: identity.OwnerUser, Name: name}, "everything", worldFile("admin")); err != nil {
		return err
	}
	id, secret, err := state.CreateAccessKey(ctx, name)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", id, secret)
	return writeNewFile(credentials, text, 0o600)
}

// writeNewFile writes a file that must not exist.
func writeNewFile(path, text string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
