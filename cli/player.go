package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"sallyport.dev/client"
	"sallyport.dev/playback"
	"sallyport.dev/recording"
)

const (
	jump = 5 * time.Second
	// markSlack is how long after a mark the previous one is meant, not that one again.
	markSlack = time.Second
	// clockEvery is how often the status line's clock moves.
	clockEvery = 200 * time.Millisecond
	// findEvery is how much recorded time lies between two looks at the screen for a text
	// that is looked for.
	findEvery = 50 * time.Millisecond

	minSpeed, maxSpeed = 1.0 / 16, 1000.0
)

var errQuit = errors.New("quit")

// player plays one recording on a terminal.
type player struct {
	tape    *playback.Tape
	screen  *playback.Screen
	show    func(s *playback.Screen, status string) error
	resized func()
	keys    <-chan key // nil without a person
	speed   float64
	maxIdle time.Duration // 0: pauses are kept

	next    *recording.Event // the next to show; nil at the end
	at      time.Duration    // of the recording
	paused  bool
	touched bool    // a key was pressed: the end waits for another
	found   string  // the text looked for last
	asking  *string // the text that is being typed, if one is
	message string  // in the status line, until the next key
}

func newPlayer(tape *playback.Tape) *player {
	return &player{
		tape: tape, screen: tape.Screen(), speed: 1, resized: func() {},
		show: func(*playback.Screen, string) error { return nil },
	}
}

// run plays to the end, starting at from.
func (pl *player) run(ctx context.Context, from time.Duration) error {
	err := pl.rewind()
	if err == nil {
		err = pl.seek(from)
	}
	for err == nil {
		err = pl.step(ctx)
	}
	if errors.Is(err, errQuit) || err == io.EOF {
		return nil
	}
	return err
}

// step waits for the next event, and shows it unless the person goes somewhere else.
func (pl *player) step(ctx context.Context) error {
	if err := pl.draw(pl.at); err != nil {
		return err
	}
	if pl.next == nil && (pl.keys == nil || !pl.touched) {
		return io.EOF
	}
	due, err := pl.wait(ctx)
	if err != nil || !due {
		return err
	}
	return pl.advance()
}

// advance shows the next event.
func (pl *player) advance() error {
	if pl.next == nil {
		return nil
	}
	pl.at = max(pl.at, pl.next.At)
	playback.Apply(pl.screen, *pl.next)
	return pl.read()
}

// read reads the next event that shows something, or the last.
func (pl *player) read() error {
	pl.next = nil
	for {
		e, err := pl.tape.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch e.Kind {
		case recording.KindOutput, recording.KindResize, recording.KindEnd:
			pl.next = &e
			return nil
		}
	}
}

func (pl *player) rewind() error {
	if err := pl.tape.Rewind(); err != nil {
		return err
	}
	pl.screen, pl.at = pl.tape.Screen(), 0
	return pl.read()
}

// seek goes to a time: everything up to it is shown at once.
func (pl *player) seek(to time.Duration) error {
	to = min(max(to, 0), pl.tape.Length)
	if to < pl.at {
		if err := pl.rewind(); err != nil {
			return err
		}
	}
	for pl.next != nil && pl.next.At <= to {
		if err := pl.advance(); err != nil {
			return err
		}
	}
	pl.at = to
	return nil
}

// draw shows the screen, with the clock at a time.
func (pl *player) draw(at time.Duration) error { return pl.show(pl.screen, pl.status(at)) }

func (pl *player) status(at time.Duration) string {
	if pl.asking != nil {
		return " find: " + *pl.asking + "_"
	}
	state := "playing"
	switch {
	case pl.next == nil:
		state = "the end"
	case pl.paused:
		state = "paused"
	}
	text := fmt.Sprintf(" %s  %s / %s  x%g", state, offsetText(at), offsetText(pl.tape.Length), pl.speed)
	if i := pl.markAt(at); i >= 0 {
		text += fmt.Sprintf("  %d/%d %s", i+1, len(pl.tape.Marks), client.CleanLine(pl.tape.Marks[i].Label))
	}
	if pl.message != "" {
		return text + "  " + pl.message
	}
	return text + "  space pauses, q quits"
}

// markAt is the index of the last mark up to a time, -1 before the first.
func (pl *player) markAt(at time.Duration) int {
	last := -1
	for i, m := range pl.tape.Marks {
		if m.At <= at {
			last = i
		}
	}
	return last
}

