package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sallyport.dev/playback"
	"sallyport.dev/recording"
)

// What a recording can be written as.
const (
	formatText = "text"
	formatCast = "cast"
	formatHTML = "html"
	formatGIF  = "gif"
)

var playFormats = []string{formatText, formatCast, formatHTML, formatGIF}

// formatOf are the formats by the ends of file names.
var formatOf = map[string]string{
	".txt": formatText, ".text": formatText, ".log": formatText, ".cast": formatCast,
	".html": formatHTML, ".htm": formatHTML, ".gif": formatGIF,
}

// chooseFormat is the format that a file is to have.
func chooseFormat(path, format string) (string, error) {
	if format != "" {
		if !slices.Contains(playFormats, format) {
			return "", usagef("--format %q: want one of %s", format, strings.Join(playFormats, ", "))
		}
		return format, nil
	}
	if found := formatOf[strings.ToLower(filepath.Ext(path))]; found != "" {
		return found, nil
	}
	return "", usagef("--output %q: want a name that ends with .txt, .cast, .html or .gif, or --format %s", path, strings.Join(playFormats, "|"))
}

// playFormat is what a recording is written as, "" if it is played. Names of files that say
// nothing are refused by check.
func (p *program) playFormat(flags playFlags) string {
	switch {
	case flags.output != "":
		format, _ := chooseFormat(flags.output, flags.format)
		return format
	case flags.cast:
		return formatCast
	case flags.text || !isTerminal(p.stdout):
		return formatText
	}
	return ""
}

// check refuses flags that would do nothing, before anything is read.
func (f playFlags) check(format string, given func(flag string) bool) error {
	if f.output != "" {
		if _, err := chooseFormat(f.output, f.format); err != nil {
			return err
		}
	} else if f.format != "" || f.force {
		return usagef("--format and --force want --output FILE")
	}
	for _, no := range []struct {
		format, why string
		flags       []string
	}{
		{"", "a terminal plays to the end; it goes with --text, a pipe and --output", []string{"until"}},
		{formatText, "text is written at once; it goes with a terminal, pages and pictures", []string{"speed", "idle-limit"}},
		{formatCast, "an asciicast is written as it was recorded, whole", []string{"at", "until", "command", "speed", "idle-limit"}},
	} {
		for _, flag := range no.flags {
			if no.format == format && given(flag) {
				return usagef("--%s: %s", flag, no.why)
			}
		}
	}
	return nil
}

// writeRecording writes a recording into a file, or to standard output for "-".
func (p *program) writeRecording(file *os.File, format string, from time.Duration, flags playFlags) error {
	if flags.output == "-" {
		if format == formatGIF && isTerminal(p.stdout) {
			return usagef("--format gif: a terminal shows no pictures; want --output FILE.gif")
		}
		return p.writeFormat(p.stdout, file, format, from, flags)
	}
	return writeNewFile(flags.output, flags.force, func(w io.Writer) error {
		return p.writeFormat(w, file, format, from, flags)
	})
}

func (p *program) writeFormat(w io.Writer, file *os.File, format string, from time.Duration, flags playFlags) error {
	if format == formatCast {
		_, err := io.Copy(w, file)
		return err
	}
	if format == formatText && flags.command == 0 {
		return writeText(w, file, from, flags.until)
	}
	tape, err := playback.NewTape(file)
	if err != nil {
		return err
	}
	if flags.command > 0 {
		if from, err = commandAt(tape, flags.command); err != nil {
			return err
		}
	}
	if format == formatText {
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		return writeText(w, file, from, flags.until)
	}
	options := playback.FrameOptions{IdleLimit: flags.maxIdle, From: from, To: flags.until, Speed: flags.speed}
	if format == formatGIF {
		err = playback.WriteGIF(w, tape, options)
	} else {
		err = playback.WritePage(w, tape, titleOf(tape), factsOf(tape), options)
	}
	if errors.Is(err, playback.ErrTooLong) {
		return fmt.Errorf("%w; --at, --until, --speed and a shorter --idle-limit make it shorter", err)
	}
	return err
}

// writeText writes a part of a recording as plain text; to 0 is its end. The line that
// stands at its beginning is whole.
func writeText(w io.Writer, file io.Reader, from, to time.Duration) error {
	events, err := recording.NewReader(file)
	if err != nil {
		return err
	}
	gate := &gate{to: w}
	text := recording.NewTextWriter(gate, events.Header().Width)
	for {
		e, err := events.Next()
		if err == io.EOF || err == nil && to > 0 && e.At > to {
			gate.open = gate.open || from == 0
			return text.Close()
		}
		if err != nil {
			return errors.Join(text.Close(), err)
		}
		if !gate.open && e.At >= from {
			if err := text.Flush(); err != nil {
				return err
			}
			gate.open = true
		}
		if err := text.Take(e); err != nil {
			return err
		}
	}
}

// gate passes on what is written once it is open.
type gate struct {
	to   io.Writer
	open bool
}

// Write implements io.Writer.
func (g *gate) Write(b []byte) (int, error) {
	if !g.open {
		return len(b), nil
	}
	return g.to.Write(b)
}

func titleOf(tape *playback.Tape) string {
	if tape.Header.Title != "" {
		return tape.Header.Title
	}
	return "Recorded session"
}

// factsOf is what a page says of a recording.
func factsOf(tape *playback.Tape) (facts []playback.Fact) {
	h := tape.Header
	started := ""
	if !h.Started.IsZero() {
		started = h.Started.UTC().Format(time.RFC3339)
	}
	for _, f := range []playback.Fact{
		{Name: "Session", Value: h.Session}, {Name: "Person", Value: h.Principal}, {Name: "Node", Value: h.Node},
		{Name: "Document", Value: h.Document}, {Name: "Reason", Value: h.Reason}, {Name: "Command", Value: h.Command},
		{Name: "Started", Value: started}, {Name: "Lasted", Value: tape.Length.Round(time.Second).String()},
	} {
		if f.Value != "" {
			facts = append(facts, f)
		}
	}
	return facts
}

// writeNewFile lets fill write a file that only its owner can read. It appears when it is
// whole; one that is there already is replaced only by force.
func writeNewFile(path string, force bool, fill func(io.Writer) error) (err error) {
	if _, err := os.Lstat(path); err == nil && !force {
		return fmt.Errorf("%s is there already; --force replaces it", path)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if err := errors.Join(fill(tmp), tmp.Close()); err != nil {
		return err
	}
	if force {
		return os.Rename(tmp.Name(), path)
	}
	if err := os.Link(tmp.Name(), path); !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, os.ErrPermission) {
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("%s is there already; --force replaces it", path)
		}
		return err
	}
	return os.Rename(tmp.Name(), path) // where there are no links
}
