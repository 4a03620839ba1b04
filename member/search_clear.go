package member

import (
	"context"
	"errors"
	"fmt"

	"sallyport.dev/archive"
)

// ClearIndex deletes what the search index holds, and returns of how many sessions it held
// something. The configuration must switch the index off, and the member must not run: the
// deletion is a record of its chain in the audit log, and is not done without.
func ClearIndex(ctx context.Context, cfg Config) (sessions int64, err error) {
	if cfg.Search.enabled() {
		return 0, errors.New("search.index: the index is on, and would be made again of the recordings: set search { index = false } first")
	}
	unlock, err := archive.LockSpool(cfg.Recordings.Spool)
	if err != nil {
		return 0, fmt.Errorf("stop the server first: %w", err)
	}
	defer unlock()
	s, err := OpenState(ctx, cfg)
	if err != nil {
		return 0, err
	}
	if err := s.changed(ctx, "sallyport:ClearIndex", "search-index"); err != nil {
		return 0, errors.Join(err, s.Close())
	}
	sessions, err = s.Store.ClearTranscripts(ctx)
	return sessions, errors.Join(err, s.Close())
}