// offsetText is a time in a recording, as --at takes it.
func offsetText(d time.Duration) string {
	s := int(d / time.Second)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// wait lets the time until the next event pass, and reports whether it did: a key may
// have gone somewhere else.
func (pl *player) wait(ctx context.Context) (due bool, err error) {
	from, began := pl.at, time.Now()
	var timer <-chan time.Time
	if !pl.paused && pl.next != nil {
		t := time.NewTimer(time.Duration(float64(pl.gap()) / pl.speed))
		defer t.Stop()
		timer = t.C
	}
	clock := time.NewTicker(clockEvery)
	defer clock.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, errQuit
		case <-timer:
			return true, nil
		case k, ok := <-pl.keys:
			if !ok {
				pl.keys = nil
				return false, nil
			}
			pl.pass(from, began)
			return false, pl.key(k)
		case <-clock.C:
			pl.resized()
			pl.pass(from, began)
			if err := pl.draw(pl.at); err != nil {
				return false, err
			}
		}
	}
}

// gap is how much time passes until the next event.
func (pl *player) gap() time.Duration {
	gap := max(pl.next.At-pl.at, 0)
	if pl.maxIdle > 0 {
		gap = min(gap, pl.maxIdle)
	}
	return gap
}

// pass moves the clock by what has passed since it was at from.
func (pl *player) pass(from time.Duration, began time.Time) {
	if !pl.paused && pl.next != nil {
		pl.at = min(from+time.Duration(float64(time.Since(began))*pl.speed), max(pl.next.At, from))
	}
}

// key acts on a key.
func (pl *player) key(k key) error {
	pl.touched, pl.message = true, ""
	if pl.asking != nil {
		return pl.typed(k)
	}
	switch k {
	case keyQuit, keyInterrupt:
		return errQuit
	case keyPause:
		pl.paused = !pl.paused
	case keyStep:
		if pl.paused {
			return pl.advance()
		}
	case keyRight:
		return pl.seek(pl.at + jump)
	case keyLeft:
		return pl.seek(pl.at - jump)
	case keyNext, keyPrevious:
		return pl.jumpMark(k == keyNext)
	case keyFaster, '=':
		pl.speed = min(pl.speed*2, maxSpeed)
	case keySlower, '_':
		pl.speed = max(pl.speed/2, minSpeed)
	case keyFind:
		pl.asking = new(string)
	}
	return nil
}

// jumpMark goes to the next mark, or to the one before.
func (pl *player) jumpMark(ahead bool) error {
	marks := pl.tape.Marks
	if len(marks) == 0 {
		pl.message = "the recording has no marks"
		return nil
	}
	if ahead {
		for _, m := range marks {
			if m.At > pl.at {
				return pl.seek(m.At)
			}
		}
		pl.message = "there is no later mark"
		return nil
	}
	to := time.Duration(0)
	for _, m := range marks {
		if m.At < pl.at-markSlack {
			to = m.At
		}
	}
	return pl.seek(to)
}

// typed takes a key of the text to find.
func (pl *player) typed(k key) error {
	switch {
	case k == keyInterrupt || k == keyEscape:
		pl.asking = nil
	case k == keyErase:
		if r := []rune(*pl.asking); len(r) > 0 {
			*pl.asking = string(r[:len(r)-1])
		}
	case k == keyEnter:
		if *pl.asking != "" {
			pl.found = *pl.asking
		}
		pl.asking = nil
		return pl.findText(pl.found)
	case k >= ' ' && k < keyRight && len(*pl.asking) < 200:
		*pl.asking += string(rune(k))
	}
	return nil
}

// findText goes to where a text is shown next, once more than it is now. It pauses there.
func (pl *player) findText(text string) error {
	if text == "" {
		return nil
	}
	back, screenful := pl.at, pl.count(text)
	for looked := pl.at; pl.next != nil; {
		if err := pl.advance(); err != nil {
			return err
		}
		if pl.next != nil && pl.next.At-looked < findEvery {
			continue
		}
		looked = pl.at
		now := pl.count(text)
		if now > screenful {
			pl.paused = true
			pl.message = "found " + client.CleanLine(text)
			return nil
		}
		screenful = now
	}
	if err := pl.seek(back); err != nil {
		return err
	}
	pl.message = client.CleanLine(text) + " is not shown after this"
	return nil
}

// count is how often the screen shows a text.
func (pl *player) count(text string) (n int) {
	_, rows := pl.screen.Size()
	for y := range rows {
		n += strings.Count(strings.ToLower(pl.screen.Text(y)), strings.ToLower(text))
	}
	return n
}
