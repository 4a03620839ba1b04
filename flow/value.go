package flow

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"sallyport.dev/internal/tags"
)

// word is what a function of the SDK returns to be handed back: code cannot look into it.
type word[T any] struct {
	name string
	held T
}

func (w word[T]) String() string        { return w.name + "(…)" }
func (w word[T]) Type() string          { return w.name }
func (w word[T]) Freeze()               {}
func (w word[T]) Truth() starlark.Bool  { return true }
func (w word[T]) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable: %s", w.name) }

func known(all []string, s string) bool { return slices.Contains(all, s) }

// names reads a list of texts, or one.
func names(v starlark.Value) ([]string, error) {
	switch v := v.(type) {
	case nil, starlark.NoneType:
		return nil, nil
	case starlark.String:
		return []string{string(v)}, nil
	case starlark.Iterable:
		if n := starlark.Len(v); n > maxList {
			return nil, fmt.Errorf("a list of %d; at most %d", n, maxList)
		}
		var out []string
		for e := range starlark.Elements(v) {
			s, ok := starlark.AsString(e)
			if !ok {
				return nil, fmt.Errorf("got a %s, want texts", e.Type())
			}
			if len(out) == maxList {
				return nil, fmt.Errorf("more than %d texts", maxList)
			}
			out = append(out, s)
		}
		return out, nil
	}
	return nil, fmt.Errorf("got a %s, want a list of texts", v.Type())
}

// tagLists reads {"Team": ["payments"], "Env": "prod"}.
func tagLists(v starlark.Value) (map[string][]string, error) {
	if v == nil || v == starlark.None {
		return nil, nil
	}
	dict, ok := v.(*starlark.Dict)
	if !ok || dict.Len() > maxList {
		return nil, errors.New(`tags: want {"KEY": ["VALUE"]}`)
	}
	out := map[string][]string{}
	for k, e := range dict.Entries() {
		key, ok := starlark.AsString(k)
		values, err := names(e)
		if !ok || err != nil || len(values) == 0 {
			return nil, errors.New(`tags: want {"KEY": ["VALUE"]}`)
		}
		out[key] = values
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

// asPeople takes what people() made.
func asPeople(v starlark.Value) (People, error) {
	w, ok := v.(word[People])
	if !ok {
		return People{}, fmt.Errorf("got a %s, want people(…)", v.Type())
	}
	return w.held, nil
}

func record(fields starlark.StringDict) starlark.Value {
	return starlarkstruct.FromStringDict(starlarkstruct.Default, fields)
}

func textList(all []string) *starlark.List {
	list := make([]starlark.Value, len(all))
	for i, s := range all {
		list[i] = starlark.String(s)
	}
	return starlark.NewList(list)
}

// tagValue is a dictionary of lists: a tag may hold several values, and mostly one.
func tagValue(t tags.Tags) starlark.Value {
	dict := starlark.NewDict(len(t))
	for _, key := range t.Keys() {
		dict.SetKey(starlark.String(key), textList(t.Values(key))) // a text hashes, and dict is ours
	}
	return dict
}

func personValue(p Person) starlark.Value {
	return record(starlark.StringDict{
		"id":     starlark.String(p.ID),
		"name":   starlark.String(p.Name),
		"arn":    starlark.String(p.ARN),
		"groups": textList(p.Groups),
		"tags":   tagValue(p.Tags),
	})
}

func nodeValue(n Node) starlark.Value {
	return record(starlark.StringDict{
		"id":   starlark.String(n.ID),
		"name": starlark.String(n.Name),
		"tags": tagValue(n.Tags),
	})
}

func targetValue(t Target) starlark.Value {
	fields := starlark.StringDict{
		"name":  starlark.String(t.Name),
		"label": starlark.String(t.Label),
		"kind":  starlark.String(t.Kind),
		"role":  starlark.String(t.Role),
		"group": starlark.String(t.Group),
	}
	if t.AWSGroup != nil {
		fields["group"] = starlark.String(t.AWSGroup.Group)
	}
	fields["account"], fields["permission_set"] = starlark.String(""), starlark.String("")
	if t.PermissionSet != nil {
		fields["account"] = starlark.String(t.PermissionSet.Account)
		fields["permission_set"] = starlark.String(t.PermissionSet.PermissionSetARN)
	}
	return record(fields)
}

// requestValue is event.request.
func requestValue(f Facts) starlark.Value {
	values := starlark.NewDict(len(f.Values))
	for _, name := range slices.Sorted(maps.Keys(f.Values)) { // the same order in every run
		values.SetKey(starlark.String(name), textList(f.Values[name])) // as above
	}
	nodes := make([]starlark.Value, len(f.Nodes))
	for i, n := range f.Nodes {
		nodes[i] = nodeValue(n)
	}
	targets := make([]starlark.Value, len(f.Targets))
	for i, t := range f.Targets {
		targets[i] = targetValue(t)
	}
	created := starlark.Value(starlark.None)
	if !f.Created.IsZero() {
		created = starlark.MakeInt64(f.Created.Unix())
	}
	return record(starlark.StringDict{
		"id":        starlark.String(f.ID),
		"flow":      starlark.String(f.Flow),
		"person":    personValue(f.Person),
		"values":    values,
		"reason":    starlark.String(f.Reason),
		"duration":  starlark.MakeInt64(int64(f.Duration / time.Second)),
		"targets":   starlark.NewList(targets),
		"nodes":     starlark.NewList(nodes),
		"channel":   starlark.String(f.Channel),
		"created":   created,
		"state":     starlark.String(f.State),
		"approvals": textList(f.Approvals),
	})
}

// eventValue is what hooks and reducers are called with.
func eventValue(h Happening) starlark.Value {
	return record(starlark.StringDict{
		"request": requestValue(h.Facts),
		"actor":   personValue(h.Actor),
		"channel": starlark.String(h.Channel),
		"comment": starlark.String(h.Comment),
	})
}
