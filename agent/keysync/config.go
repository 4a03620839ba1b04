package keysync

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"sallyport.dev/internal/authorizedkeys"
)

// DefaultEvery is how often keys are asked for where the server gives no hint.
const DefaultEvery = 5 * time.Minute

// Bounds of a configuration and of what comes from the server.
const (
	minEvery  = 10 * time.Second
	maxGroups = 32
	maxKeys   = 5000 // of a group
	maxFile   = 4 << 20
	maxRoot   = 64 << 10
)

// Config says whose keys one operating-system user's file holds.
type Config struct {
	// Login is the operating-system user. Required.
	Login string
	// Groups are the IAM groups whose members may log in. Required. The server must
	// allow the node to read their keys (its tag SSHKeyGroups).
	Groups []string
	// RootKeys are lines of authorized_keys that come first and are always there, for
	// emergencies; RootKeysFile is a file of such lines, read each time. One of them is
	// required, unless NoRootKey says that there are to be none.
	RootKeys     []string
	RootKeysFile string
	NoRootKey    bool
	// File is the file that is kept; .ssh/authorized_keys in the user's home if empty.
	// Its folder must exist. Where root owns the folder, root owns the file too.
	File string
	// MaxAge is how long keys are kept while the server is away; without end if zero.
	MaxAge time.Duration
	// Every is how often keys are asked for without a hint; DefaultEvery if zero.
	Every time.Duration
}

var (
	loginForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}$`)
	groupForm = regexp.MustCompile(`^[\w+=,.@-]{1,128}$`)
)

// withDefaults fills in and checks the configuration; errors name the field.
func (c Config) withDefaults() (Config, error) {
	if c.Every == 0 {
		c.Every = DefaultEvery
	}
	return c, c.check()
}

func (c Config) check() error {
	switch {
	case !loginForm.MatchString(c.Login):
		return fmt.Errorf("%q is not the name of a user", c.Login)
	case len(c.Groups) == 0 || len(c.Groups) > maxGroups:
		return fmt.Errorf("groups: name 1 to %d groups", maxGroups)
	case c.File != "" && (!filepath.IsAbs(c.File) || filepath.Clean(c.File) != c.File):
		return fmt.Errorf("file: %q is not an absolute path", c.File)
	case c.MaxAge < 0:
		return fmt.Errorf("max_age: %v is negative", c.MaxAge)
	case c.Every < minEvery:
		return fmt.Errorf("every: %v is shorter than %v", c.Every, minEvery)
	}
	for _, g := range c.Groups {
		if !groupForm.MatchString(g) {
			return fmt.Errorf("groups: %q is not the name of a group", g)
		}
	}
	return c.checkRoot()
}

func (c Config) checkRoot() error {
	given := len(c.RootKeys) > 0 || c.RootKeysFile != ""
	switch {
	case len(c.RootKeys) > 0 && c.RootKeysFile != "":
		return errors.New("root_keys: give either them or root_keys_file")
	case given == c.NoRootKey:
		return errors.New("root_keys: give the keys for emergencies, or root_keys_file, or else no_root_key = true")
	}
	_, err := rootLines(strings.Join(c.RootKeys, "\n"))
	if err != nil {
		return fmt.Errorf("root_keys: %w", err)
	}
	return nil
}

// rootLines returns the lines of a text that hold keys. They are the node's owner's and
// may have options.
func rootLines(text string) ([]string, error) {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := authorizedkeys.Check(line); err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}
