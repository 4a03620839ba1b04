package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/smithy-go"
	"github.com/spf13/cobra"

	"sallyport.dev/client"
	"sallyport.dev/internal/authorizedkeys"
)

type authorizedKeysFlags struct {
	groups, users, logins []string
	cache                 string
	maxAge, timeout       time.Duration
}

func (p *program) newAuthorizedKeysCommand() *cobra.Command {
	var f authorizedKeysFlags
	cmd := &cobra.Command{
		Use:   "authorized-keys [--group GROUP]... [--user USER]... [--login LOGIN]... LOGIN",
		Short: "Print the SSH keys that may log in, for sshd's AuthorizedKeysCommand",
		Long: `Print, as lines of authorized_keys, the active SSH keys of those who may log in as the
operating system's user LOGIN: the members of each IAM group that --group names, and the
IAM users that --user names. With neither it is the IAM user of the same name as LOGIN.
Whoever is disabled has no keys.

With --login it answers for these users of the operating system only, and otherwise for
all but root.

It needs sallyport:ListGroupSSHKeys on those groups and users, and nothing else. Where the
server cannot be reached within --timeout, what it last said counts, if --cache names a
folder of the user that runs this, and it is not older than --max-age. Where the server
refuses, or there is no such copy, nobody gets in by this way: nothing is printed, and the
exit status is 1.

The machine's own sallyport-agent can keep an authorized_keys file without credentials;
see key_sync in its configuration.`,
		Example: `  # /etc/ssh/sshd_config
  Match User deploy
    AuthorizedKeysCommand /usr/bin/env AWS_CONFIG_FILE=/etc/sallyport/sshd.aws /usr/bin/sallyport authorized-keys --group ops --cache /var/cache/sallyport %u
    AuthorizedKeysCommandUser sallyport-sshd`,
		Args: between(1, 1, "want LOGIN, as sshd's %u gives it"),
		RunE: func(cmd *cobra.Command, args []string) error { return p.authorizedKeys(cmd.Context(), f, args[0]) },
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&f.groups, "group", nil, "IAM `GROUP` whose members may log in; may be repeated")
	fs.StringArrayVar(&f.users, "user", nil, "IAM `USER` who may log in; may be repeated")
	fs.StringArrayVar(&f.logins, "login", nil, "answer for the operating system's user `LOGIN`; may be repeated")
	fs.StringVar(&f.cache, "cache", "", "`FOLDER` for copies of what the server last said")
	fs.DurationVar(&f.maxAge, "max-age", 0, "how old such a copy may be (any age)")
	fs.DurationVar(&f.timeout, "timeout", 3*time.Second, "how long to wait for the server")
	return cmd
}

// errNoKeys is told where nobody may log in by this way.
var errNoKeys = errors.New("nobody may log in by this way")

func (p *program) authorizedKeys(ctx context.Context, f authorizedKeysFlags, login string) error {
	if f.timeout <= 0 || f.maxAge < 0 {
		return usagef("--timeout and --max-age must be positive")
	}
	if !loginName.MatchString(login) {
		return usagef("%q is not the name of a user", login)
	}
	if !f.answersFor(login) {
		return fmt.Errorf("%w: %s is not among the users that this is for", errNoKeys, login)
	}
	if len(f.groups)+len(f.users) == 0 {
		f.users = []string{login}
	}
	lines, err := p.keysOrCopy(ctx, f, login)
	if err != nil {
		return err
	}
	_, err = p.stdout.Write(lines)
	return err
}

func (f authorizedKeysFlags) answersFor(login string) bool {
	if len(f.logins) == 0 {
		return login != "root"
	}
	return slices.Contains(f.logins, login)
}

// keysOrCopy asks the server, or returns what it last said if it is away. A refusal is an
// answer, and no copy outlives it.
func (p *program) keysOrCopy(ctx context.Context, f authorizedKeysFlags, login string) ([]byte, error) {
	keptIn := keyCopy{f.cache, login, append(prefixed("group ", f.groups), prefixed("user ", f.users)...), f.maxAge}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	lines, err := p.askForKeys(ctx, f)
	switch {
	case err == nil:
		if f.cache != "" {
			if err := keptIn.write(lines); err != nil {
				p.say("keeping a copy: %s", client.Clean(err.Error()))
			}
		}
		return lines, nil
	case !serverAway(err) || f.cache == "":
		if f.cache != "" && !serverAway(err) {
			keptIn.remove()
		}
		return nil, err
	}
	lines, copyErr := keptIn.read()
	if copyErr != nil {
		return nil, fmt.Errorf("%w, and there is no copy that may be used: %w", err, copyErr)
	}
	p.say("using a copy: %s", errorText(err))
	return lines, nil
}

