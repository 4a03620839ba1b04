package flow

import (
	"context"
	"errors"
	"testing"
	"time"
)

// Whatever the program, running it ends soon, with a value or an error that says where.
func FuzzCode(f *testing.F) {
	f.Add("def on_request(event):\n  return approve()")
	f.Add("def on_request(event):\n  x = [0]\n  for i in range(30):\n    x = [x, x]\n  return x == x[:]")
	f.Add("def on_request(event):\n  d = {}\n  d[1] = 'a' * 3\n  d[1] += '%s' % (1,)\n  return deny(','.join([d[1]]))")
	f.Add("def g(*a, **k): return lambda x=1, *y: [z for z in a if z]\ndef on_request(event):\n  return g(*[1], **{'b': 2})()")
	f.Add("a, (b, [c]) = 1, (2, [3])\ndef on_request(event):\n  global_ = a if b else c\n  return not -global_ << 3")
	f.Fuzz(func(t *testing.T, source string) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		start := time.Now()
		w := newWorld()
		w.answer = func(Fetch) (Fetched, error) { return Fetched{Status: 404}, nil }
		_, err := codeOf(source).On(ctx, fetching{w}, HookRequest, happening())
		var e *CodeError
		if err != nil && !errors.Is(err, ErrNoFunction) && !errors.As(err, &e) {
			t.Errorf("got %T: %v, want a *CodeError", err, err)
		}
		if took := time.Since(start); took > 8*time.Second {
			t.Errorf("took %v", took)
		}
	})
}
