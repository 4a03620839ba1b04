package member

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"sallyport.dev/cluster"
	"sallyport.dev/recording"
	"sallyport.dev/server"
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

// recordings lets the API read recordings.
type recordings struct{ dir *recording.Dir }

// Ready tells what keeps recordings from being written.
func (r recordings) Ready() error { return r.dir.Ready() }

// Digest implements server.Recordings.
func (r recordings) Digest(name string) (string, int64, error) {
	s, err := r.dir.Summary(name)
	return s.SHA256, s.Size, err
}

// Open implements server.Recordings.
func (r recordings) Open(name string) (server.Recording, int64, error) {
	f, err := r.dir.Open(name)
	if errors.Is(err, recording.ErrNotFound) {
		return nil, 0, fmt.Errorf("recording %s: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}
