package flow

import (
	"errors"
	"fmt"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"
)

// Bounds on one run of flow code.
const (
	maxSteps  = 1_000_000
	maxMemory = 64 << 20 // bytes that it allocates in all, by the meter's reckoning
	maxString = 1 << 20  // bytes of one text
	maxWeight = 2 << 20  // bytes of a value that is compared, printed or hashed, each part as often as it is reached
	maxDepth  = 64       // of such a value
	maxRange  = 100_000  // numbers of a range
	maxBits   = 4096     // of an integer
	perValue  = 16       // bytes that a value takes in a list
	perEntry  = 128      // … and in a dictionary or set
	perTable  = 640      // an empty dictionary or set
)

var (
	errMemory = fmt.Errorf("the code uses too much memory; it may allocate %d MiB", maxMemory>>20)
	errString = fmt.Errorf("the text is too long; at most %d bytes", maxString)
	errWeight = errors.New("the value is too large or nested too deep to be compared, printed or looked up")
	errInt    = fmt.Errorf("the number is too large; at most %d bits", maxBits)
)

// meter counts what a run allocates. Memory that is freed is not given back: what a run
// holds is never more than what it was charged, plus what Starlark allocates per step.
type meter struct{ left int }

const meterLocal = "sallyport.meter"

// newThread returns a thread with bounds.
func newThread(name string) *starlark.Thread {
	t := &starlark.Thread{Name: name, Print: func(*starlark.Thread, string) {}}
	t.SetMaxExecutionSteps(maxSteps)
	t.SetLocal(meterLocal, &meter{left: maxMemory})
	return t
}

// charge takes bytes from what the thread has left.
func charge(t *starlark.Thread, bytes int) error {
	m, ok := t.Local(meterLocal).(*meter)
	if !ok || bytes < 0 || bytes > m.left {
		return errMemory
	}
	m.left -= bytes
	return nil
}

// chargeValue takes what a new value takes, without what is in it.
func chargeValue(t *starlark.Thread, v starlark.Value) error {
	switch v := v.(type) {
	case starlark.String:
		return chargeText(t, len(v))
	case starlark.Bytes:
		return chargeText(t, len(v))
	case *starlark.List:
		return charge(t, perValue*v.Len())
	case starlark.Tuple:
		return charge(t, perValue*len(v))
	case *starlark.Dict:
		return charge(t, perTable+perEntry*v.Len())
	case *starlark.Set:
		return charge(t, perTable+perEntry*v.Len())
	case starlark.Int:
		if bits(v) > maxBits {
			return errInt
		}
	}
	return nil
}

func chargeText(t *starlark.Thread, bytes int) error {
	if bytes > maxString {
		return errString
	}
	return charge(t, bytes)
}

func bits(i starlark.Int) int {
	if _, small := i.Int64(); small {
		return 64
	}
	return i.BigInt().BitLen()
}

// weigh walks values as comparing, printing or hashing them does: what is reached twice
// counts twice. It returns their weight, or an error as soon as it is too much.
func weigh(values ...starlark.Value) (int, error) {
	s := scales{left: maxWeight}
	for _, v := range values {
		if !s.add(v, 0) {
			return 0, errWeight
		}
	}
	return maxWeight - s.left, nil
}

type scales struct{ left int }

func (s *scales) add(v starlark.Value, depth int) bool {
	s.left -= perValue
	if s.left < 0 || depth > maxDepth {
		return false
	}
	switch v := v.(type) {
	case starlark.String:
		s.left -= len(v)
	case starlark.Bytes:
		s.left -= len(v)
	case *starlark.List:
		for i := range v.Len() {
			if !s.add(v.Index(i), depth+1) {
				return false
			}
		}
	case starlark.Tuple:
		for _, e := range v {
			if !s.add(e, depth+1) {
				return false
			}
		}
	case *starlark.Dict:
		for k, e := range v.Entries() {
			if !s.add(k, depth+1) || !s.add(e, depth+1) {
				return false
			}
		}
	case *starlark.Set:
		for e := range v.Elements() {
			if !s.add(e, depth+1) {
				return false
			}
		}
	case *starlarkstruct.Struct:
		for _, name := range v.AttrNames() {
			if e, err := v.Attr(name); err == nil && !s.add(e, depth+1) {
				return false
			}
		}
	case starlark.Sequence: // a range
		s.left -= perValue * v.Len()
	case starlark.Iterable: // the code points of a text, the bytes of bytes
		return s.count(v)
	}
	return s.left >= 0
}

// count counts what does not know its length.
func (s *scales) count(v starlark.Iterable) bool {
	var e starlark.Value
	all := v.Iterate()
	defer all.Done()
	for s.left >= 0 && all.Next(&e) {
		s.left -= perValue
	}
	return s.left >= 0
}

