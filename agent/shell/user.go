package shell

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// DefaultUser is who sessions run as when the agent is root and the document does not
// turn run-as on; it is made on demand (docs/protocol.md §26.4).
const DefaultUser = "ssm-user"

// Options are the node's own rules for sessions; the zero value is AWS's behaviour.
type Options struct {
	// RunAsSelf runs sessions as the user that runs the agent, root included, where
	// the document does not ask for another user.
	RunAsSelf bool
	// SSMUserSudo gives ssm-user password-less sudo when the agent makes that user.
	SSMUserSudo bool
	// KeepDetached lets programs that leave their session (tmux, screen, daemons started
	// by hand) outlive it. Otherwise they end with it, however it ends.
	KeepDetached bool
	// Integration has bash, where it is the login shell, mark its prompts and commands for
	// the recording.
	Integration bool
	// Program is run in place of the user's login shell: an absolute path.
	Program string
	// Cgroups gives each session a control group; nil for none.
	Cgroups *Cgroups

	sudoers string   // directory of the sudoers file; empty means /etc/sudoers.d
	useradd []string // command that makes a user; empty means useradd -m
	passwd  string   // the user database; empty means /etc/passwd
	root    string   // before the paths of login.go; empty means /
	runDir  string   // directory of sockets; empty means /run/sallyport-agent
}

// RunAs is what a session document asks for.
type RunAs struct {
	Enabled  bool   // runAsEnabled
	User     string // RunAsUser of the request, else runAsDefaultUser
	Elevated bool   // runAsElevated: the agent's own user, no switch
	Root     bool   // policy lets the session run as root, where User names it
	Detached bool   // programs that leave the session may outlive it
}

// User is the operating-system user that a session runs as.
type User struct {
	Name     string
	UID, GID uint32
	Groups   []uint32 // supplementary groups, filled where Switch is set
	Home     string
	Shell    string
	Switch   bool // the agent must take on this user's credentials
	Detached bool // programs that leave the session may outlive it
}

// Errors of Resolve.
var (
	ErrNoRunAsUser  = errors.New("run as is enabled but no user is named: please set the RunAs default user")
	ErrRunAsNotRoot = errors.New("run as is enabled but the agent does not run as root")
	ErrRunAsRoot    = errors.New("invalid uid and gid: a session cannot run as root")
	ErrNoUser       = errors.New("no such user")
	ErrExpired      = errors.New("the user's account has expired")
)

// Resolve decides which user a session runs as.
func (o Options) Resolve(ctx context.Context, r RunAs) (User, error) {
	u, err := o.resolve(ctx, r)
	u.Detached = o.KeepDetached || r.Detached
	return u, err
}

func (o Options) resolve(ctx context.Context, r RunAs) (User, error) {
	self := uint32(os.Geteuid())
	switch {
	case r.Elevated:
		return o.current(ctx)
	case r.Enabled:
		return o.named(ctx, r, self)
	case o.RunAsSelf || self != 0:
		return o.current(ctx)
	}
	return o.defaultUser(ctx)
}

// named resolves a run-as user: root only where policy lets it, and another user only by
// a root agent.
func (o Options) named(ctx context.Context, r RunAs, self uint32) (User, error) {
	if r.User == "" {
		return User{}, ErrNoRunAsUser
	}
	u, err := o.lookup(ctx, r.User)
	switch {
	case err != nil:
		return User{}, fmt.Errorf("looking up run as user: %w", err)
	case u.Name != r.User && !strings.HasPrefix(u.Name, r.User+"@"):
		// A number, or other capitals where a directory service does not mind:
		// policies speak of the name.
		return User{}, fmt.Errorf("looking up run as user: %w: %q is called %q here", ErrNoUser, r.User, u.Name)
	case (u.UID == 0 || u.GID == 0) && !r.Root:
		return User{}, ErrRunAsRoot
	case u.UID == self:
		return u, nil
	case self != 0:
		return User{}, ErrRunAsNotRoot
	}
	return o.switching(ctx, u)
}

// defaultUser resolves ssm-user, making it when it does not exist.
func (o Options) defaultUser(ctx context.Context) (User, error) {
	u, err := o.lookup(ctx, DefaultUser)
	if errors.Is(err, ErrNoUser) {
		if err := o.create(ctx, DefaultUser); err != nil {
			return User{}, fmt.Errorf("creating user %s: %w", DefaultUser, err)
		}
		u, err = o.lookup(ctx, DefaultUser)
	}
	if err != nil {
		return User{}, err
	}
	if u.UID == 0 || u.GID == 0 {
		return User{}, ErrRunAsRoot
	}
	return o.switching(ctx, u)
}

// current returns the user that runs the agent; one without an entry in the user
// database (a container's arbitrary uid) is known by its number.
func (o Options) current(ctx context.Context) (User, error) {
	uid := os.Geteuid()
	u, err := o.lookup(ctx, strconv.Itoa(uid))
	if errors.Is(err, ErrNoUser) {
		id := strconv.Itoa(uid)
		return User{Name: id, UID: uint32(uid), GID: uint32(os.Getegid()), Home: "/", Shell: "/bin/sh"}, nil
	}
	return u, err
}

