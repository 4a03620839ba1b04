package grant

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"unicode/utf8"

	"sallyport.dev/audit"
	"sallyport.dev/flow"
)

// flowCache keeps flow files, read.
type flowCache struct {
	mu   sync.Mutex
	sets map[string]*flow.Set // by digest
}

// maxSets bounds the sets kept; a full cache is emptied.
const maxSets = 32

func (c *flowCache) get(digest string) *flow.Set {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sets[digest]
}

func (c *flowCache) put(digest string, set *flow.Set) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sets == nil || len(c.sets) >= maxSets {
		c.sets = map[string]*flow.Set{}
	}
	c.sets[digest] = set
}

// setBy returns the flow files of a digest, which may be older ones. The empty digest is
// that of no files.
func (e *Engine) setBy(ctx context.Context, digest string) (*flow.Set, error) {
	if digest == "" {
		return &flow.Set{}, nil
	}
	if set := e.flows.get(digest); set != nil {
		return set, nil
	}
	files, err := e.config.Store.FlowsBy(ctx, digest)
	if err != nil {
		return nil, err
	}
	set, err := flow.Parse(files)
	if err != nil {
		return nil, fmt.Errorf("reading flows: %w", err)
	}
	e.flows.put(digest, set)
	return set, nil
}

// Flows returns the flows in force: of the files and of the rules. Of two of one name
// that of the files counts.
func (e *Engine) Flows(ctx context.Context) (*flow.Set, error) {
	digest, err := e.config.Store.FlowsDigest(ctx)
	if err != nil {
		return nil, err
	}
	set, err := e.setBy(ctx, digest)
	if err != nil || e.config.Rules == nil {
		return set, err
	}
	more, err := e.config.Rules.Flows(ctx)
	if err != nil {
		// The files' flows are none of the documents' business.
		e.config.Logger.Error("reading the flows of approval documents", "error", err)
		return set, nil
	}
	if len(more) == 0 {
		return set, nil
	}
	all := &flow.Set{Digest: set.Digest, Flows: map[string]*flow.Flow{}, Schedules: set.Schedules}
	for _, f := range more {
		all.Flows[f.Name] = f
	}
	maps.Copy(all.Flows, set.Flows)
	return all, nil
}

// Files returns the flow files in force, and their digest; none at first.
func (e *Engine) Files(ctx context.Context) (map[string][]byte, string, error) {
	return e.config.Store.Flows(ctx)
}

// ErrFlowsChanged is returned where other flow files are in force than those that were
// to be replaced.
var ErrFlowsChanged = errors.New("other flows are in force by now")

// Bounds of flow files.
const (
	maxFlowFiles = 200
	maxFlowBytes = 1 << 20 // all of them
)

// CheckFlows reads flow files as PutFlows does, and puts nothing in force.
func (e *Engine) CheckFlows(files map[string][]byte) (*flow.Set, error) {
	size := 0
	for name, text := range files {
		size += len(text)
		if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
			return nil, &flow.FieldError{Field: clip(name, 64), Problem: "is not UTF-8 text"}
		}
	}
	if len(files) > maxFlowFiles || size > maxFlowBytes {
		return nil, fmt.Errorf("%d flow files of %d bytes: at most %d of %d bytes are allowed", len(files), size, maxFlowFiles, maxFlowBytes)
	}
	return flow.Parse(files)
}

// PutFlows checks flow files and puts them in force if those in force are still the ones
// of digest old. It returns the new digest. Requests keep the flows that they were made
// under.
func (e *Engine) PutFlows(ctx context.Context, a Actor, files map[string][]byte, old string) (string, error) {
	if e.config.Folder != "" {
		return "", refuse("this server reads its flows from %s", e.config.Folder)
	}
	return e.putFlows(ctx, a.Principal.ARN, files, old)
}

// LoadFlows puts the flow files of the server's own folder in force, if they are not.
func (e *Engine) LoadFlows(ctx context.Context, files map[string][]byte) error {
	for range maxTries {
		old, err := e.config.Store.FlowsDigest(ctx)
		if err != nil {
			return err
		}
		if _, err = e.putFlows(ctx, "local", files, old); !errors.Is(err, ErrFlowsChanged) {
			return err
		}
	}
	return ErrFlowsChanged
}

func (e *Engine) putFlows(ctx context.Context, by string, files map[string][]byte, old string) (string, error) {
	set, err := e.CheckFlows(files)
	if err != nil {
		return "", err
	}
	now, err := e.config.Store.FlowsDigest(ctx)
	if err != nil {
		return "", err
	}
	if now != old {
		return "", ErrFlowsChanged
	}
	if set.Digest == old {
		return old, nil
	}
	// Before it is done, as all changes: what is not in the audit log does not happen.
	if err := e.recordFlows(ctx, by, set, old); err != nil {
		return "", err
	}
	put, err := e.config.Store.PutFlows(ctx, files, set.Digest, old, by, e.now())
	if err == nil && !put {
		err = ErrFlowsChanged
	}
	if err != nil {
		return "", err
	}
	e.waits.wake()
	return set.Digest, nil
}

func (e *Engine) recordFlows(ctx context.Context, by string, set *flow.Set, old string) error {
	if e.config.Audit == nil {
		return nil
	}
	_, err := e.config.Audit.Append(ctx, audit.Record{
		Event: audit.EventChange, Principal: by, Action: "sallyport:PutFlows", Resources: []string{e.FlowARN("*")},
		Reason:  fmt.Sprintf("%d flows put in force", len(set.Flows)),
		Details: map[string]string{"digest": set.Digest, "old_digest": old},
	})
	return err
}
