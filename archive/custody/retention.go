package custody

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport.dev/archive"
	"sallyport.dev/audit"
	"sallyport.dev/internal/tags"
	"sallyport.dev/recording"
)

// Retention says how long recordings are kept.
type Retention struct {
	// After is when those are deleted that no rule is for, since their end; 0 is never.
	After time.Duration
	// Rules are for some recordings. Of several the one that keeps them longest counts.
	Rules []Rule
}

// Rule is for recordings that all of its conditions hold for.
type Rule struct {
	Name      string
	NodeTags  map[string]string // tags that the node bore when the session began
	OwnerTags map[string]string // and the session's owner
	Documents []string
	After     time.Duration // 0 is never
}

// Principal is by whom retention deletes, in rows and the audit log.
const Principal = "sallyport:retention"

// defaultRule is what the rule is called that is for all others.
const defaultRule = "retain"

var days = regexp.MustCompile(`^([0-9]{1,6})(h|d)$`)

// ParseAge reads a time such as 365d or 12h, or forever, which is 0.
func ParseAge(text string) (time.Duration, error) {
	if text == "forever" {
		return 0, nil
	}
	m := days.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%q: want forever, or a number of days or hours such as 365d or 12h", text)
	}
	n, err := strconv.Atoi(m[1])
	unit := time.Hour
	if m[2] == "d" {
		unit = 24 * time.Hour
	}
	if err != nil || n < 1 || n > int(100*365*24*time.Hour/unit) {
		return 0, fmt.Errorf("%q: want at least an hour, and at most 100 years", text)
	}
	return time.Duration(n) * unit, nil
}

// Empty reports whether nothing is ever deleted.
func (r Retention) Empty() bool {
	return r.After == 0 && !slices.ContainsFunc(r.Rules, func(r Rule) bool { return r.After > 0 })
}

// fingerprint tells plans apart.
func (r Retention) fingerprint() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic("custody: " + err.Error()) // strings and numbers
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// of returns when a recording is to be deleted, zero for never, and by which rule.
func (r Retention) of(row archive.Row, f Facts) (at time.Time, rule string) {
	after, rule := r.After, defaultRule
	found := false
	for _, candidate := range r.Rules {
		if candidate.covers(row, f) && (!found || longer(candidate.After, after)) {
			after, rule, found = candidate.After, candidate.Name, true
		}
	}
	if after == 0 || row.Ended.IsZero() {
		return time.Time{}, rule
	}
	return row.Ended.Add(after), rule
}

// longer reports whether a keeps longer than b.
func longer(a, b time.Duration) bool { return b != 0 && (a == 0 || a > b) }

func (r Rule) covers(row archive.Row, f Facts) bool {
	if len(r.Documents) > 0 && !slices.Contains(r.Documents, row.Document) {
		return false
	}
	return bears(f.NodeTags, r.NodeTags) && bears(f.OwnerTags, r.OwnerTags)
}

// bears reports whether tags have all values wanted; one of several values is enough.
func bears(have tags.Tags, want map[string]string) bool {
	for key, value := range want {
		if !slices.Contains(have.Values(key), value) {
			return false
		}
	}
	return true
}

const (
	// sweepPage is how many recordings are taken from the store at a time.
	sweepPage = 200
	// purgeAgain is how long after its condemnation a recording is purged again, of which
	// something was left.
	purgeAgain = 10 * time.Minute
)

// Sweep deletes what is due, and what was left of what was deleted. Members may sweep at
// the same time. It stops at the first error of the audit log or the database; what the
// store of recordings refuses is tried at the next time.
func (k *Keeper) Sweep(ctx context.Context) error {
	if err := k.purgeLeft(ctx); err != nil {
		return err
	}
	if err := k.planAll(ctx); err != nil {
		return err
	}
	if k.cfg.Retention.Empty() {
		return nil
	}
	return k.deleteDue(ctx)
}

// planAll finds out when recordings are due that this plan was not applied to.
func (k *Keeper) planAll(ctx context.Context) error {
	for {
		names, err := k.cfg.Store.UnplannedRecordings(ctx, k.plan, sweepPage)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if err := k.planOne(ctx, name); err != nil {
				return fmt.Errorf("finding out when recording %s is due: %w", name, err)
			}
		}
	}
}

func (k *Keeper) planOne(ctx context.Context, name string) error {
	row, err := k.cfg.Store.Recording(ctx, name)
	if err != nil {
		return err
	}
	state, err := k.cfg.Store.RecordingState(ctx, name)
	if err != nil {
		return err
	}
	at, rule := k.cfg.Retention.of(row, state.Facts)
	return k.cfg.Store.PlanRecording(ctx, name, k.plan, rule, at)
}

