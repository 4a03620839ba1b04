package keyring

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport.dev/archive"
)

const (
	// keySize is the length of a recording's key, in bytes.
	keySize = 32

	// attempts, attemptTime and pauseTime are how a key service is asked that fails: so
	// often, each time so long at most, with a pause that doubles between.
	attempts    = 3
	attemptTime = 4 * time.Second
	pauseTime   = 100 * time.Millisecond

	// defaultSpares are how many wrapped keys are held ready, spareLife is how long, and
	// refillAgain how long a service that failed is left alone.
	defaultSpares = 32
	spareLife     = time.Hour
	refillAgain   = 10 * time.Second
)

// Errors of key services.
var (
	// ErrURL means that a URL names no key that this build can use.
	ErrURL = errors.New("no key of recordings")
	// ErrLost means that a key's file is not there, and is not one to be made.
	ErrLost = errors.New("there is no such file")
	// errNotMade is in the error of a file that might be made, but was not to be.
	errNotMade = fmt.Errorf("%w yet", ErrLost)
	// ErrUnknownKey means that a key is wrapped with one that is not configured.
	ErrUnknownKey = archive.ErrUnknownKey
	// errFinal is in errors that asking again does not mend.
	errFinal = errors.New("refused")
)

// service is one key of a key service.
type service interface {
	// ID names the key in key.json; it holds no secret.
	ID() string
	// Wrap and Unwrap encrypt and decrypt with the key.
	Wrap(ctx context.Context, key []byte) (wrapped []byte, err error)
	Unwrap(ctx context.Context, wrapped []byte) (key []byte, err error)
	// local reports whether the key is on this machine: it needs no spares.
	local() bool
}

// Config says which keys a Ring has.
type Config struct {
	// URL of the key that wraps; an absolute path is a file's, which is made if need be.
	URL string
	// OldURLs are of keys that wrapped before, and that still unwrap.
	OldURLs []string
	// CredentialsFile opens the key services, in the service's own form: an AWS shared
	// credentials file, a Google service account's JSON, a token of Vault. It must be
	// readable by its owner alone. Optional.
	CredentialsFile string
	// Wrapped are how many recordings there are that each key wraps, by its id. The file of
	// URL is not made while files wrap some whose keys OldURLs do not name: it is lost.
	Wrapped map[string]int64
	// Existing has no file made at all.
	Existing bool
	// Spares are how many wrapped keys are held ready; 0 is 32, negative is none.
	Spares int
	Logger *slog.Logger     // required
	Now    func() time.Time // optional: time.Now
}

// Ring wraps and unwraps keys of recordings. It is an archive.Keeper, safe for concurrent
// use.
type Ring struct {
	log    *slog.Logger
	now    func() time.Time
	first  service
	all    map[string]service
	want   int
	ctx    context.Context // of filling up; ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	spares  []spare
	filling bool
	notYet  time.Time // the service failed: it is not asked for spares before
}

// spare is a wrapped key that nobody has yet.
type spare struct {
	archive.DataKey
	made time.Time
}

// Open opens the keys. Key services are not asked anything yet.
func Open(ctx context.Context, c Config) (*Ring, error) {
	r := &Ring{log: c.Logger, now: c.Now, all: map[string]service{}, want: c.Spares}
	if r.now == nil {
		r.now = time.Now
	}
	for _, old := range c.OldURLs {
		if _, err := r.add(ctx, old, c.CredentialsFile, func() error { return ErrLost }); err != nil {
			return nil, fmt.Errorf("an old key: %w", err)
		}
	}
	var err error
	if r.first, err = r.add(ctx, c.URL, c.CredentialsFile, func() error { return r.lost(c) }); err != nil {
		return nil, err
	}
	if r.want == 0 {
		r.want = defaultSpares
	}
	if r.first.local() || r.want < 0 {
		r.want = 0
	}
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r.fill()
	return r, nil
}

// Verify opens the keys and closes them: it finds files that are missing, that hold no key,
// or that others can read. It makes no key and asks no key service.
func Verify(ctx context.Context, c Config) error {
	c.Existing, c.Spares = true, -1
	r, err := Open(ctx, c)
	if errors.Is(err, errNotMade) {
		return nil // the server's first start makes it
	}
	if err == nil {
		r.Close()
	}
	return err
}

// add opens a key of the ring.
func (r *Ring) add(ctx context.Context, text, credentials string, mayMake func() error) (service, error) {
	s, err := open(ctx, text, credentials, mayMake)
	if err != nil {
		return nil, err
	}
	if r.all[s.ID()] != nil {
		return nil, fmt.Errorf("the key %s is configured twice", s.ID())
	}
	r.all[s.ID()] = s
	return s, nil
}

