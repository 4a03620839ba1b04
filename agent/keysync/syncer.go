package keysync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"time"

	"sallyport.dev/internal/authorizedkeys"
)

// ErrRefused wraps errors of a Source by which the server says that there are no keys
// for this node: it may not read them, or the group is gone.
var ErrRefused = errors.New("the server gives the node no keys")

// Source gives the active keys of an IAM group's members. All errors but ErrRefused
// mean that the server is away.
type Source interface {
	GroupKeys(ctx context.Context, group string) ([]authorizedkeys.Key, error)
}

// Account is an operating-system user.
type Account struct {
	UID, GID int
	Home     string
}

// Options are what a Syncer works with.
type Options struct {
	Configs  []Config
	Source   Source
	StateDir string // for what the server last said; 0700
	Lookup   func(ctx context.Context, login string) (Account, error)
	Logger   *slog.Logger
	Now      func() time.Time
	// Jitter bounds the wait after a hint, so that many nodes do not ask at once; one
	// second if zero, none if negative.
	Jitter time.Duration
}

// Syncer keeps files.
type Syncer struct {
	options Options
	keepers []*keeper
	wake    chan struct{} // has room for one
	every   time.Duration
}

// New checks the configurations. Errors name the login and the field.
func New(o Options) (*Syncer, error) {
	if o.Jitter == 0 {
		o.Jitter = time.Second
	}
	s := &Syncer{options: o, wake: make(chan struct{}, 1), every: DefaultEvery}
	seen := map[string]bool{}
	for i, c := range o.Configs {
		c, err := c.withDefaults()
		if err == nil && seen[c.Login] {
			err = errors.New("is given twice")
		}
		if err != nil {
			return nil, fmt.Errorf("key_sync %q: %w", c.Login, err)
		}
		seen[c.Login] = true
		s.keepers = append(s.keepers, &keeper{config: c, options: &s.options})
		if i == 0 || c.Every < s.every {
			s.every = c.Every
		}
	}
	return s, nil
}

// Wake makes Run look at once, or nearly so: the server has hinted at a change.
func (s *Syncer) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Times between attempts while the server is away.
const (
	minRetry = time.Second
	maxRetry = time.Minute
)

// Run keeps the files until ctx ends.
func (s *Syncer) Run(ctx context.Context) {
	for _, k := range s.keepers {
		k.load()
	}
	retry := minRetry
	for {
		next := s.every
		if err := s.sync(ctx); err != nil && ctx.Err() == nil {
			s.options.Logger.Warn("keeping SSH keys", "error", err)
			next = min(retry, s.every)
			retry = min(2*retry, maxRetry)
		} else {
			retry = minRetry
		}
		if !s.wait(ctx, next) {
			return
		}
	}
}

// sync brings all files up to date.
func (s *Syncer) sync(ctx context.Context) error {
	var errs []error
	for _, k := range s.keepers {
		if err := k.sync(ctx); err != nil {
			errs = append(errs, fmt.Errorf("key_sync %q: %w", k.config.Login, err))
		}
	}
	return errors.Join(errs...)
}

// wait waits for d or a hint, and after a hint a little more, in which others may come.
// It reports false if ctx ended.
func (s *Syncer) wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	case <-s.wake:
	}
	if s.options.Jitter > 0 {
		t.Reset(rand.N(s.options.Jitter))
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
		}
	}
	return true
}

// keeper keeps the file of one login.
type keeper struct {
	config  Config
	options *Options
	known   known
}

// sync asks for the keys of every group and writes the file. It returns an error where
// something is to be tried again soon.
func (k *keeper) sync(ctx context.Context) error {
	away := k.ask(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(away, k.write(ctx))
}

// ask updates what is known of the groups.
func (k *keeper) ask(ctx context.Context) (away error) {
	changed := false
	for _, group := range k.config.Groups {
		keys, err := k.options.Source.GroupKeys(ctx, group)
		switch {
		case errors.Is(err, ErrRefused):
			k.options.Logger.Warn("no SSH keys for this node", "login", k.config.Login, "group", group, "error", err)
			keys = nil
		case err == nil && len(keys) > maxKeys:
			err = fmt.Errorf("group %s has %d keys; at most %d are kept", group, len(keys), maxKeys)
			fallthrough
		case err != nil:
			away = errors.Join(away, err)
			continue
		}
		changed = k.known.set(group, keys, k.options.Now()) || changed
	}
	if changed {
		if err := k.save(); err != nil {
			k.options.Logger.Warn("keeping a copy of SSH keys", "login", k.config.Login, "error", err)
		}
	}
	return away
}

// write makes the file what it should be.
func (k *keeper) write(ctx context.Context) error {
	root, err := k.root()
	if err != nil {
		return err // rather the keys of before than no emergency keys
	}
	account, err := k.options.Lookup(ctx, k.config.Login)
	if err != nil {
		return err
	}
	keys, complete := k.current()
	text := render(k.config, root, keys, k.dropped)
	if len(text) > maxFile {
		return fmt.Errorf("the keys have %d bytes; at most %d are kept", len(text), maxFile)
	}
	changed, err := place(k.config.File, account, text, complete)
	if changed {
		k.options.Logger.Info("SSH keys changed", "login", k.config.Login, "keys", len(keys))
	}
	return err
}

// current returns the keys that are known and not too old. It is not complete where
// the server has never told of one of the groups.
func (k *keeper) current() (keys []authorizedkeys.Key, complete bool) {
	complete = true
	for _, name := range k.config.Groups {
		g, told := k.known.Groups[name]
		complete = complete && told
		if k.config.MaxAge == 0 || k.options.Now().Sub(g.Told) <= k.config.MaxAge {
			keys = append(keys, g.Keys...)
		}
	}
	return keys, complete
}

func (k *keeper) dropped(err error) {
	k.options.Logger.Warn("leaving out an SSH key", "login", k.config.Login, "error", err)
}

// root returns the lines of the emergency keys.
func (k *keeper) root() ([]string, error) {
	if k.config.RootKeysFile == "" {
		return k.config.RootKeys, nil
	}
	text, err := readTrusted(k.config.RootKeysFile, maxRoot)
	if err != nil {
		return nil, fmt.Errorf("root_keys_file: %w", err)
	}
	lines, err := rootLines(string(text))
	if err == nil && len(lines) == 0 {
		err = errors.New("it holds no key")
	}
	if err != nil {
		return nil, fmt.Errorf("root_keys_file %s: %w", k.config.RootKeysFile, err)
	}
	return lines, nil
}

// readTrusted reads a file that only root or the agent's own user can have written.
func readTrusted(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := trustedFile(f); err != nil {
		return nil, err
	}
	return readAtMost(f, limit)
}
