package server

import (
	"encoding/base64"
	"strings"

	"sallyport.dev/wire"
)

// pages says how a listing is cut into pages, for NextToken (JSON services, ec2) or
// Marker (iam).
type pages[T any] struct {
	// fetch returns up to n entries after a key ("" for the first), in key order.
	fetch func(after string, n int) ([]T, error)
	key   func(T) string
	keep  func(T) (bool, error) // leaves entries out of the listing; nil keeps all
	size  int                   // entries of a page at most
}

// page gives one page. token is what the caller sent, limit what they asked for (0:
// p.size). The next token is empty on the last page.
func (p pages[T]) page(c *Call, token string, limit int) ([]T, string, error) {
	after, err := c.openPageToken(token)
	if err != nil {
		return nil, "", err
	}
	if limit <= 0 || limit > p.size {
		limit = p.size
	}
	var kept []T
	for {
		// One more than asked for tells whether there is another page.
		block := limit - len(kept) + 1
		if p.keep != nil {
			block = max(block, filteredBlock)
		}
		items, err := p.fetch(after, block)
		if err != nil {
			return nil, "", err
		}
		for _, item := range items {
			after = p.key(item)
			if ok, err := p.keeps(item); err != nil {
				return nil, "", err
			} else if ok {
				kept = append(kept, item)
			}
		}
		if len(kept) > limit {
			return kept[:limit], c.pageToken(p.key(kept[limit-1])), nil
		}
		if len(items) < block {
			return kept, "", nil
		}
	}
}

// filteredBlock is how many entries are read at a time where some are left out.
const filteredBlock = 100

func (p pages[T]) keeps(item T) (bool, error) {
	if p.keep == nil {
		return true, nil
	}
	return p.keep(item)
}

// pageToken makes a token that continues after key. It is bound to the operation, but
// not secret: whoever makes one up gets a page that they may see anyway.
func (c *Call) pageToken(key string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(c.Operation.Name + "\n" + key))
}

// openPageToken returns the key that a token continues after.
func (c *Call) openPageToken(token string) (string, error) {
	if token == "" {
		return "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	name, key, found := strings.Cut(string(text), "\n")
	if err != nil || !found || name != c.Operation.Name {
		return "", c.badToken()
	}
	return key, nil
}

func (c *Call) badToken() *wire.Exception {
	s := c.Server.table.services[c.Operation.Service]
	if s.name == "iam" || s.name == "kms" {
		return exception(s.code(badToken), "The Marker was not given out by %s.", c.Operation.Name)
	}
	return exception(s.code(badToken), "The NextToken was not given out by %s.", c.Operation.Name)
}
