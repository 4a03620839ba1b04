package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"sallyport.dev/archive/bucket"
	"sallyport.dev/archive/keyring"
	"sallyport.dev/internal/cloud"
)

// CheckFiles finds what Check cannot tell by the configuration's text: files that the block
// recordings names and that are missing or hold something else, and what opening store and
// keys refuses. It makes nothing, and asks neither store nor key service.
func (c Config) CheckFiles(ctx context.Context) error {
	r := c.Recordings
	if err := bucket.Verify(ctx, bucket.Config{URL: r.Store, CredentialsFile: r.CredentialsFile}); err != nil {
		return fmt.Errorf("recordings.store: %w", err)
	}
	if r.KeyCredentialsFile != "" {
		if _, err := cloud.ReadSecret(r.KeyCredentialsFile); err != nil {
			return fmt.Errorf("recordings.key_credentials_file: %w", err)
		}
	}
	err := keyring.Verify(ctx, keyring.Config{
		URL: r.Key, OldURLs: r.OldKeys, CredentialsFile: r.KeyCredentialsFile, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return fmt.Errorf("recordings.key: %w", err)
	}
	return nil
}

// askTime bounds the question whether the store is there.
const askTime = 30 * time.Second

// askStore says at once if the store of recordings is not what the configuration takes it
// for. Sessions can begin all the same, as long as the spool takes what they show.
func (m *Member) askStore(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	found, err := m.store.IsAccessible(ctx)
	switch store := m.cfg.Recordings.Store; {
	case errors.Is(ctx.Err(), context.Canceled): // the member ends
	case err != nil:
		m.log.Error("recordings.store cannot be used: recordings wait in the spool", "store", store, "error", err)
	case !found:
		m.log.Error("recordings.store does not exist: recordings wait in the spool", "store", store)
	}
}
