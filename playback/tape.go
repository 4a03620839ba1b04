package playback

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"sallyport.dev/recording"
	"sallyport.dev/transcript"
)

// Tape is a recording that can be played from any time on.
type Tape struct {
	Header recording.Header
	// Length is the time of the last event.
	Length time.Duration
	// Columns and Rows are the largest that the terminal was.
	Columns, Rows int
	// Marks are the points to jump to, in order: commands and markers.
	Marks []Mark

	file   io.ReadSeeker
	reader *recording.Reader
}

// Mark is a point of a recording that has a name.
type Mark struct {
	At      time.Duration
	Label   string
	Command bool // it is a command, and not a marker
}

// maxMarks bounds the markers that are kept of a recording; later ones are not.
const maxMarks = 10_000

// NewTape reads a recording once, to its end, and rewinds it. A last line that a crash cut
// off is left out.
func NewTape(file io.ReadSeeker) (*Tape, error) {
	t := &Tape{file: file}
	if err := t.Rewind(); err != nil {
		return nil, err
	}
	t.Header = t.reader.Header()
	t.Columns, t.Rows = bounded(t.Header.Width, t.Header.Height)
	for {
		e, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		t.note(e)
	}
	if err := t.findCommands(); err != nil {
		return nil, err
	}
	return t, t.Rewind()
}

// findCommands adds the commands that were run to the marks.
func (t *Tape) findCommands() error {
	if _, err := t.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("rewinding the recording: %w", err)
	}
	commands, err := transcript.Commands(t.file)
	if err != nil {
		return err
	}
	for _, c := range commands {
		t.Marks = append(t.Marks, Mark{At: c.At, Label: c.Text, Command: true})
	}
	slices.SortStableFunc(t.Marks, func(a, b Mark) int { return cmp.Compare(a.At, b.At) })
	return nil
}

func (t *Tape) note(e recording.Event) {
	t.Length = max(t.Length, e.At)
	switch e.Kind {
	case recording.KindResize:
		if cols, rows, ok := parseSize(e.Data); ok {
			cols, rows = bounded(cols, rows)
			t.Columns, t.Rows = max(t.Columns, cols), max(t.Rows, rows)
		}
	case recording.KindMarker:
		if len(t.Marks) < maxMarks {
			t.Marks = append(t.Marks, Mark{At: e.At, Label: e.Data})
		}
	}
}

// Rewind goes back to the beginning.
func (t *Tape) Rewind() error {
	if _, err := t.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("rewinding the recording: %w", err)
	}
	reader, err := recording.NewReader(t.file)
	t.reader = reader
	return err
}

// Next returns the next event, or io.EOF.
func (t *Tape) Next() (recording.Event, error) { return t.reader.Next() }

// Screen is an empty screen as the recording begins with.
func (t *Tape) Screen() *Screen { return NewScreen(t.Header.Width, t.Header.Height) }

// FrameOptions say which part of a recording is shown, and how.
type FrameOptions struct {
	IdleLimit time.Duration // pauses are cut to this; 0 keeps them
	From, To  time.Duration // of the recording; To 0 is its end
	Speed     float64       // 0 is 1
	Interval  time.Duration // at least so much lies between two frames
}

// Frame is a moment at which the screen is shown.
type Frame struct {
	At       time.Duration // in what is played: cut, and by its speed
	Recorded time.Duration // in the recording
	Screen   *Screen       // changes with the next frame
}

// Frames calls show for the moments at which the screen changed, in order: the first at 0,
// the last as it was at the end.
func (t *Tape) Frames(o FrameOptions, show func(Frame) error) error {
	if err := t.Rewind(); err != nil {
		return err
	}
	m := film{o: o, screen: t.Screen(), show: show}
	if m.o.Speed == 0 {
		m.o.Speed = 1
	}
	for {
		e, err := t.Next()
		if err == io.EOF || err == nil && o.To > 0 && e.At > o.To {
			return m.finish()
		}
		if err == nil {
			err = m.event(e)
		}
		if err != nil {
			return err
		}
	}
}

// film gathers events into frames.
type film struct {
	o      FrameOptions
	screen *Screen
	show   func(Frame) error

	begun   bool
	last    time.Duration // of the last event, in the recording
	played  time.Duration // likewise, in what is played
	changed bool          // since the last frame
	since   time.Duration // when the change began, in what is played
	shown   time.Duration // of the last frame
}

func (m *film) event(e recording.Event) error {
	if e.At > m.o.From && !m.begun {
		m.begun, m.last, m.changed = true, m.o.From, false
		if err := m.frame(0); err != nil {
			return err
		}
	}
	if m.begun {
		gap := e.At - m.last
		if m.o.IdleLimit > 0 {
			gap = min(gap, m.o.IdleLimit)
		}
		m.played += time.Duration(float64(gap) / m.o.Speed)
		if m.changed && m.played-m.shown >= m.o.Interval && m.played > m.since {
			if err := m.frame(max(m.since, m.shown+m.o.Interval)); err != nil {
				return err
			}
		}
	}
	m.last = max(m.last, e.At)
	if e.Kind == recording.KindOutput || e.Kind == recording.KindResize {
		if !m.changed {
			m.changed, m.since = true, m.played
		}
		Apply(m.screen, e)
	}
	return nil
}

func (m *film) frame(at time.Duration) error {
	m.changed, m.shown = false, at
	return m.show(Frame{At: at, Recorded: m.last, Screen: m.screen})
}

func (m *film) finish() error {
	if !m.begun || m.changed {
		return m.frame(max(m.played, m.shown))
	}
	return nil
}