// size is how many parts a value has, 0 for what has none. What has some, but cannot tell
// how many, is refused: nobody could say beforehand what is made of them.
func size(v starlark.Value) (int, error) {
	n := starlark.Len(v)
	if _, parts := v.(starlark.Iterable); parts && n < 0 {
		return 0, fmt.Errorf("%s does not know its length; write list(…) around it first", v.Type())
	}
	return max(0, n), nil
}

// chargeParts takes so much for each part of a value.
func chargeParts(t *starlark.Thread, each int, v starlark.Value) error {
	n, err := size(v)
	if err != nil {
		return err
	}
	return charge(t, each*n)
}

// meters are what guarded programs call.
func meters() starlark.StringDict {
	return starlark.StringDict{
		guardOp:     starlark.NewBuiltin(guardOp, meterOp),
		guardAttr:   starlark.NewBuiltin(guardAttr, meterAttr),
		guardKey:    starlark.NewBuiltin(guardKey, meterKey),
		guardSpread: starlark.NewBuiltin(guardSpread, meterSpread),
		guardCopy:   starlark.NewBuiltin(guardCopy, meterCopy),
	}
}

func meterOp(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	n, _ := args[0].(starlark.Int).Int64()
	op, x, y := syntax.Token(n), args[1], args[2]
	if err := beforeOp(t, plainOp(op), x, y); err != nil {
		return nil, err
	}
	if list, ok := x.(*starlark.List); ok && op == syntax.PLUS_EQ {
		return extend(t, list, y)
	}
	if dict, ok := x.(*starlark.Dict); ok && op == syntax.PIPE_EQ {
		return update(t, dict, y)
	}
	z, err := operate(plainOp(op), x, y)
	if err != nil {
		return nil, err
	}
	return z, chargeValue(t, z)
}

func operate(op syntax.Token, x, y starlark.Value) (starlark.Value, error) {
	switch op {
	case syntax.EQL, syntax.NEQ, syntax.LT, syntax.LE, syntax.GT, syntax.GE:
		ok, err := starlark.Compare(op, x, y)
		return starlark.Bool(ok), err
	}
	return starlark.Binary(op, x, y)
}

// beforeOp refuses operations whose result or work would be too large.
func beforeOp(t *starlark.Thread, op syntax.Token, x, y starlark.Value) error {
	switch op {
	case syntax.STAR:
		return beforeTimes(t, x, y)
	case syntax.PERCENT:
		if format, ok := x.(starlark.String); ok {
			return beforeFormat(t, string(format), "%", y)
		}
		return nil
	case syntax.PLUS:
		return beforePlus(t, x, y)
	case syntax.MINUS, syntax.SLASH, syntax.SLASHSLASH, syntax.LTLT, syntax.GTGT:
		if _, ok := x.(*starlark.Set); !ok {
			return nil
		}
	}
	_, err := weigh(x, y)
	return err
}

// beforePlus looks whether what is joined would be too much. The result is charged.
func beforePlus(t *starlark.Thread, x, y starlark.Value) error {
	n := max(0, starlark.Len(x)) + max(0, starlark.Len(y))
	switch x.(type) {
	case starlark.String, starlark.Bytes:
		if n > maxString {
			return errString
		}
	case *starlark.List, starlark.Tuple:
		if m, ok := t.Local(meterLocal).(*meter); !ok || n > m.left/perValue {
			return errMemory
		}
	}
	return nil
}

func beforeTimes(t *starlark.Thread, x, y starlark.Value) error {
	a, xInt := x.(starlark.Int)
	b, yInt := y.(starlark.Int)
	if xInt && yInt {
		if bits(a)+bits(b) > maxBits {
			return errInt
		}
		return nil
	}
	if xInt {
		return beforeRepeat(t, y, a)
	}
	if yInt {
		return beforeRepeat(t, x, b)
	}
	return nil
}

func beforeRepeat(t *starlark.Thread, x starlark.Value, times starlark.Int) error {
	size, most := 0, maxMemory
	switch x := x.(type) {
	case starlark.String:
		size, most = len(x), maxString
	case starlark.Bytes:
		size, most = len(x), maxString
	case *starlark.List:
		size = perValue * x.Len()
	case starlark.Tuple:
		size = perValue * len(x)
	}
	n, ok := times.Int64()
	if n <= 0 && ok || size == 0 {
		return nil
	}
	if !ok || n > int64(most/size) {
		return errMemory
	}
	return charge(t, size*int(n))
}

// beforeFormat charges what a format may become: each of its marks may stand for all of
// the arguments.
func beforeFormat(t *starlark.Thread, format, mark string, args ...starlark.Value) error {
	w, err := weigh(args...)
	if err != nil {
		return err
	}
	marks := strings.Count(format, mark)
	if marks > 0 && w > maxString/marks {
		return errString
	}
	return charge(t, len(format)+marks*w)
}

