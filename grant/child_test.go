package grant_test

import (
	"os"

	"sallyport.dev/identity"
	"sallyport.dev/node"
)

func lifeOfAChild() (int, bool) { return 0, false }

func exit(code int) { os.Exit(code) }

func disabled(u *identity.User) error { u.Disabled = true; return nil }

func enabled(u *identity.User) error { u.Disabled = false; return nil }

func tagged(key, value string) func(*identity.User) error {
	return func(u *identity.User) error {
		u.Tags = identity.Tags{key: value}
		return nil
	}
}

func retag(key, value string) func(*node.Node) error {
	return func(n *node.Node) error {
		n.Tags[key] = value
		return nil
	}
}