// lookup finds a user by name or number: in the local database, else through getent,
// which also asks the directory services that the node is set up with.
func (o Options) lookup(ctx context.Context, name string) (User, error) {
	if err := checkName(name); err != nil {
		return User{}, err
	}
	if u, ok := scanPasswd(o.database(), name); ok {
		return u, nil
	}
	if o.passwd != "" {
		return User{}, fmt.Errorf("%w: %q", ErrNoUser, name)
	}
	out, err := exec.CommandContext(ctx, "getent", "passwd", "--", name).Output()
	if err == nil {
		if u, ok := parsePasswd(strings.TrimSpace(string(out))); ok {
			return u, nil
		}
	}
	return User{}, fmt.Errorf("%w: %q", ErrNoUser, name)
}

func (o Options) database() string {
	if o.passwd != "" {
		return o.passwd
	}
	return "/etc/passwd"
}

// checkName refuses names that a program could take for an option, a path or a second
// field; the name comes from the server.
func checkName(name string) error {
	if name == "" || len(name) > 256 || name[0] == '-' || strings.ContainsAny(name, "/: \t\r\n\x00") {
		return fmt.Errorf("%w: %q is not a user name", ErrNoUser, name)
	}
	return nil
}

func scanPasswd(path, name string) (User, bool) {
	f, err := os.Open(path)
	if err != nil {
		return User{}, false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		u, ok := parsePasswd(s.Text())
		if ok && (u.Name == name || strconv.FormatUint(uint64(u.UID), 10) == name) {
			return u, true
		}
	}
	return User{}, false
}

// parsePasswd reads name:password:uid:gid:comment:home:shell.
func parsePasswd(line string) (User, bool) {
	f := strings.Split(line, ":")
	if len(f) != 7 || f[0] == "" {
		return User{}, false
	}
	uid, err1 := strconv.ParseUint(f[2], 10, 32)
	gid, err2 := strconv.ParseUint(f[3], 10, 32)
	if err1 != nil || err2 != nil {
		return User{}, false
	}
	u := User{Name: f[0], UID: uint32(uid), GID: uint32(gid), Home: f[5], Shell: f[6]}
	if u.Home == "" {
		u.Home = "/"
	}
	if u.Shell == "" {
		u.Shell = "/bin/sh"
	}
	return u, true
}

// switching completes u for a change of credentials: with its supplementary groups,
// and nothing of the agent's.
func (o Options) switching(ctx context.Context, u User) (User, error) {
	u.Switch = true
	if o.expired(u.Name, time.Now()) {
		return User{}, fmt.Errorf("%w: %q", ErrExpired, u.Name)
	}
	ids, err := groupIDs(ctx, u)
	if err != nil {
		return User{}, fmt.Errorf("reading groups of %s: %w", u.Name, err)
	}
	for _, id := range ids {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return User{}, fmt.Errorf("reading groups of %s: %w", u.Name, err)
		}
		u.Groups = append(u.Groups, uint32(n))
	}
	return u, nil
}

// groupIDs asks id, which knows the node's directory services; a minimal image without
// it has only the local database.
func groupIDs(ctx context.Context, u User) ([]string, error) {
	out, err := exec.CommandContext(ctx, "id", "-G", "--", u.Name).Output()
	if err == nil {
		return strings.Fields(string(out)), nil
	}
	local := &user.User{Username: u.Name, Gid: strconv.FormatUint(uint64(u.GID), 10)}
	return local.GroupIds()
}

// create makes a user without a password, after its sudoers file if the node's owner
// wants one: made in the other order, a failure in between would leave a user that is
// never given it.
func (o Options) create(ctx context.Context, name string) error {
	sudoers, err := o.allowSudo(name)
	if err != nil {
		return err
	}
	argv := o.useradd
	if len(argv) == 0 {
		argv = []string{"useradd", "-m", "-s", loginShell()}
	}
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:len(argv):len(argv)], name)...)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if sudoers != "" {
		os.Remove(sudoers)
	}
	return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
}

// allowSudo writes the user's sudoers file, if the node's owner wants one and the node
// has sudo, and returns its path.
func (o Options) allowSudo(name string) (string, error) {
	if !o.SSMUserSudo {
		return "", nil
	}
	dir := o.sudoers
	if dir == "" {
		dir = "/etc/sudoers.d"
	}
	if !isDir(dir) {
		return "", nil
	}
	return filepath.Join(dir, sudoersName(name)), writeSudoers(dir, name)
}

func sudoersName(name string) string { return "sallyport-" + name }

func loginShell() string {
	if _, err := os.Stat("/bin/bash"); err == nil {
		return "/bin/bash"
	}
	return "/bin/sh"
}

// writeSudoers puts the file in place in one step: sudo refuses to work at all while a
// file there is half written. A name with a dot is ignored by sudo until it is renamed.
func writeSudoers(dir, name string) error {
	path := filepath.Join(dir, sudoersName(name))
	f, err := os.CreateTemp(dir, ".sallyport-*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = fmt.Fprintf(f, "# Written by sallyport-agent (ssm_user_sudo).\n%s ALL=(ALL) NOPASSWD:ALL\n", name)
	if err == nil {
		err = f.Chmod(0o440)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
