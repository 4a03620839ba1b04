package member

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"sallyport.dev/archive/bucket"
	"sallyport.dev/archive/custody"
	"sallyport.dev/archive/keyring"
	"sallyport.dev/identity"
	"sallyport.dev/node"
	"sallyport.dev/server"
	"sallyport.dev/session"
)

// Retain is how long some recordings are kept; of several rules that are for one, the one
// that keeps it longest counts.
type Retain struct {
	Name string `hcl:"name,label"`
	// NodeTags and OwnerTags are tags that the node, and the person behind the session,
	// bore when it began; Documents are names. All that is given must hold.
	NodeTags  map[string]string `hcl:"node_tags,optional"`
	OwnerTags map[string]string `hcl:"owner_tags,optional"`
	Documents []string          `hcl:"documents,optional"`
	// After is how long, such as 30d, or forever.
	After string `hcl:"after"`
}

// kept are the fields of a Member that recordings are kept and deleted with.
type kept struct {
	ring        *keyring.Ring
	store       *bucket.Bucket
	custody     *custody.Keeper
	stopCustody context.CancelFunc // nil until retention runs
}

// retention returns the rules, or the first mistake, naming the key.
func (r *Recordings) retention() (out custody.Retention, err error) {
	if r.Retain != "" {
		if out.After, err = custody.ParseAge(r.Retain); err != nil {
			return out, fmt.Errorf("recordings.retain: %w", err)
		}
	}
	for _, rule := range r.Rules {
		after, err := custody.ParseAge(rule.After)
		if err != nil {
			return out, fmt.Errorf("recordings.rule %q: after: %w", rule.Name, err)
		}
		out.Rules = append(out.Rules, custody.Rule{
			Name: rule.Name, NodeTags: rule.NodeTags, OwnerTags: rule.OwnerTags, Documents: rule.Documents, After: after,
		})
	}
	if err := out.Check(); err != nil {
		return out, fmt.Errorf("recordings.rule %w", err)
	}
	return out, nil
}

// checkKeys names what is wrong with the keys' URLs.
func (r *Recordings) checkKeys() error {
	if err := keyring.Check(r.Key); err != nil {
		return fmt.Errorf("recordings.key: %w", err)
	}
	for _, old := range r.OldKeys {
		if err := keyring.Check(old); err != nil {
			return fmt.Errorf("recordings.old_keys: %w", err)
		}
	}
	return nil
}

// openKeys opens the keys that wrap recordings' own.
func (m *Member) openKeys(ctx context.Context) (err error) {
	c := m.cfg.Recordings
	wrapped, err := m.Store.RecordingKeys(ctx)
	if err != nil {
		return err
	}
	m.ring, err = keyring.Open(ctx, keyring.Config{
		URL: c.Key, OldURLs: c.OldKeys, CredentialsFile: c.KeyCredentialsFile, Wrapped: wrapped, Logger: m.log, Now: m.cfg.Now,
	})
	if err != nil {
		return fmt.Errorf("recordings.key: %w", err)
	}
	for _, id := range slices.Sorted(maps.Keys(wrapped)) {
		if !m.ring.Has(id) {
			m.log.Error("recordings cannot be read: the key that wraps them is neither key nor among old_keys of the block recordings",
				"key", id, "recordings", wrapped[id])
		}
	}
	return nil
}

// newCustody takes recordings into custody. The archive and the index are open.
func (m *Member) newCustody() error {
	rules, err := m.cfg.Recordings.retention()
	if err != nil {
		return err
	}
	c := custody.Config{
		Store: m.Store, Objects: m.store, Keys: m.ring, Audit: m.Audit, Records: m.Store, Logger: m.log, Retention: rules,
		Subjects: m.recordingSubjects, Verify: m.archive.Verify, Now: m.cfg.Now,
	}
	c.Forget = func(ctx context.Context, id string) error { return m.Store.DeleteTranscript(ctx, id, m.cfg.Now()) }
	if m.index != nil {
		c.Forget = m.index.Delete
	}
	m.custody = custody.New(c)
	return nil
}

// sweepEvery is how often retention looks for what is due.
const sweepEvery = 10 * time.Minute

// startCustody deletes what is due from now on.
func (m *Member) startCustody(ctx context.Context) {
	ctx, m.stopCustody = context.WithCancel(context.WithoutCancel(ctx))
	m.running.Go(func() { m.custody.Run(ctx, sweepEvery) })
	m.running.Go(func() { m.askStore(ctx) })
}

// endCustody has nothing deleted any more; the listeners' end is waited for with it.
func (m *Member) endCustody() {
	if m.stopCustody != nil {
		m.stopCustody()
	}
}

// closeKeys forgets keys.
func (m *Member) closeKeys() {
	if m.ring != nil {
		m.ring.Close()
	}
}

// noteRecording takes down what is known of a recording that begins, by which it is kept
// and read later.
func (m *Member) noteRecording(ctx context.Context, s session.Session, name string) error {
	var f custody.Facts
	n, err := m.Store.Node(ctx, s.NodeID)
	if err != nil && !errors.Is(err, node.ErrNotFound) {
		return fmt.Errorf("noting what is recorded: %w", err)
	}
	f.NodeTags = n.Tags
	u, err := m.Store.UserByID(ctx, s.RootID)
	if err != nil && !errors.Is(err, identity.ErrNotFound) {
		return fmt.Errorf("noting who is recorded: %w", err)
	}
	f.OwnerTags = u.Tags
	subjects, err := subjectsOf(s)
	if err != nil {
		return err
	}
	subjects = append(subjects, custody.Subject{Kind: custody.OfSession, Value: s.ID}, custody.Subject{Kind: custody.OfNode, Value: s.NodeID})
	return m.custody.Note(ctx, name, f, subjects)
}

// recordingSubjects is what a session's recording is about, by its row.
func (m *Member) recordingSubjects(ctx context.Context, id string) ([]custody.Subject, error) {
	s, err := m.Store.Session(ctx, id)
	if errors.Is(err, session.ErrNotFound) {
		return nil, nil // the recording's own row says enough
	}
	if err != nil {
		return nil, err
	}
	return subjectsOf(s)
}

// subjectsOf are the person behind a session, under all names, and the requests whose
// grants it hangs on.
func subjectsOf(s session.Session) ([]custody.Subject, error) {
	var all []custody.Subject
	for _, v := range []string{s.Owner, s.OwnerID, s.RootID} {
		if v != "" {
			all = append(all, custody.Subject{Kind: custody.OfPerson, Value: v})
		}
	}
	grants, err := server.GrantsOf(s)
	for _, id := range grants {
		all = append(all, custody.Subject{Kind: custody.OfRequest, Value: id})
	}
	return all, err
}
