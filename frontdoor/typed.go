package frontdoor

import (
	"context"
	"io"
	"sync"
)

const (
	// typedPiece is how much is read ahead at once, in bytes.
	typedPiece = 4 << 10
	ctrlC      = 0x03
	ctrlD      = 0x04
)

// typed is what a person types. While nobody is asked it is read by the session's program
// alone; once somebody was asked, it is read ahead, so that a question can end without an
// answer, and the program gets what was not an answer.
type typed struct {
	source io.Reader

	mu     sync.Mutex
	pieces chan []byte // nil until somebody was asked
	rest   []byte
}

// ahead reads from now on into a queue of one piece, until the source or ctx ends. run
// starts what reads.
func (t *typed) ahead(ctx context.Context, run func(func())) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pieces != nil {
		return
	}
	t.pieces = make(chan []byte)
	run(func() {
		defer close(t.pieces)
		for {
			piece := make([]byte, typedPiece)
			n, err := t.source.Read(piece)
			if n > 0 {
				select {
				case t.pieces <- piece[:n]:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
}

// Read implements io.Reader, for the program.
func (t *typed) Read(p []byte) (int, error) {
	t.mu.Lock()
	pieces := t.pieces
	t.mu.Unlock()
	if pieces == nil {
		return t.source.Read(p)
	}
	if len(t.rest) == 0 {
		piece, ok := <-pieces
		if !ok {
			return 0, io.EOF
		}
		t.rest = piece
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

// keys reads one key after the other, for questions: what is typed behind an answer is not
// taken. A context that ends is the end.
type keys struct {
	ctx context.Context
	t   *typed
}

// Read implements io.Reader; it gives one byte at a time.
func (k keys) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(k.t.rest) == 0 {
		select {
		case piece, ok := <-k.t.pieces:
			if !ok {
				return 0, io.EOF
			}
			k.t.rest = piece
		case <-k.ctx.Done():
			return 0, context.Cause(k.ctx)
		}
	}
	p[0] = k.t.rest[0]
	k.t.rest = k.t.rest[1:]
	return 1, nil
}

// leaves waits until the person types Ctrl-C or Ctrl-D, which is errLeftAsking, or hangs
// up; anything else that they type meanwhile is let go. It returns nil when the context
// ends.
func (k keys) leaves() error {
	key := make([]byte, 1)
	for {
		_, err := k.Read(key)
		switch {
		case k.ctx.Err() != nil:
			return nil
		case err != nil:
			return errClosed
		case key[0] == ctrlC || key[0] == ctrlD:
			return errLeftAsking
		}
	}
}