func prefixed(prefix string, all []string) []string {
	var out []string
	for _, s := range all {
		out = append(out, prefix+s)
	}
	return out
}

// serverAway reports whether there was no answer, or none but that of a server in
// trouble, as opposed to a refusal.
func serverAway(err error) bool {
	var api smithy.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode() {
		case "InternalServerError", "ServiceUnavailable", "InternalFailure":
			return true
		}
		return false
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded)
}

// Bounds of what is asked for.
const maxKeyPages = 200

func (p *program) askForKeys(ctx context.Context, f authorizedKeysFlags) ([]byte, error) {
	var b bytes.Buffer
	seen := map[string]bool{}
	for _, in := range f.questions() {
		keys, err := p.listKeys(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, k := range keys {
			line, err := authorizedkeys.Line(k)
			if err != nil {
				p.say("leaving out a key: %s", client.Clean(err.Error()))
				continue
			}
			if material := strings.Join(strings.Fields(line)[:2], " "); !seen[material] {
				seen[material] = true
				b.WriteString(line + "\n")
			}
		}
	}
	return b.Bytes(), nil
}

func (f authorizedKeysFlags) questions() []client.ListGroupSSHKeysInput {
	var all []client.ListGroupSSHKeysInput
	for _, g := range f.groups {
		all = append(all, client.ListGroupSSHKeysInput{GroupName: g})
	}
	for _, u := range f.users {
		all = append(all, client.ListGroupSSHKeysInput{UserName: u})
	}
	return all
}

func (p *program) listKeys(ctx context.Context, in client.ListGroupSSHKeysInput) ([]authorizedkeys.Key, error) {
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	var keys []authorizedkeys.Key
	for range maxKeyPages {
		out, err := api.ListGroupSSHKeys(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, k := range out.Keys {
			keys = append(keys, authorizedkeys.Key{User: k.UserName, ID: k.SSHPublicKeyID, PublicKey: k.PublicKey})
		}
		if in.NextToken = out.NextToken; in.NextToken == "" {
			return keys, nil
		}
	}
	return nil, fmt.Errorf("there are more than %d pages of keys", maxKeyPages)
}

// keyCopy is where the server's last answer about a login is kept.
type keyCopy struct {
	dir, login string
	of         []string // groups and users
	maxAge     time.Duration
}

// keptKeys is the content of the file.
type keptKeys struct {
	Login string    `json:"login"`
	Of    []string  `json:"of"`
	Told  time.Time `json:"told"`
	Lines string    `json:"lines"`
}

func (c keyCopy) path() string { return filepath.Join(c.dir, "keys-"+c.login+".json") }

func (c keyCopy) write(lines []byte) error {
	if err := ownFile(c.dir); err != nil {
		return err
	}
	b, err := json.Marshal(keptKeys{c.login, c.of, time.Now(), string(lines)})
	if err != nil {
		return err
	}
	_, err = replaceFile(c.path(), b, 0o600)
	return err
}

// remove forgets a copy; one that stays is as good as the server's next answer.
func (c keyCopy) remove() {
	if ownFile(c.dir) == nil {
		_ = os.Remove(c.path())
	}
}

func (c keyCopy) read() ([]byte, error) {
	for _, path := range []string{c.dir, c.path()} {
		if err := ownFile(path); err != nil {
			return nil, err
		}
	}
	b, err := os.ReadFile(c.path())
	if err != nil {
		return nil, err
	}
	var kept keptKeys
	if err := json.Unmarshal(b, &kept); err != nil {
		return nil, fmt.Errorf("reading %s: %w", c.path(), err)
	}
	age := time.Since(kept.Told)
	switch {
	case kept.Login != c.login || !slices.Equal(kept.Of, c.of):
		return nil, errors.New("it is of other groups or users")
	case c.maxAge > 0 && (age > c.maxAge || age < 0):
		return nil, fmt.Errorf("it is of %s", kept.Told.Local().Format(time.DateTime))
	}
	return []byte(kept.Lines), nil
}
