package flow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds on what a form is filled with.
const (
	maxText   = 1000 // characters of one value
	maxValues = 100  // of one field
)

// Form returns the questions of a flow: its fields, with the reason and the duration
// where it does not word these itself.
func (f *Flow) Form() []Field {
	form := slices.Clone(f.Fields)
	if f.Field(FieldReason) == nil {
		form = append(form, Field{Name: FieldReason, Label: "Reason", Type: FieldString, Required: true})
	}
	if f.Field(FieldTime) == nil {
		form = append(form, Field{Name: FieldTime, Label: "For how long", Type: FieldDuration,
			Default: []string{FormatDuration(f.Clocks.Default)}})
	}
	return form
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

// Fill checks what a form was filled with: it fills in defaults, refuses fields that the
// form does not have and values that are not allowed, and returns the values in their
// canonical form, with the reason and the duration that they hold. Errors are
// FieldErrors, all that there are, or of the flow's code and env.
func (f *Flow) Fill(ctx context.Context, env Env, p Person, given Values) (Values, string, time.Duration, error) {
	form := f.Form()
	wrong := unknownFields(form, given)
	filled := Values{}
	for _, field := range form {
		values, err := f.fillField(ctx, env, p, field, given[field.Name])
		if err = wrong.take(err); err != nil {
			return nil, "", 0, err
		}
		if len(values) > 0 {
			filled[field.Name] = values
		}
	}
	for_, err := f.duration(filled)
	if err = wrong.take(err); err != nil {
		return nil, "", 0, err
	}
	if len(wrong) > 0 {
		return nil, "", 0, wrong
	}
	reason := ""
	if said := filled[FieldReason]; len(said) > 0 {
		reason = said[0]
	}
	return filled, reason, for_, nil
}

// unknownFields refuses what the form does not ask.
func unknownFields(form []Field, given Values) (wrong FieldErrors) {
	names := make([]string, len(form))
	for i, field := range form {
		names[i] = field.Name
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(names, name) {
			wrong = append(wrong, &FieldError{name, "the form has no such field; it has " + strings.Join(names, ", ")})
		}
	}
	return wrong
}

// duration is how long is asked for, within the flow's clock.
func (f *Flow) duration(filled Values) (time.Duration, error) {
	asked := f.Clocks.Default
	if said := filled[FieldTime]; len(said) > 0 {
		d, err := ParseDuration(said[0])
		if err != nil {
			return 0, &FieldError{FieldTime, err.Error()}
		}
		asked = d
	}
	if asked < time.Second || f.Clocks.Longest > 0 && asked > f.Clocks.Longest {
		return 0, &FieldError{FieldTime, "want from 1s to " + FormatDuration(f.Clocks.Longest)}
	}
	filled[FieldTime] = []string{FormatDuration(asked)}
	return asked, nil
}

// fillField returns the canonical values of one field.
func (f *Flow) fillField(ctx context.Context, env Env, p Person, field Field, given []string) ([]string, error) {
	values, err := field.clean(ctx, env, given)
	if err != nil {
		return nil, err
	}
	if len(values) == 0 {
		if values, err = field.clean(ctx, env, field.Default); err != nil {
			return nil, err
		}
	}
	if len(values) == 0 {
		if field.Required {
			return nil, &FieldError{field.Name, "is required" + field.hint()}
		}
		return nil, nil
	}
	if field.Options != "" {
		if field, err = f.Offer(ctx, env, p, field); err != nil {
			return nil, err
		}
	}
	if err := field.check(values); err != nil {
		return nil, err
	}
	return values, nil
}

// Offer returns a field as it is for a person: with the allowed values that the flow's
// code computes, if it does.
func (f *Flow) Offer(ctx context.Context, env Env, p Person, field Field) (Field, error) {
	if field.Options == "" {
		return field, nil
	}
	if f.Code == nil {
		return field, fmt.Errorf("field %s: the flow has no code to ask for %s", field.Name, field.Options)
	}
	options, err := f.Code.Options(ctx, env, field.Options, p)
	if err != nil {
		return field, fmt.Errorf("field %s: %w", field.Name, err)
	}
	field.Allowed = make([]string, 0, len(options))
	for _, option := range options {
		value, err := field.canonical(ctx, env, option)
		if err != nil {
			return field, fmt.Errorf("field %s: %s: %w", field.Name, field.Options, err)
		}
		field.Allowed = append(field.Allowed, value)
	}
	return field, nil
}

// clean returns values in canonical form, without empty ones.
func (field Field) clean(ctx context.Context, env Env, given []string) ([]string, error) {
	if len(given) > maxValues {
		return nil, &FieldError{field.Name, fmt.Sprintf("at most %d values", maxValues)}
	}
	var values []string
	for _, v := range given {
		if strings.TrimSpace(v) == "" {
			continue
		}
		value, err := field.canonical(ctx, env, v)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(values, value) {
			values = append(values, value)
		}
	}
	if len(values) > 1 && !field.Type.list() {
		return nil, &FieldError{field.Name, "want one value"}
	}
	return values, nil
}

// canonical is the one way to write a value of the field's type.
func (field Field) canonical(ctx context.Context, env Env, value string) (string, error) {
	text, err := plainText(value)
	if err != nil {
		return "", &FieldError{field.Name, err.Error()}
	}
	wrong := func(want string) (string, error) { return "", &FieldError{field.Name, want} }
	switch field.Type {
	case FieldString, FieldStringList, "":
		return text, nil
	case FieldInt, FieldIntList:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return wrong("want a whole number")
		}
		return strconv.FormatInt(n, 10), nil
	case FieldBool:
		if text != "true" && text != "false" {
			return wrong("want true or false")
		}
		return text, nil
	case FieldDuration:
		d, err := ParseDuration(text)
		if err != nil || d == 0 {
			return wrong(errDuration.Error())
		}
		return FormatDuration(d), nil
	case FieldPerson, FieldPersonList:
		if env == nil {
			return text, nil
		}
		p, err := env.Person(ctx, text)
		if err != nil {
			return wrong(fmt.Sprintf("there is no user %q", text))
		}
		return p.Name, nil
	}
	return wrong(fmt.Sprintf("is of an unknown type %q", field.Type))
}

