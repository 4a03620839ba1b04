package member

import (
	"context"
	"errors"
	"fmt"

	"sallyport.dev/cluster"
	"sallyport.dev/session"
)

// routing lets sessions use the cluster.
type routing struct{ *cluster.Cluster }

// Members implements session.Cluster.
func (r routing) Members() []session.Member {
	var members []session.Member
	for _, m := range r.Cluster.Members() {
		members = append(members, session.Member{ID: m.ID, URL: m.URL})
	}
	return members
}

// Serve implements session.Cluster.
func (r routing) Serve(subject string, h func(context.Context, []byte) ([]byte, error)) (func(), error) {
	return r.Cluster.Serve(subject, h)
}

// Request implements session.Cluster.
func (r routing) Request(ctx context.Context, subject string, data []byte) ([]byte, error) {
	answer, err := r.Cluster.Request(ctx, subject, data)
	if errors.Is(err, cluster.ErrNoResponder) {
		return nil, fmt.Errorf("%w: %s", session.ErrNoResponder, subject)
	}
	return answer, err
}
