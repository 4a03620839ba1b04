package grant

import (
	"context"
	"errors"
	"time"

	"sallyport.dev/flow"
)

// Draft returns an engine that answers as this one would if other flow files were in force
// and other people about: for rehearsing. Nothing is stored, recorded or told, and its
// clocks stand still.
func (e *Engine) Draft(set *flow.Set, files map[string][]byte, d Directory, p Policies) *Engine {
	c := e.config
	c.Store = draftStore{c.Store, files, set.Digest}
	c.Directory, c.Policies = d, p
	draft := New(c)
	draft.draft = true
	return draft
}

// codeEnv is what code runs against.
func (v *view) codeEnv(at time.Time) flow.Env {
	if v.e.draft || v.rehearse {
		return draftEnv{v.env(at)}
	}
	return v.env(at)
}

// draftEnv keeps code from the net: what it asks there might do something.
type draftEnv struct{ env }

// Fetch implements flow.Fetcher.
func (draftEnv) Fetch(context.Context, flow.Fetch) (flow.Fetched, error) {
	return flow.Fetched{}, errors.New("a rehearsal asks nobody on the net")
}

// errDraft keeps a draft from changing anything.
var errDraft = errors.New("a draft changes nothing")

// draftStore has other flow files, and takes nothing.
type draftStore struct {
	Store
	files  map[string][]byte
	digest string
}

func (s draftStore) CreateRequest(context.Context, Request, []Event) error { return errDraft }

func (s draftStore) UpdateRequest(context.Context, string, func(*Request) ([]Event, error)) (Request, error) {
	return Request{}, errDraft
}

func (s draftStore) Told(context.Context, []int64) error { return errDraft }

func (s draftStore) Flows(context.Context) (map[string][]byte, string, error) {
	return s.files, s.digest, nil
}

func (s draftStore) FlowsDigest(context.Context) (string, error) { return s.digest, nil }

func (s draftStore) FlowsBy(ctx context.Context, digest string) (map[string][]byte, error) {
	if digest == s.digest {
		return s.files, nil
	}
	return s.Store.FlowsBy(ctx, digest)
}

func (s draftStore) PutFlows(context.Context, map[string][]byte, string, string, string, time.Time) (bool, error) {
	return false, errDraft
}