// extend is list += iterable, which Starlark does in place.
func extend(t *starlark.Thread, list *starlark.List, y starlark.Value) (starlark.Value, error) {
	if _, ok := y.(starlark.Iterable); !ok {
		return starlark.Binary(syntax.PLUS, list, y)
	}
	method, err := list.Attr("extend")
	if err != nil {
		return nil, err
	}
	if err := chargeParts(t, perValue, y); err != nil {
		return nil, err
	}
	_, err = starlark.Call(t, method, starlark.Tuple{y}, nil)
	return list, err
}

// update is dict |= dict, which Starlark does in place.
func update(t *starlark.Thread, dict *starlark.Dict, y starlark.Value) (starlark.Value, error) {
	if _, ok := y.(*starlark.Dict); !ok {
		return starlark.Binary(syntax.PIPE, dict, y)
	}
	method, err := dict.Attr("update")
	if err != nil {
		return nil, err
	}
	if err := chargeParts(t, perEntry, y); err != nil {
		return nil, err
	}
	_, err = starlark.Call(t, method, starlark.Tuple{y}, nil)
	return dict, err
}

func meterKey(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	_, err := weigh(args[0])
	return args[0], err
}

func meterSpread(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	return args[0], chargeParts(t, perEntry, args[0])
}

func meterCopy(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	return args[0], chargeValue(t, args[0])
}

func meterAttr(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
	name, _ := starlark.AsString(args[1])
	return attr(args[0], name)
}

// attr is x.name; methods come back metered.
func attr(x starlark.Value, name string) (starlark.Value, error) {
	has, ok := x.(starlark.HasAttrs)
	if !ok {
		return nil, fmt.Errorf("%s has no .%s field or method", x.Type(), name)
	}
	v, err := has.Attr(name)
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, fmt.Errorf("%s has no .%s field or method; it has %s", x.Type(), name, allOf(has.AttrNames()))
	}
	method, ok := v.(*starlark.Builtin)
	if !ok || method.Receiver() == nil {
		return v, nil
	}
	return metered(method, func(t *starlark.Thread, args starlark.Tuple) error {
		return beforeMethod(t, x, name, args)
	}), nil
}

// allArguments are the values of all arguments.
func allArguments(args starlark.Tuple, kwargs []starlark.Tuple) starlark.Tuple {
	if len(kwargs) == 0 {
		return args
	}
	all := append(starlark.Tuple(nil), args...)
	for _, kv := range kwargs {
		all = append(all, kv[1])
	}
	return all
}

// metered returns a builtin that first passes a check, and is charged for its result.
func metered(b *starlark.Builtin, before func(*starlark.Thread, starlark.Tuple) error) *starlark.Builtin {
	return starlark.NewBuiltin(b.Name(), func(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if err := before(t, allArguments(args, kwargs)); err != nil {
			return nil, err
		}
		v, err := b.CallInternal(t, args, kwargs)
		if err != nil {
			return nil, err
		}
		return v, chargeValue(t, v)
	})
}

// beforeMethod refuses calls of methods whose result or work would be too large.
func beforeMethod(t *starlark.Thread, x starlark.Value, name string, args starlark.Tuple) error {
	if s, ok := x.(starlark.String); ok {
		return beforeString(t, string(s), name, args)
	}
	if _, ok := x.(*starlark.List); ok && (name == "append" || name == "insert") {
		return charge(t, perValue)
	}
	added := 0
	for _, a := range args {
		n, err := size(a)
		if err != nil {
			return err
		}
		added += n
	}
	if err := charge(t, perEntry*(1+added)); err != nil {
		return err
	}
	if _, err := weigh(args...); err != nil {
		return err
	}
	switch name {
	case "add", "get", "pop", "setdefault", "discard", "clear", "popitem", "extend", "update":
		return nil // no part of x is looked at more than once
	}
	_, err := weigh(x)
	return err
}

func beforeString(t *starlark.Thread, s, name string, args starlark.Tuple) error {
	switch name {
	case "join":
		if len(args) == 1 {
			return beforeJoin(t, s, args[0])
		}
	case "format":
		return beforeFormat(t, s, "{", args...)
	case "replace":
		if len(args) >= 2 {
			return beforeReplace(s, args[0], args[1])
		}
	}
	_, err := weigh(args...)
	return err
}

func beforeJoin(t *starlark.Thread, sep string, list starlark.Value) error {
	w, err := weigh(list)
	if err != nil {
		return err
	}
	// The list's weight is more than what its texts take.
	n, err := size(list)
	if err != nil {
		return err
	}
	if n > 0 && len(sep) > maxString/n {
		return errString
	}
	return charge(t, w+n*len(sep))
}

func beforeReplace(s string, old, with starlark.Value) error {
	from, ok := starlark.AsString(old)
	to, ok2 := starlark.AsString(with)
	if !ok || !ok2 {
		return nil // Starlark says what is wrong
	}
	if n := strings.Count(s, from); n > 0 && len(to) > maxString/n {
		return errString
	}
	return nil
}
