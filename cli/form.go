package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport.dev/client"
)

// Fields that every form has.
const (
	fieldReason   = "reason"
	fieldDuration = "duration"
)

// maxReason bounds a reason, in characters, as AWS does.
const maxReason = 256

// form is a flow's form while it is filled in. The server checks it again.
type form struct {
	flow   client.AccessFlow
	fields []client.AccessField
	values map[string][]string
}

func newForm(flow client.AccessFlow) *form {
	f := &form{flow: flow, fields: slices.Clone(flow.Fields), values: map[string][]string{}}
	for _, always := range []client.AccessField{
		{Name: fieldReason, Type: "string"}, {Name: fieldDuration, Type: "duration"},
	} {
		if f.field(always.Name) == nil {
			f.fields = append(f.fields, always)
		}
	}
	return f
}

func (f *form) field(name string) *client.AccessField {
	i := slices.IndexFunc(f.fields, func(field client.AccessField) bool { return field.Name == name })
	if i < 0 {
		return nil
	}
	return &f.fields[i]
}

// set takes a field's values, which must be allowed. Others count as given, too, so that
// nobody is told that they are missing.
func (f *form) set(name string, values ...string) error {
	field := f.field(name)
	if field == nil {
		return usagef("--set %s: flow %s has no such field; it has %s", client.CleanLine(name), client.CleanLine(f.flow.Name), f.names())
	}
	f.values[name] = values
	checked := make([]string, len(values))
	for i, v := range values {
		var err error
		if checked[i], err = checkValue(field, v); err != nil {
			return usagef("%s: %w", client.CleanLine(flagOf(name)), err)
		}
	}
	if len(checked) > 1 && !isList(field) {
		return usagef("%s: it has one value, and %d are given", client.CleanLine(flagOf(name)), len(checked))
	}
	f.values[name] = checked
	return nil
}

func (f *form) names() string {
	names := make([]string, len(f.fields))
	for i, field := range f.fields {
		names[i] = client.CleanLine(field.Name)
	}
	return strings.Join(names, ", ")
}

// flagOf is how a field is given on the command line.
func flagOf(name string) string {
	switch name {
	case fieldReason, fieldDuration:
		return "--" + name
	}
	return "--set " + name
}

func isList(field *client.AccessField) bool { return strings.HasSuffix(field.Type, "_list") }

// missing are the fields that are required, and neither given nor filled in by default.
func (f *form) missing() []client.AccessField {
	return slices.DeleteFunc(slices.Clone(f.fields), func(field client.AccessField) bool {
		return !field.Required || len(f.values[field.Name]) > 0 || len(field.Default) > 0
	})
}

