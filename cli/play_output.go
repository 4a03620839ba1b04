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

// writeRecording writes a recording into a file, or to standard output for "-".
func (p *program) writeRecording(file *os.File, from time.Duration, flags playFlags) error {
	format, err := chooseFormat(flags.output, flags.format)
	if err != nil {
		return err
	}
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
	switch format {
	case formatText:
		return recording.Text(file, w)
	case formatCast:
		_, err := io.Copy(w, file)
		return err
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
