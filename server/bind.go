package server

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// binder fills an input from what a codec parsed: a JSON tree (nil, bool, string,
// json.Number, []any, map[string]any) or a *form. Knowing which members were there,
// it tells absent from empty, and checks the rules on the way.
type binder struct {
	flatLists  bool // lists in forms are Name.N instead of Name.member.N
	violations violations
}

// typeError tells that a member has the wrong type.
type typeError struct{ path, want, got string }

func (e *typeError) Error() string {
	path := e.path
	if path == "" {
		path = "the request"
	}
	return fmt.Sprintf("%s must be %s, not %s", path, e.want, e.got)
}

// bind fills dst, a structure, from source. It returns a *typeError for a wrong type;
// broken rules are collected in b.violations.
func (b *binder) bind(dst reflect.Value, s *shape, source any, path string) error {
	switch s.kind {
	case kindPointer:
		dst.Set(reflect.New(dst.Type().Elem()))
		return b.bind(dst.Elem(), s.elem, source, path)
	case kindStruct:
		return b.bindStruct(dst, s, source, path)
	case kindList:
		return b.bindList(dst, s, source, path)
	case kindMap:
		return b.bindMap(dst, s, source, path)
	case kindRaw:
		return bindRaw(dst, source, path)
	}
	return bindScalar(dst, s, source, path)
}

func (b *binder) bindStruct(dst reflect.Value, s *shape, source any, path string) error {
	members, err := members(source, path)
	if err != nil {
		return err
	}
	for _, f := range s.fields {
		at := join(path, f.name)
		value, present := members(f.name)
		if !present {
			if f.rules.required {
				b.violations.missing(at)
			}
			continue
		}
		if err := b.bindField(dst.FieldByIndex(f.index), f, value, at); err != nil {
			return err
		}
	}
	return nil
}

func (b *binder) bindField(dst reflect.Value, f field, source any, path string) error {
	if err := b.bind(dst, f.shape, source, path); err != nil {
		return err
	}
	dst = reflect.Indirect(dst)
	b.violations.check(f.rules, dst, path)
	b.checkInside(f, dst, path)
	return nil
}

// checkInside applies the rules for keys and innermost elements.
func (b *binder) checkInside(f field, v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Map:
		for _, key := range v.MapKeys() {
			b.violations.check(f.keys, key, path+"."+key.String()+".key")
			b.checkInside(f, v.MapIndex(key), path+"."+key.String()+".value")
		}
	case reflect.Slice:
		if f.shape.kind == kindRaw {
			return
		}
		for i := range v.Len() {
			at := path + "." + strconv.Itoa(i+1) + ".member"
			b.violations.check(f.each, v.Index(i), at)
		}
	}
}

// members returns a function that finds the members of a structure.
func members(source any, path string) (func(name string) (any, bool), error) {
	switch v := source.(type) {
	case map[string]any:
		return func(name string) (any, bool) {
			member, ok := v[name]
			return member, ok && member != nil
		}, nil
	case *form:
		return func(name string) (any, bool) {
			member, ok := v.children[name]
			return member, ok
		}, nil
	}
	return nil, &typeError{path, "a structure", describe(source)}
}

func (b *binder) bindList(dst reflect.Value, s *shape, source any, path string) error {
	items, err := b.items(source, path)
	if err != nil {
		return err
	}
	list := reflect.MakeSlice(dst.Type(), len(items), len(items))
	for i, item := range items {
		if item == nil {
			return &typeError{path, "a list without nulls", "null"}
		}
		if err := b.bind(list.Index(i), s.elem, item, path+"."+strconv.Itoa(i+1)+".member"); err != nil {
			return err
		}
	}
	dst.Set(list)
	return nil
}

func (b *binder) items(source any, path string) ([]any, error) {
	switch v := source.(type) {
	case []any:
		return v, nil
	case *form:
		if !b.flatLists {
			if member := v.children["member"]; member != nil {
				v = member
			}
		}
		return v.items(path)
	}
	return nil, &typeError{path, "a list", describe(source)}
}

