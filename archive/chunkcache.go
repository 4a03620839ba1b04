package archive

import (
	"slices"
	"sync"
)

// keptChunks bounds what is kept of chunks read from the store and from other members, in
// bytes, sealed: who reads a recording piece by piece fetches each chunk once.
const keptChunks = 32 << 20

// chunkCache keeps the beginnings of chunks, as they are stored. A chunk only ever grows.
type chunkCache struct {
	limit int

	mu    sync.Mutex
	order []string // keys, the one used last at the end
	kept  map[string][]byte
	bytes int
}

func newChunkCache(limit int) *chunkCache {
	return &chunkCache{limit: limit, kept: map[string][]byte{}}
}

// get returns what is kept of a chunk. It must not be changed.
func (c *chunkCache) get(key string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.kept[key]
	if ok {
		c.touchLocked(key)
	}
	return b
}

func (c *chunkCache) touchLocked(key string) {
	c.order = append(slices.DeleteFunc(c.order, func(k string) bool { return k == key }), key)
}

func (c *chunkCache) put(key string, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked(key)
	c.kept[key], c.bytes = b, c.bytes+len(b)
	c.order = append(c.order, key)
	for c.bytes > c.limit {
		c.dropLocked(c.order[0])
	}
}

func (c *chunkCache) drop(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked(key)
}

func (c *chunkCache) dropLocked(key string) {
	c.bytes -= len(c.kept[key])
	delete(c.kept, key)
	c.order = slices.DeleteFunc(c.order, func(k string) bool { return k == key })
}
