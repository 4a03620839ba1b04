package main

import (
	"fmt"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"sallyport.dev/agent/keysync"
)

// decodeKeySync reads a block key_sync "LOGIN": whose SSH keys the authorized_keys file
// of an operating-system user holds.
func decodeKeySync(b *hclsyntax.Block) (keysync.Config, error) {
	var c keysync.Config
	var group, rootKey, maxAge, every string
	if len(b.Labels) != 1 || len(b.Body.Blocks) > 0 {
		return c, fmt.Errorf("%s: want key_sync \"LOGIN\" with the user's name, and no blocks in it", b.TypeRange)
	}
	c.Login = b.Labels[0]
	err := decodeAttributes(b.Body.Attributes, map[string]any{
		"group": &group, "groups": &c.Groups, "root_key": &rootKey, "root_keys": &c.RootKeys, "root_keys_file": &c.RootKeysFile,
		"no_root_key": &c.NoRootKey, "file": &c.File, "max_age": &maxAge, "every": &every,
	})
	if err != nil {
		return c, err
	}
	if group != "" {
		c.Groups = append(c.Groups, group)
	}
	if rootKey != "" {
		c.RootKeys = append(c.RootKeys, rootKey)
	}
	if c.MaxAge, err = duration("max_age", maxAge); err == nil {
		c.Every, err = duration("every", every)
	}
	if err != nil {
		return c, fmt.Errorf("%s: key_sync %q: %w", b.TypeRange, c.Login, err)
	}
	return c, nil
}
