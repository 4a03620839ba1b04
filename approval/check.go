package approval

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sallyport.dev/document"
)

// ErrLimit is returned for one document more than there may be.
var ErrLimit = fmt.Errorf("there may be at most %d documents of type %s", maxManual, document.TypeManualApproval)

// ContentError is what is wrong with a document beside the others and the people there
// are.
type ContentError struct{ Document, Problem string }

// Error implements error.
func (e *ContentError) Error() string {
	if e.Document == "" {
		return e.Problem
	}
	return fmt.Sprintf("document %q: %s", e.Document, e.Problem)
}

func wrong(format string, args ...any) error {
	return &ContentError{Problem: fmt.Sprintf(format, args...)}
}

// Is reports whether a type of documents is one that this package reads.
func Is(kind string) bool {
	return kind == document.TypeManualApproval || kind == document.TypeAutoApproval
}

// Parse reads a document of such a type by itself. Errors say where it is wrong and
// what is allowed.
func Parse(name, kind, content string) (*document.Document, error) {
	special := name == document.AutoApproval || name == document.DenyAccess
	switch {
	case kind == document.TypeManualApproval && special:
		return nil, fmt.Errorf("the name %s is that of a document of type %s", name, document.TypeAutoApproval)
	case kind == document.TypeManualApproval:
		return document.ParseApproval(name, []byte(content))
	case !special:
		return nil, fmt.Errorf("a document of type %s is named %s, or %s for the deny-access policy; there is one of each", kind, document.AutoApproval, document.DenyAccess)
	}
	if err := CheckCedar(name, content); err != nil {
		return nil, err
	}
	return document.Opaque(name, kind, content), nil
}

// Check tells whether a document may come into force beside those that are: approvers
// must exist, and no other document may be for the same tags. Two that are made at the
// same moment pass, and then neither lets anybody in: see Manual.
func (r *Rules) Check(ctx context.Context, d *document.Document) error {
	if d.Approval == nil {
		return nil
	}
	err := r.check(ctx, d)
	if e := (*ContentError)(nil); errors.As(err, &e) {
		return &ContentError{d.Name, err.Error()}
	}
	return err
}

func (r *Rules) check(ctx context.Context, d *document.Document) error {
	if err := r.checkPeople(ctx, d.Approval); err != nil {
		return err
	}
	others, err := r.manuals(ctx)
	if err != nil {
		return err
	}
	others = slices.DeleteFunc(others, func(m manual) bool { return m.name == d.Name })
	if len(others) >= maxManual {
		return ErrLimit
	}
	for _, o := range others {
		if err := clash(d.Approval, o); err != nil {
			return err
		}
	}
	return nil
}

// clash refuses two documents that a node might both be under by the same tag.
func clash(a *document.Approval, o manual) error {
	if len(a.Targets) == 0 && len(o.Targets) == 0 {
		return wrong("targets: document %s is for all nodes already", o.name)
	}
	for _, s := range a.Targets {
		for _, t := range o.Targets {
			for _, v := range s.Values {
				if s.Tag == t.Tag && slices.Contains(t.Values, v) {
					return wrong("targets: nodes with the tag %s=%s are those of document %s already", s.Tag, v, o.name)
				}
			}
		}
	}
	return nil
}

func (r *Rules) checkPeople(ctx context.Context, a *document.Approval) error {
	for i, level := range a.Levels {
		if err := r.checkNames(ctx, level.Approvers); err != nil {
			return fmt.Errorf("level %d: %w", i+1, err)
		}
	}
	if err := r.checkNames(ctx, a.Requesters); err != nil {
		return fmt.Errorf("requesters: %w", err)
	}
	return nil
}

func (r *Rules) checkNames(ctx context.Context, names []document.Named) error {
	for _, n := range names {
		if n.Account != "" && n.Account != r.config.Realm.Account {
			return wrong("%s is of account %s; this is %s", n, n.Account, r.config.Realm.Account)
		}
		known, err := r.known(ctx, n)
		if err != nil {
			return err
		}
		if !known {
			return wrong("there is no %s", wordsOf(n))
		}
	}
	return nil
}

func (r *Rules) known(ctx context.Context, n document.Named) (bool, error) {
	switch n.Kind {
	case "user":
		return exists(r.config.Directory.User(ctx, n.Name))
	case "group":
		return exists(r.config.Directory.Group(ctx, n.Name))
	}
	kind, err := r.kind(ctx, n.Name)
	return kind != "", err
}

func wordsOf(n document.Named) string {
	if n.Kind == "" {
		return fmt.Sprintf("user or group %q", n.Name)
	}
	return fmt.Sprintf("%s %q", n.Kind, n.Name)
}