// lost refuses to make a file's key where the one that is missing wrapped recordings.
func (r *Ring) lost(c Config) error {
	if c.Existing {
		return errNotMade
	}
	for _, id := range slices.Sorted(maps.Keys(c.Wrapped)) {
		if n := c.Wrapped[id]; n > 0 && strings.HasPrefix(id, archive.KeyFilePrefix) && !r.Has(id) {
			return fmt.Errorf("%w, and no other key is made: %d recordings are wrapped by %s; restore that key's file, or name it in old_keys", ErrLost, n, id)
		}
	}
	return nil
}

// Close forgets the spare keys.
func (r *Ring) Close() {
	r.cancel()
	r.wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spares {
		clear(s.Key)
	}
	r.spares = nil
}

// ID names the key that wraps.
func (r *Ring) ID() string { return r.first.ID() }

// Has reports whether a key is configured.
func (r *Ring) Has(id string) bool { return r.all[id] != nil }

// Wrap encrypts a recording's key with the key of now.
func (r *Ring) Wrap(ctx context.Context, key []byte) ([]byte, error) {
	return again(ctx, func(ctx context.Context) ([]byte, error) { return r.first.Wrap(ctx, key) })
}

// Unwrap decrypts what the key with the id wrapped.
func (r *Ring) Unwrap(ctx context.Context, id string, wrapped []byte) ([]byte, error) {
	s := r.all[id]
	if s == nil {
		return nil, fmt.Errorf("%w: %q; add its URL to old_keys", ErrUnknownKey, id)
	}
	key, err := again(ctx, func(ctx context.Context) ([]byte, error) { return s.Unwrap(ctx, wrapped) })
	if err == nil && len(key) != keySize {
		clear(key)
		return nil, fmt.Errorf("%w: it has %d bytes, want %d", errFinal, len(key), keySize)
	}
	return key, err
}

// NewKey implements archive.KeyMaker: a spare key that is wrapped already if there is one,
// else one that the key service wraps now.
func (r *Ring) NewKey(ctx context.Context) (archive.DataKey, error) {
	k, ok := r.take()
	if !ok {
		var err error
		if k, err = r.make(ctx); err != nil {
			return archive.DataKey{}, err
		}
	}
	r.fill()
	return k, nil
}

// take takes a spare key, the oldest first.
func (r *Ring) take() (archive.DataKey, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.spares) > 0 {
		s := r.spares[0]
		r.spares = r.spares[1:]
		if r.now().Sub(s.made) < spareLife {
			return s.DataKey, true
		}
		clear(s.Key)
	}
	return archive.DataKey{}, false
}

func (r *Ring) make(ctx context.Context) (k archive.DataKey, err error) {
	k = archive.DataKey{ID: r.ID(), Key: make([]byte, keySize)}
	rand.Read(k.Key)
	if k.Wrapped, err = r.Wrap(ctx, k.Key); err != nil {
		clear(k.Key)
		return archive.DataKey{}, err
	}
	return k, nil
}

// fill has spare keys made, by one goroutine at a time, which Close waits for.
func (r *Ring) fill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.filling || len(r.spares) >= r.want || r.now().Before(r.notYet) || r.ctx.Err() != nil {
		return
	}
	r.filling = true
	r.wg.Go(r.fillUp)
}

func (r *Ring) fillUp() {
	for {
		k, err := r.make(r.ctx)
		r.mu.Lock()
		if err == nil {
			r.spares = append(r.spares, spare{k, r.now()})
		} else if r.ctx.Err() == nil {
			r.notYet = r.now().Add(refillAgain)
			r.log.Warn("the key service of recordings fails", "key", r.ID(), "spare_keys", len(r.spares), "error", err)
		}
		if err != nil || len(r.spares) >= r.want {
			r.filling = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
	}
}

// again asks a key service, and asks again what may work then.
func again(ctx context.Context, ask func(context.Context) ([]byte, error)) (out []byte, err error) {
	pause := pauseTime
	for n := range attempts {
		if n > 0 {
			if waitErr := wait(ctx, pause); waitErr != nil {
				return nil, err
			}
			pause *= 2
		}
		if out, err = bounded(ctx, ask); err == nil || errors.Is(err, errFinal) || ctx.Err() != nil {
			return out, err
		}
	}
	return nil, err
}

func bounded(ctx context.Context, ask func(context.Context) ([]byte, error)) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	return ask(ctx)
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