// usageLines is one error of several about the command line, a line each; nil of none.
func usageLines(errs ...error) error {
	var lines []string
	for _, err := range errs {
		if err != nil {
			lines = append(lines, err.Error())
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return usagef("%s", strings.Join(lines, "\nsallyport: "))
}

// explainMissing says, a line each, what has to be given where nobody can be asked.
func (f *form) explainMissing() (errs []error) {
	for _, field := range f.missing() {
		line := fmt.Sprintf("%s is missing: give %s", client.CleanLine(field.Name), asFlag(field))
		if len(field.Allowed) > 0 {
			line += ", one of " + list(field.Allowed)
		}
		errs = append(errs, errors.New(line))
	}
	return errs
}

// asFlag is how a field is given on the command line, with something in its value's
// place.
func asFlag(field client.AccessField) string {
	switch {
	case field.Name == fieldDuration && len(field.Allowed) > 0:
		return "--duration " + shellQuote(client.CleanLine(field.Allowed[0]))
	case field.Name == fieldDuration:
		return "--duration 30m"
	case field.Name == fieldReason:
		return "--reason TEXT"
	}
	return "--set " + shellQuote(client.CleanLine(field.Name)) + "=VALUE"
}

func list(values []string) string {
	clean := make([]string, len(values))
	for i, v := range values {
		clean[i] = client.CleanLine(v)
	}
	return strings.Join(clean, ", ")
}

// checkValue checks one value of a field as far as can be done here, and returns it as
// the server has it.
func checkValue(field *client.AccessField, value string) (string, error) {
	value = strings.TrimSpace(value)
	if err := typedText(value); err != nil {
		return "", fmt.Errorf("%q: %w", client.CleanLine(value), err)
	}
	if err := checkType(field, value); err != nil {
		return "", err
	}
	if len(field.Allowed) > 0 {
		for _, allowed := range field.Allowed {
			if allowed == value || isDuration(field) && sameLength(allowed, value) {
				return allowed, nil
			}
		}
		return "", fmt.Errorf("%q is not allowed: want %s", client.CleanLine(value), list(field.Allowed))
	}
	if field.Pattern == "" {
		return value, nil
	}
	pattern, err := regexp.Compile("^(?:" + field.Pattern + ")$")
	if err == nil && !pattern.MatchString(value) {
		return "", fmt.Errorf("%q: %s", client.CleanLine(value), client.CleanLine(cmp.Or(field.Message, "it must match "+field.Pattern)))
	}
	return value, nil
}

func isDuration(field *client.AccessField) bool { return field.Type == "duration" }

func checkType(field *client.AccessField, value string) error {
	switch strings.TrimSuffix(field.Type, "_list") {
	case "int":
		if _, err := strconv.ParseInt(value, 10, 64); err != nil {
			return fmt.Errorf("%q: want a whole number", client.CleanLine(value))
		}
	case "bool":
		if value != "true" && value != "false" {
			return fmt.Errorf("%q: want true or false", client.CleanLine(value))
		}
	case "duration":
		if _, err := parseLength(value); err != nil {
			return err
		}
	}
	if field.Name == fieldReason && len([]rune(value)) > maxReason {
		return fmt.Errorf("it has %d characters; %d are allowed", len([]rune(value)), maxReason)
	}
	return nil
}

// parseLength reads how long something is to last: 30m, 1h, 1h30m, 2d.
func parseLength(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n <= 365 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second {
		return 0, fmt.Errorf("%q: want how long, such as 30m, 1h or 2d", client.CleanLine(text))
	}
	return d, nil
}

func sameLength(a, b string) bool {
	x, errX := parseLength(a)
	y, errY := parseLength(b)
	return errX == nil && errY == nil && x == y
}

// lengthText is a duration in few words: 2d, 1h30m, 59m, 45s.
func lengthText(d time.Duration) string {
	d = d.Round(time.Second)
	if d >= 48*time.Hour && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// input is what is asked for, so far.
func (f *form) input() (client.RequestAccessInput, error) {
	in := client.RequestAccessInput{Flow: f.flow.Name, Values: map[string][]string{}, Channel: "cli"}
	for name, values := range f.values {
		switch {
		case len(values) == 0:
		case name == fieldReason:
			in.Reason = values[0]
		case name == fieldDuration:
			d, err := parseLength(values[0])
			if err != nil {
				return in, usagef("--duration %w", err)
			}
			in.Seconds = int64(d / time.Second)
		default:
			in.Values[name] = values
		}
	}
	return in, nil
}

// ask asks a person for what is missing; everything that the form has where all is set,
// else what is required, and the duration where there is a choice.
func (f *form) ask(ctx context.Context, p *program, all bool) error {
	for i := range f.fields {
		field := &f.fields[i]
		choose := field.Name == fieldDuration && len(field.Allowed) > 1
		if len(f.values[field.Name]) > 0 || !all && !field.Required && !choose {
			continue
		}
		values, err := p.askField(ctx, field)
		if err != nil {
			return err
		}
		if len(values) > 0 {
			f.values[field.Name] = values
		}
	}
	return nil
}

// askField asks for a field until the answer is allowed; nothing for one that is left
// out, and where the default is taken.
func (p *program) askField(ctx context.Context, field *client.AccessField) ([]string, error) {
	switch {
	case field.Type == "bool" && len(field.Allowed) == 0:
		yesOrNo := *field
		yesOrNo.Allowed = []string{"true", "false"}
		return p.pickValue(&yesOrNo)
	case len(field.Allowed) > 0 && isList(field):
		return p.pickValues(field)
	case len(field.Allowed) > 0:
		return p.pickValue(field)
	}
	return p.typeValue(ctx, field)
}

func (p *program) typeValue(ctx context.Context, field *client.AccessField) ([]string, error) {
	question := title(fieldTitle(field), nil)
	if field.Help != "" {
		question += " (" + field.Help + ")"
	}
	if isList(field) {
		question += ", apart by commas"
	}
	if len(field.Default) > 0 {
		question += " [" + strings.Join(field.Default, ",") + "]"
	}
	for {
		text, err := p.line(ctx, question+":")
		if err != nil {
			return nil, err
		}
		values, err := typedValues(field, text)
		if err == nil {
			return values, nil
		}
		fmt.Fprintf(p.stderr, "  %s\n", client.CleanLine(err.Error()))
	}
}

// typedValues are the values that a person typed.
func typedValues(field *client.AccessField, text string) ([]string, error) {
	if text == "" {
		if field.Required && len(field.Default) == 0 {
			return nil, fmt.Errorf("it is needed")
		}
		return nil, nil
	}
	parts := []string{text}
	if isList(field) {
		parts = strings.Split(text, ",")
	}
	var values []string
	for _, part := range parts {
		v, err := checkValue(field, part)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

// fieldTitle is what a field is called.
func fieldTitle(field *client.AccessField) string {
	if field.Label != "" {
		return field.Label
	}
	return strings.ToUpper(field.Name[:min(1, len(field.Name))]) + field.Name[min(1, len(field.Name)):]
}

// leaveOut is the line of a list of values that takes none.
const leaveOut = "(none)"

func (p *program) pickValue(field *client.AccessField) ([]string, error) {
	lines := slices.Clone(field.Allowed)
	if !field.Required && len(field.Default) == 0 {
		lines = append(lines, leaveOut)
	}
	cursor := 0
	if len(field.Default) > 0 {
		cursor = max(slices.Index(lines, field.Default[0]), 0)
	}
	i, err := p.choice(fieldTitle(field)+"?", lines, cursor)
	if err != nil || i >= len(field.Allowed) {
		return nil, err
	}
	fmt.Fprintf(p.stderr, "%s: %s\n", client.CleanLine(fieldTitle(field)), client.CleanLine(lines[i]))
	return []string{lines[i]}, nil
}

// pickValues lets a person pick one value after the other.
func (p *program) pickValues(field *client.AccessField) ([]string, error) {
	left, chosen := slices.Clone(field.Allowed), []string(nil)
	for len(left) > 0 {
		lines, done := left, "(that is all)"
		if len(chosen) == 0 {
			done = leaveOut
		}
		if len(chosen) > 0 || !field.Required {
			lines = append(slices.Clone(left), done)
		}
		i, err := p.choice(fieldTitle(field)+"?", lines, 0)
		if err != nil {
			return nil, err
		}
		if i >= len(left) {
			break
		}
		chosen = append(chosen, left[i])
		left = slices.Delete(left, i, i+1)
	}
	fmt.Fprintf(p.stderr, "%s: %s\n", client.CleanLine(fieldTitle(field)), list(chosen))
	return chosen, nil
}
