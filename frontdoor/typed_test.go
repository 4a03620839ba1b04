package frontdoor

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
)

// pieces is a source that gives one piece of what is typed at a time.
type pieces chan string

func (p pieces) Read(b []byte) (int, error) {
	piece, ok := <-p
	if !ok {
		return 0, io.EOF
	}
	return copy(b, piece), nil
}

func ask(ctx context.Context, t *typed) {
	t.ahead(ctx, func(f func()) { go f() })
}

// What is typed behind an answer is the program's.
func TestTypedBehindAnAnswer(t *testing.T) {
	source := pieces(make(chan string, 3))
	typed := &typed{source: source}
	ask(t.Context(), typed)
	source <- "yes\rls -l"
	source <- "\r"
	close(source)
	var answer strings.Builder
	one := make([]byte, 16)
	for !strings.HasSuffix(answer.String(), "\r") {
		n, err := keys{t.Context(), typed}.Read(one)
		if n != 1 || err != nil {
			t.Fatalf("got %d bytes, %v, want one key", n, err)
		}
		answer.Write(one[:n])
	}
	rest, err := io.ReadAll(typed)
	if answer.String() != "yes\r" || string(rest) != "ls -l\r" || err != nil {
		t.Errorf("got %q, then %q, %v", answer.String(), rest, err)
	}
}

// Nothing is read before somebody is asked: it is all the program's.
func TestTypedUnasked(t *testing.T) {
	typed := &typed{source: strings.NewReader("tar")}
	got, err := io.ReadAll(typed)
	if string(got) != "tar" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestLeaves(t *testing.T) {
	for name, test := range map[string]struct {
		typed string
		close bool
		want  error
	}{
		"Ctrl-C":               {"\x03", false, errLeftAsking},
		"Ctrl-D":               {"\x04", false, errLeftAsking},
		"behind other keys":    {"hello\r\x1b[A\x03", false, errLeftAsking},
		"hung up":              {"", true, errClosed},
		"hung up while typing": {"exit\r", true, errClosed},
		"nothing":              {"hello", false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source := pieces(make(chan string, 1))
				typed := &typed{source: source}
				ctx, cancel := context.WithCancel(t.Context())
				ask(ctx, typed)
				got := make(chan error, 1)
				go func() { got <- keys{ctx, typed}.leaves() }()
				if test.typed != "" {
					source <- test.typed
				}
				if test.close {
					close(source)
				}
				synctest.Wait()
				cancel()
				if err := <-got; !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				if !test.close {
					close(source)
				}
			})
		})
	}
}
