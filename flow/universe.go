package flow

import (
	"fmt"

	starlarkjson "go.starlark.net/lib/json"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
)

// predeclared are the names that code finds: Starlark's own, metered, and ours.
func predeclared() starlark.StringDict {
	words := starlark.StringDict{
		"json":   jsonModule(),
		"struct": starlark.NewBuiltin("struct", starlarkstruct.Make),
	}
	for name, v := range starlark.Universe {
		if b, ok := v.(*starlark.Builtin); ok {
			words[name] = universal(name, b)
		}
	}
	words["getattr"] = starlark.NewBuiltin("getattr", getattr)
	for name, v := range meters() {
		words[name] = v
	}
	for name, f := range sdk {
		words[name] = starlark.NewBuiltin(name, f)
	}
	return words
}

// universal is one of Starlark's own functions, metered.
func universal(name string, b *starlark.Builtin) *starlark.Builtin {
	switch name {
	case "len", "type", "bool":
		return b
	case "range":
		return starlark.NewBuiltin(name, func(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			v, err := b.CallInternal(t, args, kwargs)
			if err == nil && starlark.Len(v) > maxRange {
				return nil, fmt.Errorf("range: %d numbers; at most %d", starlark.Len(v), maxRange)
			}
			return v, err
		})
	case "int", "float":
		return metered(b, func(_ *starlark.Thread, args starlark.Tuple) error {
			for _, a := range args {
				if n := starlark.Len(a); n > maxText {
					return fmt.Errorf("%s: a text of %d bytes; at most %d", name, n, maxText)
				}
			}
			return nil
		})
	}
	return metered(b, func(t *starlark.Thread, args starlark.Tuple) error {
		w, err := weigh(args...)
		if err != nil {
			return err
		}
		return charge(t, w)
	})
}

func getattr(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var x, otherwise starlark.Value
	var name string
	if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 2, &x, &name, &otherwise); err != nil {
		return nil, err
	}
	v, err := attr(x, name)
	if err != nil && otherwise != nil {
		return otherwise, nil
	}
	return v, err
}

// jsonModule is json.encode and json.decode.
func jsonModule() starlark.Value {
	encode := starlarkjson.Module.Members["encode"].(*starlark.Builtin)
	decode := starlarkjson.Module.Members["decode"].(*starlark.Builtin)
	return starlarkstruct.FromStringDict(starlarkstruct.Default, starlark.StringDict{
		"encode": metered(encode, func(t *starlark.Thread, args starlark.Tuple) error {
			w, err := weigh(args...)
			if err != nil {
				return err
			}
			return charge(t, w)
		}),
		"decode": metered(decode, func(t *starlark.Thread, args starlark.Tuple) error {
			size := 0
			for _, a := range args {
				size += max(0, starlark.Len(a))
			}
			if size > maxFetched {
				return fmt.Errorf("json.decode: a text of %d bytes; at most %d", size, maxFetched)
			}
			return charge(t, 32*size) // an empty list or object in two bytes
		}),
	})
}
