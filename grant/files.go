package grant

import "context"

// Files returns the configuration files in force, flows and all, and their digest.
func (e *Engine) Files(ctx context.Context) (files map[string][]byte, digest string, err error) {
	return e.config.Store.Flows(ctx)
}