func (b *binder) bindMap(dst reflect.Value, s *shape, source any, path string) error {
	entries, ok := source.(map[string]any)
	if !ok {
		return &typeError{path, "a map", describe(source)}
	}
	m := reflect.MakeMapWithSize(dst.Type(), len(entries))
	for key, entry := range entries {
		if entry == nil {
			continue
		}
		value := reflect.New(dst.Type().Elem()).Elem()
		if err := b.bind(value, s.elem, entry, path+"."+key); err != nil {
			return err
		}
		m.SetMapIndex(reflect.ValueOf(key).Convert(dst.Type().Key()), value)
	}
	dst.Set(m)
	return nil
}

func bindRaw(dst reflect.Value, source any, path string) error {
	if _, isForm := source.(*form); isForm {
		return &typeError{path, "JSON", "a form field"}
	}
	raw, err := json.Marshal(source)
	if err != nil {
		return err
	}
	dst.SetBytes(raw)
	return nil
}

func bindScalar(dst reflect.Value, s *shape, source any, path string) error {
	text, ok := scalarText(s.kind, source)
	if !ok || !setScalar(dst, s.kind, text) {
		return &typeError{path, s.name, describe(source)}
	}
	return nil
}

// scalarText gives the text of a scalar if its JSON type fits; in forms all are text.
func scalarText(kind shapeKind, source any) (string, bool) {
	switch v := source.(type) {
	case *form:
		return v.text, len(v.children) == 0
	case string:
		return v, kind == kindString || kind == kindText
	case json.Number:
		return v.String(), kind == kindInt || kind == kindFloat || kind == kindText
	case bool:
		return strconv.FormatBool(v), kind == kindBool
	}
	return "", false
}

func setScalar(dst reflect.Value, kind shapeKind, text string) bool {
	switch kind {
	case kindString:
		dst.SetString(text)
		return true
	case kindBool:
		v, err := strconv.ParseBool(text)
		dst.SetBool(v)
		return err == nil
	case kindInt:
		v, err := strconv.ParseInt(text, 10, dst.Type().Bits())
		dst.SetInt(v)
		return err == nil
	case kindFloat:
		v, err := strconv.ParseFloat(text, 64)
		dst.SetFloat(v)
		return err == nil
	}
	return dst.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)) == nil
}

func describe(source any) string {
	switch source.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case json.Number:
		return "a number"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "a structure"
	}
	return "this form field"
}

// join appends a member to a path, in AWS's way: with a small first letter.
func join(path, name string) string {
	r := []rune(name)
	// Names that begin with an acronym (SSHPublicKeyId) get it small as a whole.
	n := 0
	for n < len(r) && unicode.IsUpper(r[n]) {
		n++
	}
	if n > 1 && n < len(r) {
		n--
	}
	name = strings.ToLower(string(r[:n])) + string(r[n:])
	if path == "" {
		return name
	}
	return path + "." + name
}

// form is a node of the tree that the dotted names of an AWS Query request spell.
type form struct {
	text     string
	set      bool // text was given, perhaps empty
	children map[string]*form
}

// items returns the children numbered from 1 upwards, in order of their numbers.
func (f *form) items(path string) ([]any, error) {
	type item struct {
		number int
		form   *form
	}
	var list []item
	for name, child := range f.children {
		n, err := strconv.Atoi(name)
		if err != nil || n < 1 {
			return nil, &typeError{path, "a list numbered from 1", "numbered " + strconv.Quote(name)}
		}
		list = append(list, item{n, child})
	}
	if len(list) == 0 && f.text != "" {
		return nil, &typeError{path, "a list", "a single value"}
	}
	slices.SortFunc(list, func(a, b item) int { return a.number - b.number })
	items := make([]any, len(list))
	for i, it := range list {
		items[i] = it.form
	}
	return items, nil
}
