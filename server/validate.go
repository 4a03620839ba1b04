package server

import (
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// shape is what the binder knows of an input type, worked out once per operation.
type shape struct {
	kind   shapeKind
	elem   *shape // of pointers, lists and maps
	fields []field
	name   string // what errors call a value of this shape
}

type shapeKind int

const (
	kindString shapeKind = iota
	kindBool
	kindInt
	kindFloat
	kindText // encoding.TextUnmarshaler
	kindRaw  // json.RawMessage
	kindStruct
	kindPointer
	kindList
	kindMap
)

// field is one member of a structure.
type field struct {
	index             []int
	name              string // on the wire
	shape             *shape
	rules, keys, each rules
}

// rules are the constraints of one value.
type rules struct {
	required bool
	secret   bool // neither quoted in errors nor in the audit log
	digest   bool // in the audit log by its hash
	min, max *int64
	enum     []string
	pattern  *regexp.Regexp
	source   string // of pattern, as written
}

// shapeOf works out the shape of an input type. It panics on types and tags that the
// conventions in operation.go do not allow: those are our own mistakes.
func shapeOf(t reflect.Type) *shape {
	return shapeWithin(t, map[reflect.Type]*shape{})
}

func shapeWithin(t reflect.Type, known map[reflect.Type]*shape) *shape {
	if s := known[t]; s != nil {
		return s
	}
	s := &shape{}
	known[t] = s
	switch {
	case t.String() == "json.RawMessage":
		s.kind, s.name = kindRaw, "JSON"
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		s.kind, s.name = kindText, "a timestamp"
	default:
		s.fill(t, known)
	}
	return s
}

func (s *shape) fill(t reflect.Type, known map[reflect.Type]*shape) {
	switch t.Kind() {
	case reflect.String:
		s.kind, s.name = kindString, "a string"
	case reflect.Bool:
		s.kind, s.name = kindBool, "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64:
		s.kind, s.name = kindInt, "a whole number"
	case reflect.Float64:
		s.kind, s.name = kindFloat, "a number"
	case reflect.Pointer:
		s.elem = shapeWithin(t.Elem(), known)
		s.kind, s.name = kindPointer, s.elem.name
	case reflect.Slice:
		s.kind, s.name, s.elem = kindList, "a list", shapeWithin(t.Elem(), known)
	case reflect.Map:
		s.kind, s.name, s.elem = kindMap, "a map", shapeWithin(t.Elem(), known)
	case reflect.Struct:
		s.kind, s.name, s.fields = kindStruct, "a structure", fieldsOf(t, known)
	default:
		panic("server: input member of type " + t.String())
	}
}

func fieldsOf(t reflect.Type, known map[reflect.Type]*shape) []field {
	var fields []field
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || f.Anonymous || name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		fields = append(fields, field{
			index: f.Index, name: name, shape: shapeWithin(f.Type, known),
			rules: parseRules(f.Tag.Get("check")),
			keys:  parseRules(f.Tag.Get("keys")),
			each:  parseRules(f.Tag.Get("each")),
		})
	}
	return fields
}

// parseRules reads a check, keys or each tag.
func parseRules(tag string) rules {
	var r rules
	for tag != "" {
		var rule string
		if strings.HasPrefix(tag, "pattern=") {
			rule, tag = tag, ""
		} else {
			rule, tag, _ = strings.Cut(tag, ",")
		}
		name, value, _ := strings.Cut(rule, "=")
		r.add(name, value)
	}
	return r
}

func (r *rules) add(name, value string) {
	switch name {
	case "required":
		r.required = true
	case "secret":
		r.secret = true
	case "digest":
		r.digest = true
	case "min":
		r.min = bound(value)
	case "max":
		r.max = bound(value)
	case "enum":
		r.enum = strings.Split(value, "|")
	case "pattern":
		r.source = value
		r.pattern = regexp.MustCompile(`\A(?:` + value + `)\z`)
	default:
		panic(fmt.Sprintf("server: unknown rule %q in a check tag", name))
	}
}

func bound(value string) *int64 {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("server: bound %q in a check tag: %v", value, err))
	}
	return &n
}

// violations collects what is wrong with an input, worded as AWS words it.
type violations []string

// maxViolations bounds the error text; AWS reports about as many.
const maxViolations = 10

func (v *violations) add(value, path, rule string) {
	if len(*v) < maxViolations {
		*v = append(*v, fmt.Sprintf("Value %s at '%s' failed to satisfy constraint: %s", value, path, rule))
	}
}

// message joins the violations; it is empty if there are none.
func (v violations) message() string {
	switch len(v) {
	case 0:
		return ""
	case 1:
		return "1 validation error detected: " + v[0]
	}
	return fmt.Sprintf("%d validation errors detected: %s", len(v), strings.Join(v, "; "))
}

func (v *violations) missing(path string) {
	v.add("null", path, "Member must not be null")
}

// check applies the rules to a bound value; pointers have been followed.
func (v *violations) check(r rules, value reflect.Value, path string) {
	switch value.Kind() {
	case reflect.String:
		v.checkString(r, value.String(), path)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.checkRange(r, value.Int(), quote(strconv.FormatInt(value.Int(), 10)), path, "value")
	case reflect.Slice, reflect.Map:
		v.checkRange(r, int64(value.Len()), quote(summary(value)), path, "length")
	}
}

func (v *violations) checkString(r rules, s, path string) {
	shown := quote(s)
	if r.secret {
		shown = quote("***")
	}
	v.checkRange(r, int64(utf8.RuneCountInString(s)), shown, path, "length")
	if len(r.enum) > 0 && !slices.Contains(r.enum, s) {
		v.add(shown, path, "Member must satisfy enum value set: ["+strings.Join(r.enum, ", ")+"]")
	}
	if r.pattern != nil && !r.pattern.MatchString(s) {
		v.add(shown, path, "Member must satisfy regular expression pattern: "+r.source)
	}
}

func (v *violations) checkRange(r rules, n int64, shown, path, what string) {
	if r.min != nil && n < *r.min {
		v.add(shown, path, fmt.Sprintf("Member must have %s greater than or equal to %d", what, *r.min))
	}
	if r.max != nil && n > *r.max {
		v.add(shown, path, fmt.Sprintf("Member must have %s less than or equal to %d", what, *r.max))
	}
}

// maxShown bounds how much of a bad value an error repeats.
const maxShown = 256

func quote(s string) string {
	if utf8.RuneCountInString(s) > maxShown {
		s = string([]rune(s)[:maxShown]) + "…"
	}
	return "'" + s + "'"
}

// summary shows a list or map in an error: its strings, or how many entries it has.
func summary(v reflect.Value) string {
	if list, ok := v.Interface().([]string); ok {
		return "[" + strings.Join(list[:min(len(list), 20)], ", ") + "]"
	}
	return fmt.Sprintf("[%d entries]", v.Len())
}
