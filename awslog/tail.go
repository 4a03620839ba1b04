package awslog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"sallyport.dev/recording"
)

// lines takes the text of a session.
type lines interface {
	// Write takes text, in pieces of any size.
	io.Writer
	// at says when what is written next was shown, since the session's start.
	at(time.Duration)
	// started says when the session began, before all else.
	started(time.Time)
}

// tail reads a recording while it grows, and writes the text that a terminal showed.
type tail struct {
	open   func(ctx context.Context, name string) (Recording, error)
	name   string
	to     lines
	offset int64
	line   []byte // of the recording, not whole yet
	text   *recording.TextWriter
	ended  bool // the recording's last event was read
}

// read reads what has come since it was called last, and reports whether there was any.
func (t *tail) read(ctx context.Context) (more bool, err error) {
	r, err := t.open(ctx, t.name)
	if err != nil {
		return false, fmt.Errorf("opening the recording: %w", err)
	}
	defer r.Close()
	size := r.Size()
	if size <= t.offset {
		return false, nil // as of most live sessions, every second
	}
	b := bufio.NewReaderSize(io.NewSectionReader(r, t.offset, size-t.offset), 64<<10)
	for t.offset < size && !t.ended {
		part, err := b.ReadSlice('\n')
		t.offset += int64(len(part))
		t.line = append(t.line, part...)
		switch {
		case len(t.line) > recording.MaxLine:
			return true, fmt.Errorf("%w: a line has more than %d bytes", recording.ErrFormat, recording.MaxLine)
		case errors.Is(err, bufio.ErrBufferFull), err == io.EOF && t.offset == size:
			continue
		case err != nil:
			return true, fmt.Errorf("reading the recording: %w", err)
		}
		if err := t.take(t.line); err != nil {
			return true, err
		}
		t.line = t.line[:0]
		if err := ctx.Err(); err != nil {
			return true, err
		}
	}
	return true, nil
}

// take reads one line of the recording.
func (t *tail) take(line []byte) error {
	if t.text == nil {
		h, err := recording.ParseHeader(line)
		if err != nil {
			return err
		}
		t.text = recording.NewTextWriter(t.to, h.Width)
		t.to.started(h.Started)
		return nil
	}
	e, err := recording.ParseEvent(line)
	if err != nil {
		return err
	}
	t.to.at(e.At)
	if recording.ParseEnd(e) != nil {
		t.ended = true
		return t.text.Close()
	}
	if err := t.text.Take(e); err != nil {
		return err
	}
	return t.text.Flush() // so that each line has its own time
}

// cutOff ends the text of a recording that has no end.
func (t *tail) cutOff() error {
	if t.text == nil {
		return nil
	}
	if err := t.text.Close(); err != nil {
		return err
	}
	_, err := io.WriteString(t.to, "[the recording has no end: the server that wrote it was lost]\n")
	return err
}
