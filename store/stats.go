package store

import "context"

// Backlog is what waits in the store, for all members together.
type Backlog struct {
	Requests   int64 // requests for access that wait for a decision
	Deliveries int64 // notifications that wait to be delivered
}

// Backlog counts what waits. The second condition on requests is the one of their index.
func (s *Store) Backlog(ctx context.Context) (b Backlog, err error) {
	t := s.read(ctx)
	if b.Requests, err = t.count("SELECT count(*) FROM requests WHERE state = 'Pending' AND state IN ('Pending', 'Approved', 'Active')"); err == nil {
		b.Deliveries, err = t.count("SELECT count(*) FROM notify_deliveries WHERE state = 'waiting'")
	}
	return b, wrap("counting what waits", err)
}
