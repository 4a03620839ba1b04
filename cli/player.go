package cli

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/muesli/cancelreader"

	"sallyport.dev/internal/tty"
	"sallyport.dev/recording"
)

const (
	jump = 5 * time.Second
	// softReset undoes what a recorded program may have left set and tty.Modes does not
	// follow, as margins; clearTerminal makes a terminal forget what was played.
	softReset     = "\x1b[!p\x1b[0m"
	clearTerminal = softReset + "\x1b[2J\x1b[H"
)

// Keys of the player.
const (
	keyPause = ' '
	keyStep  = '.'
	keyQuit  = 'q'
	keyBack  = 'D' // the arrows, as the last character of their sequences
	keyAhead = 'C'
)

var errQuit = errors.New("quit")

// player plays one recording.
type player struct {
	file    io.ReadSeeker
	out     *bufio.Writer
	speed   float64
	maxIdle time.Duration // 0: pauses are kept
	live    bool          // out is a terminal, so time matters
	keys    <-chan byte   // nil without a person

	reader *recording.Reader
	parser sequences
	shown  tty.Modes
	at     time.Duration // of the last event shown
	paused bool
}

// rewind goes back to the start.
func (pl *player) rewind() error {
	if _, err := pl.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	reader, err := recording.NewReader(pl.file)
	if err != nil {
		return err
	}
	pl.reader, pl.at, pl.parser = reader, 0, sequences{}
	return nil
}

// run plays to the end, starting at from.
func (pl *player) run(ctx context.Context, from time.Duration) error {
	defer pl.out.Flush()
	target := from // up to here everything is shown at once
	for {
		e, err := pl.reader.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if e.Kind != recording.KindOutput {
			continue
		}
		if e.At > target {
			to, err := pl.wait(ctx, e.At)
			switch {
			case errors.Is(err, errQuit):
				return nil
			case err != nil:
				return err
			case to < pl.at:
				if err := pl.back(); err != nil {
					return err
				}
				target = to
				continue
			}
			target = to
		}
		if err := pl.show(e); err != nil {
			return err
		}
	}
}

func (pl *player) back() error {
	if err := pl.rewind(); err != nil {
		return err
	}
	_, err := pl.out.WriteString(pl.shown.Undo() + clearTerminal)
	return err
}

// reset gives the terminal back, the cursor at the start of a line.
func (pl *player) reset() error {
	undo := pl.shown.Undo() + softReset
	if pl.shown.InLine() {
		undo += "\r\n"
	}
	if _, err := pl.out.WriteString(undo); err != nil {
		return err
	}
	return pl.out.Flush()
}

// show writes an event's output, without what would act on the viewer's terminal.
func (pl *player) show(e recording.Event) error {
	pl.at = e.At
	var b strings.Builder
	pl.parser.feed(e.Data, func(t token) {
		if harmless(t) {
			b.WriteString(t.text)
		}
	})
	io.WriteString(&pl.shown, b.String())
	_, err := pl.out.WriteString(b.String())
	return err
}

// wait lets the time until the event at next pass. It returns up to where to go on at
// once: before pl.at to jump back, pl.at to just play the event.
func (pl *player) wait(ctx context.Context, next time.Duration) (to time.Duration, err error) {
	if !pl.live { // nobody watches: no time passes, and nothing jumps
		return pl.at, nil
	}
	if err := pl.out.Flush(); err != nil {
		return 0, err
	}
	gap := max(next-pl.at, 0)
	if pl.maxIdle > 0 {
		gap = min(gap, pl.maxIdle)
	}
	timer := time.NewTimer(time.Duration(float64(gap) / pl.speed))
	defer timer.Stop()
	for {
		due := timer.C
		if pl.paused {
			due = nil
		}
		select {
		case <-ctx.Done():
			return 0, errQuit
		case <-due:
			return pl.at, nil
		case k, ok := <-pl.keys:
			if !ok {
				pl.keys = nil
				continue
			}
			if to, done, err := pl.key(k); done || err != nil {
				return to, err
			}
		}
	}
}

// key acts on a key; done ends the waiting.
func (pl *player) key(k byte) (to time.Duration, done bool, err error) {
	switch k {
	case keyQuit, 0x03:
		return 0, true, errQuit
	case keyPause:
		pl.paused = !pl.paused
		return pl.at, !pl.paused, nil
	case keyStep:
		return pl.at, pl.paused, nil
	case keyAhead:
		return pl.at + jump, true, nil
	case keyBack:
		return max(pl.at-jump, 0), true, nil
	}
	return 0, false, nil
}

// readKeys reads single keys, arrows as their last character, until stop.
func readKeys(f *os.File) (keys <-chan byte, stop func()) {
	r, err := cancelreader.NewReader(f)
	if err != nil {
		return nil, func() {}
	}
	c := make(chan byte)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer close(c)
		copyKeys(r, c, quit)
	}()
	return c, func() {
		close(quit)
		r.Cancel()
		<-done
		r.Close()
	}
}

func copyKeys(r io.Reader, c chan<- byte, quit <-chan struct{}) {
	buf := make([]byte, 16)
	for {
		n, err := r.Read(buf)
		if err != nil {
			return
		}
		for _, k := range keysOf(buf[:n]) {
			select {
			case c <- k:
			case <-quit:
				return
			}
		}
	}
}

// keysOf finds the keys in what a terminal sent at once.
func keysOf(p []byte) []byte {
	if len(p) >= 3 && p[0] == 0x1b && (p[1] == '[' || p[1] == 'O') {
		if last := p[2]; last == keyBack || last == keyAhead {
			return []byte{last}
		}
		return nil
	}
	var keys []byte
	for _, k := range p {
		if k == keyBack || k == keyAhead { // the letters, not the arrows
			continue
		}
		keys = append(keys, k)
	}
	return keys
}
