package server

import (
	"encoding/base64"
	"strings"

	"sallyport.dev/wire"
)

// paginate gives one page of a listing in key order, for NextToken (JSON services,
// ec2) or Marker (iam). token is what the caller sent, limit what they asked for (0:
// the operation's usual page of size entries). fetch returns up to n entries after a
// key ("" for the first); key names an entry. The next token is empty on the last
// page.
func paginate[T any](c *Call, token string, limit, size int, fetch func(after string, n int) ([]T, error), key func(T) string) ([]T, string, error) {
	after, err := c.openPageToken(token)
	if err != nil {
		return nil, "", err
	}
	if limit <= 0 || limit > size {
		limit = size
	}
	// One more than asked for tells whether there is another page.
	items, err := fetch(after, limit+1)
	if err != nil {
		return nil, "", err
	}
	if len(items) <= limit {
		return items, "", nil
	}
	items = items[:limit]
	return items, c.pageToken(key(items[limit-1])), nil
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
	if s.name == "iam" {
		return exception(s.code(badToken), "The Marker was not given out by %s.", c.Operation.Name)
	}
	return exception(s.code(badToken), "The NextToken was not given out by %s.", c.Operation.Name)
}
