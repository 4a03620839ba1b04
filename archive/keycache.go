package archive

import (
	"bytes"
	"sync"
	"time"
)

// keptKeys and keyLife bound what is kept of unwrapped keys, so that who reads a recording
// piece by piece asks the key service once.
const (
	keptKeys = 64
	keyLife  = time.Minute
)

// keyCache keeps keys that were unwrapped a moment ago.
type keyCache struct {
	now func() time.Time

	mu   sync.Mutex
	kept map[string]cachedKey
}

type cachedKey struct {
	key    WrappedKey
	sealer *sealer
	until  time.Time
}

func newKeyCache(now func() time.Time) *keyCache {
	return &keyCache{now: now, kept: map[string]cachedKey{}}
}

// get returns the key if exactly k was unwrapped lately.
func (c *keyCache) get(name string, k WrappedKey) *sealer {
	c.mu.Lock()
	defer c.mu.Unlock()
	have, ok := c.kept[name]
	if !ok || !c.now().Before(have.until) || have.key.KeyID != k.KeyID || !bytes.Equal(have.key.Wrapped, k.Wrapped) {
		return nil
	}
	return have.sealer
}

func (c *keyCache) put(name string, k WrappedKey, s *sealer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for n, have := range c.kept {
		if !now.Before(have.until) || len(c.kept) >= keptKeys {
			delete(c.kept, n)
		}
	}
	c.kept[name] = cachedKey{key: k, sealer: s, until: now.Add(keyLife)}
}
