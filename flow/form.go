package flow

import (
	"context"
	"errors"
	"time"
)

// Fill checks what a form was filled with: it fills in defaults, refuses fields that the
// form does not have and values that are not allowed, and returns the values in their
// canonical form, with the reason and the duration that they hold. Errors are
// *FieldError.
func (f *Flow) Fill(ctx context.Context, env Env, p Person, given Values) (Values, string, time.Duration, error) {
	return nil, "", 0, errors.ErrUnsupported
}

// FieldError is what is wrong with a field of a form.
type FieldError struct {
	Field   string
	Problem string // what is allowed
}

// Error implements error.
func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

// Has reports whether a person is among people. env answers who is on call; an error of
// it leaves those out and is returned beside the answer.
func (p People) Has(ctx context.Context, env Env, who Person) (bool, error) {
	return false, errors.ErrUnsupported
}

// Has reports whether a node is among nodes.
func (n *Nodes) Has(node Node) bool { return false }

// list reports whether values of the type may be several.
func (t FieldType) list() bool {
	return t == FieldStringList || t == FieldIntList || t == FieldPersonList
}

// Field returns the flow's field of a name, or nil.
func (f *Flow) Field(name string) *Field {
	for i := range f.Fields {
		if f.Fields[i].Name == name {
			return &f.Fields[i]
		}
	}
	return nil
}
