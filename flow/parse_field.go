package flow

import (
	"context"
	"slices"
	"strings"
)

// fieldTypes are the types that fields may have, the usual one first.
var fieldTypes = [...]string{
	string(FieldString), string(FieldStringList), string(FieldInt), string(FieldIntList),
	string(FieldBool), string(FieldDuration), string(FieldPerson), string(FieldPersonList),
}

// fields reads the form; reason and duration are always in it.
func (p *parser) fields(r *reader, f *Flow) []Field {
	var out []Field
	for _, b := range r.all("field", maxFields) {
		field := p.field(b)
		if slices.ContainsFunc(out, func(o Field) bool { return o.Name == field.Name }) {
			b.wrong(b.at, "there are two of this name")
		}
		standardField(&field, f.Clocks)
		p.checkField(b, field, f)
		out = append(out, field)
	}
	return (&Flow{Fields: out, Clocks: f.Clocks}).Form()
}

func (p *parser) field(r *reader) Field {
	field := Field{
		Name:     r.label(),
		Label:    r.text("label"),
		Help:     r.text("help"),
		Type:     FieldType(r.choice("type", fieldTypes[:]...)),
		Required: r.flag("required"),
		Default:  r.plain("default"),
		Allowed:  r.plain("allowed"),
		Pattern:  r.text("pattern"),
		Message:  r.text("message"),
		Options:  r.text("options"),
	}
	_, given := r.body.Attributes["type"]
	if field.Name == FieldTime && !given {
		field.Type = FieldDuration
	}
	if _, given := r.body.Attributes["required"]; field.Name == FieldReason && !given {
		field.Required = true
	}
	r.done()
	return field
}

// standardField words what reason and duration leave out.
func standardField(field *Field, c Clocks) {
	for _, standard := range (&Flow{Clocks: c}).Form() {
		if field.Name != standard.Name {
			continue
		}
		if field.Label == "" {
			field.Label = standard.Label
		}
		if len(field.Default) == 0 && !field.Required {
			field.Default = standard.Default
		}
	}
}

func (p *parser) checkField(r *reader, field Field, f *Flow) {
	if len(field.Name) > maxName || !fieldForm.MatchString(field.Name) {
		r.wrong(r.at, "want a name of small letters, digits and underscores, starting with a letter")
	}
	if field.Name == FieldReason && field.Type != FieldString {
		r.wrong(r.where("type"), "the reason is of type %s", FieldString)
	}
	if field.Name == FieldTime && field.Type != FieldDuration {
		r.wrong(r.where("type"), "the duration is of type %s", FieldDuration)
	}
	if field.Pattern != "" {
		if _, err := wholePattern(field.Pattern); err != nil {
			r.wrong(r.where("pattern"), "pattern: %v", err)
			return
		}
	}
	if field.Message != "" && field.Pattern == "" && len(field.Allowed) == 0 && field.Options == "" {
		r.wrong(r.where("message"), "message is for pattern, allowed or options, of which there is none")
	}
	p.checkOptions(r, field, f)
	p.checkValues(r, field, f)
}

func (p *parser) checkOptions(r *reader, field Field, f *Flow) {
	if field.Options == "" {
		return
	}
	at := r.where("options")
	switch {
	case len(field.Allowed) > 0:
		r.wrong(at, "options and allowed do not go together")
	case f.Code == nil && r.problems.err() == nil:
		r.wrong(at, "options names a function, but the flow has no code")
	case f.Code != nil && !f.Code.Defines(field.Options):
		r.wrong(at, "options: %s does not define %s; it defines %s", f.Code.File, field.Options, strings.Join(f.Code.Functions(), ", "))
	}
}

// checkValues makes allowed values and defaults canonical, and checks them.
func (p *parser) checkValues(r *reader, field Field, f *Flow) {
	ctx := context.Background()
	for i, v := range field.Allowed {
		value, err := field.canonical(ctx, nil, v)
		if err != nil || value == "" {
			r.wrong(r.where("allowed"), "allowed: %q is no %s", v, field.Type)
			return
		}
		field.Allowed[i] = value
		if d, _ := ParseDuration(value); field.Name == FieldTime && d > f.Clocks.Longest {
			r.wrong(r.where("allowed"), "allowed: %s is longer than clocks { longest = %q }", value, FormatDuration(f.Clocks.Longest))
		}
	}
	values, err := field.clean(ctx, nil, field.Default)
	if err == nil && field.Options == "" {
		err = field.check(values)
	}
	if err == nil && field.Name == FieldTime && len(values) > 0 {
		if d, _ := ParseDuration(values[0]); d > f.Clocks.Longest {
			r.wrong(r.where("default"), "default: %s is longer than clocks { longest = %q }", values[0], FormatDuration(f.Clocks.Longest))
		}
	}
	if err != nil {
		r.wrong(r.where("default"), "default: %v", err)
	}
}