// plainText refuses what could forge a line or hide one where the text is shown, in
// terminals, chats and records. Line ends and tabs become spaces.
func plainText(text string) (string, error) {
	if !utf8.ValidString(text) {
		return "", errors.New("is not UTF-8")
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool {
		return r == '\n' || r == '\r' || r == '\t' || r == '\u2028' || r == '\u2029'
	}), " ")
	text = strings.TrimSpace(text)
	if strings.ContainsFunc(text, hidden) {
		return "", errors.New("holds control characters; want plain text")
	}
	if n := utf8.RuneCountInString(text); n > maxText {
		return "", fmt.Errorf("has %d characters; at most %d", n, maxText)
	}
	return text, nil
}

// hidden reports whether a character steers terminals or the direction of text.
func hidden(r rune) bool {
	return unicode.IsControl(r) || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 ||
		r == 0x200e || r == 0x200f || r == 0x061c || r == 0xfeff || r >= 0xe0000 && r <= 0xe007f
}

// check refuses values that are not allowed.
func (field Field) check(values []string) error {
	var pattern *regexp.Regexp
	if field.Pattern != "" {
		var err error
		if pattern, err = wholePattern(field.Pattern); err != nil {
			return &FieldError{field.Name, err.Error()}
		}
	}
	limited := len(field.Allowed) > 0 || field.Options != ""
	for _, v := range values {
		if limited && !slices.Contains(field.Allowed, v) || pattern != nil && !pattern.MatchString(v) {
			return &FieldError{field.Name, fmt.Sprintf("%q is not allowed%s", v, field.hint())}
		}
	}
	return nil
}

// hint says what is allowed.
func (field Field) hint() string {
	switch {
	case field.Message != "":
		return ": " + field.Message
	case len(field.Allowed) > 0:
		return "; want " + oneOf(field.Allowed)
	case field.Options != "":
		return "; there is nothing that you may choose"
	case field.Pattern != "":
		return "; want what matches " + field.Pattern
	}
	return ""
}

// oneOf lists what is allowed, not too much of it; allOf what there is.
func oneOf(allowed []string) string { return enumerated(allowed, "or") }

func allOf(there []string) string { return enumerated(there, "and") }

func enumerated(all []string, and string) string {
	const most = 20
	if len(all) > most {
		return strings.Join(all[:most], ", ") + fmt.Sprintf(" %s %d others", and, len(all)-most)
	}
	if n := len(all); n > 1 {
		return strings.Join(all[:n-1], ", ") + " " + and + " " + all[n-1]
	}
	return strings.Join(all, "")
}

// FieldError is what is wrong with a field of a form.
type FieldError struct {
	Field   string
	Problem string // what is allowed
}

// Error implements error.
func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

// FieldErrors are all that is wrong with a form, in the order of its fields. The first is
// found by errors.As as a *FieldError.
type FieldErrors []*FieldError

// Error implements error.
func (e FieldErrors) Error() string {
	all := make([]string, len(e))
	for i, one := range e {
		all[i] = one.Error()
	}
	return strings.Join(all, "; ")
}

// Unwrap returns them one by one.
func (e FieldErrors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

// take adds an error that is about a field, and returns any other.
func (e *FieldErrors) take(err error) error {
	field, ok := err.(*FieldError) // not one that is wrapped: code's options say more
	if !ok {
		return err
	}
	*e = append(*e, field)
	return nil
}

// list reports whether values of the type may be several.
func (t FieldType) list() bool {
	return t == FieldStringList || t == FieldIntList || t == FieldPersonList
}
