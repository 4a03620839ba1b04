// Package tags holds tags with several values, as principals, nodes and flows bear them.
// It is a package of its own so that the client can read flows without the server's
// notion of who is who.
package tags

import (
	"sort"
	"strings"
)

// Tags are the tags of a principal, node or document. A value may hold several,
// separated by commas (a character that AWS does not allow in tag values, so that
// no AWS value changes its meaning): Team = "payments, search".
type Tags map[string]string

// Values returns the set of values of a key: none where the tag is absent.
func (t Tags) Values(key string) []string {
	v, ok := t[key]
	if !ok {
		return nil
	}
	if !strings.Contains(v, ",") {
		return []string{v}
	}
	parts := strings.Split(v, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

// Sets returns the values of every key.
func (t Tags) Sets() map[string][]string {
	sets := make(map[string][]string, len(t))
	for k := range t {
		sets[k] = t.Values(k)
	}
	return sets
}

// Keys returns the tag keys in order.
func (t Tags) Keys() []string {
	keys := make([]string, 0, len(t))
	for k := range t {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