// Until tells until when a recording is kept that has ended, zero for forever, and by which
// rule.
func (k *Keeper) Until(ctx context.Context, row archive.Row) (at time.Time, rule string, err error) {
	state, err := k.cfg.Store.RecordingState(ctx, row.Name)
	if err != nil {
		return time.Time{}, "", err
	}
	at, rule = k.cfg.Retention.of(row, state.Facts)
	return at, rule, nil
}

func (k *Keeper) deleteDue(ctx context.Context) error {
	for after := ""; ; {
		names, err := k.cfg.Store.DueRecordings(ctx, k.plan, k.cfg.Now(), after, sweepPage)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if err := k.deleteOne(ctx, name); err != nil {
				return fmt.Errorf("deleting recording %s by retention: %w", name, err)
			}
			after = name
		}
	}
}

// deleteOne deletes by retention; what is held or busy is left for another time.
func (k *Keeper) deleteOne(ctx context.Context, name string) error {
	row, err := k.cfg.Store.Recording(ctx, name)
	if err != nil {
		return err
	}
	// The rule is asked again: who can write to the database alone moves no date.
	at, rule, err := k.Until(ctx, row)
	if err != nil {
		return err
	}
	if at.IsZero() || at.After(k.cfg.Now()) {
		k.cfg.Logger.Error("somebody changed when a recording is due; the rule stands", "recording", name, "rule", rule)
		return k.cfg.Store.PlanRecording(ctx, name, k.plan, rule, at)
	}
	reason := "kept as long as the rule " + strconv.Quote(rule) + " says"
	err = k.Delete(ctx, Deletion{Name: name, By: Principal, Reason: reason, plan: k.plan, rule: rule})
	held, left := (*HeldError)(nil), (*PurgeError)(nil)
	if errors.As(err, &held) || errors.As(err, &left) || errors.Is(err, ErrBusy) || errors.Is(err, ErrDeleted) ||
		errors.Is(err, ErrUnstored) || errors.Is(err, ErrNotDue) || errors.Is(err, recording.ErrNotFound) {
		return ctx.Err()
	}
	return err
}

// purgeLeft tries again what the store refused. It believes the audit log, not the row: who
// can write to the database alone has nothing deleted.
func (k *Keeper) purgeLeft(ctx context.Context) error {
	for after := ""; ; {
		names, err := k.cfg.Store.UnpurgedRecordings(ctx, k.cfg.Now().Add(-purgeAgain), after, sweepPage)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			row, err := k.cfg.Store.Recording(ctx, name)
			if err != nil {
				return err
			}
			told, err := k.isDeletionTold(ctx, row)
			if err != nil {
				return err
			}
			if told {
				k.purge(ctx, row) // it notes and logs how that went
			} else if err := k.refusePurge(ctx, row); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			after = name
		}
	}
}

// deletionRecords bounds how many records of one session are looked at for its deletion.
const deletionRecords = 100

// isDeletionTold reports whether the audit log tells of a recording's deletion. That the log
// is whole is for its checkpoints to show.
func (k *Keeper) isDeletionTold(ctx context.Context, row archive.Row) (bool, error) {
	records, err := k.cfg.Records.Audit(ctx, audit.Filter{
		Session: row.Session, Event: audit.EventRecording, Action: actionDelete, Newest: true, Limit: deletionRecords,
	})
	return slices.ContainsFunc(records, func(r audit.Record) bool {
		sum, err := audit.Sum(r)
		return err == nil && sum == r.Hash && r.Event == audit.EventRecording && r.Action == actionDelete && r.Details["recording"] == row.Name
	}), err
}

// untold is the problem of a recording that its row alone says was deleted.
const untold = "the audit log does not tell of its deletion: somebody else wrote to the database, and nothing of the recording is removed"

func (k *Keeper) refusePurge(ctx context.Context, row archive.Row) error {
	k.cfg.Logger.Error("a recording is deleted by its row alone", "recording", row.Name, "problem", untold)
	return k.cfg.Store.PurgedRecording(ctx, row.Name, k.cfg.Now(), untold)
}

// Run sweeps now and from time to time, until the context ends.
func (k *Keeper) Run(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		if err := k.Sweep(ctx); err != nil && ctx.Err() == nil {
			k.cfg.Logger.Error("retention of recordings has stopped until the next time", "error", err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// Check names what is wrong with rules.
func (r Retention) Check() error {
	seen := map[string]bool{defaultRule: true}
	for _, rule := range r.Rules {
		if strings.TrimSpace(rule.Name) == "" || seen[rule.Name] {
			return fmt.Errorf("%q: want a name that no other rule has", rule.Name)
		}
		seen[rule.Name] = true
		if len(rule.NodeTags)+len(rule.OwnerTags)+len(rule.Documents) == 0 {
			return fmt.Errorf("%q: want node_tags, owner_tags or documents; what is for all is retain", rule.Name)
		}
	}
	return nil
}
