package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport.dev/client"
	"sallyport.dev/playback"
)

type playFlags struct {
	speed      float64
	maxIdle    time.Duration
	from       string
	until      time.Duration
	untilText  string
	command    int
	text, cast bool
	output     string
	format     string
	force      bool
}

func (p *program) newPlayCommand() *cobra.Command {
	var flags playFlags
	cmd := &cobra.Command{
		Use:   "play [SESSION | FILE]",
		Short: "Play back a recorded session",
		Long: `Play back a recorded session, from the server or from an asciicast file (- is standard
input); without an argument your newest one. On a terminal: space pauses, . steps while
paused, the arrows left and right jump five seconds, q quits. In a pipe or a file, it is
written as plain text.

Nothing that a recorded program wrote reaches your terminal as it was. --cast writes the
recording as it is.`,
		Example: `  sallyport play
  sallyport play --speed 4 --idle-limit 1s --at 2m alice-0a1b2c3d4e5f67890
  sallyport play --text alice-0a1b2c3d4e5f67890 | less
  sallyport play --output incident.html alice-0a1b2c3d4e5f67890`,
		Args:              between(0, 1, "want one SESSION or FILE"),
		ValidArgsFunction: p.completeRecordings,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(p.playFormat(flags), cmd.Flags().Changed); err != nil {
				return err
			}
			return p.play(cmd.Context(), strings.Join(args, ""), flags)
		},
	}
	f := cmd.Flags()
	f.Float64Var(&flags.speed, "speed", 1, "so many times as fast")
	f.DurationVar(&flags.maxIdle, "idle-limit", 2*time.Second, "shorten pauses to this; 0 keeps them")
	f.StringVar(&flags.from, "at", "", "start at this `time` (90s, 2m, 1:30)")
	f.IntVar(&flags.command, "command", 0, "start at the command or marker with this `number`")
	f.StringVar(&flags.untilText, "until", "", "with --text, in a pipe or with --output: stop at this `time`")
	f.StringVarP(&flags.output, "output", "o", "", "write it into this `file` instead: .txt, .cast, .html (a page that plays it) or .gif; - is standard output")
	f.StringVar(&flags.format, "format", "", "what to write: text, cast, html or gif")
	f.BoolVar(&flags.force, "force", false, "replace the file of --output")
	f.BoolVar(&flags.text, "text", false, "write plain text at once")
	f.BoolVar(&flags.cast, "cast", false, "write the asciicast file")
	cmd.MarkFlagsMutuallyExclusive("text", "cast", "output")
	cmd.MarkFlagsMutuallyExclusive("at", "command")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name {
		case "max-idle":
			name = "idle-limit"
		case "from", "jump":
			name = "at"
		}
		return pflag.NormalizedName(name)
	})
	return cmd
}

func (p *program) play(ctx context.Context, what string, flags playFlags) error {
	if flags.speed <= 0 || flags.speed > 1000 {
		return usagef("--speed %v: want more than 0 and at most 1000", flags.speed)
	}
	if flags.maxIdle < 0 {
		return usagef("--idle-limit %s: want 0 or more", flags.maxIdle)
	}
	if flags.command < 0 {
		return usagef("--command %d: want 1 or more", flags.command)
	}
	from, err := parseOffset("--at", flags.from)
	if err != nil {
		return err
	}
	if flags.until, err = parseOffset("--until", flags.untilText); err != nil {
		return err
	}
	file, err := p.openRecording(ctx, what)
	if err != nil {
		return err
	}
	defer file.Close()
	switch format := p.playFormat(flags); {
	case flags.output != "":
		return p.writeRecording(file, format, from, flags)
	case format != "":
		return p.writeFormat(p.stdout, file, format, from, flags)
	}
	return p.playFile(ctx, file, from, flags)
}

// parseOffset reads how far into a recording: 90s, 2m or 1:30.
func parseOffset(flag, s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return d, nil
	}
	var total int
	for i, part := range strings.Split(s, ":") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 || n > 1<<20 || total > 1<<20 || i > 0 && (n > 59 || len(part) != 2) || i > 2 {
			return 0, usagef("%s %q: want 90s, 2m, 1:30 or 1:00:00", flag, s)
		}
		total = total*60 + n
	}
	return time.Duration(total) * time.Second, nil
}

// openRecording opens a file, or fetches the recording of a session into one that has
// no name. The caller closes it.
func (p *program) openRecording(ctx context.Context, what string) (*os.File, error) {
	if what == "-" {
		return spool(func(w io.Writer) error {
			_, err := io.Copy(w, p.stdin)
			return err
		})
	}
	if what != "" {
		if file, err := os.Open(what); err == nil {
			return file, nil
		} else if strings.ContainsAny(what, `/\`) {
			return nil, err
		}
	}
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	if what == "" {
		if what, err = p.newestRecording(ctx); err != nil {
			return nil, err
		}
	}
	return spool(func(w io.Writer) error { return fetch(ctx, api, what, w) })
}

// newestRecording is the id of the caller's session whose recording is the newest.
func (p *program) newestRecording(ctx context.Context) (string, error) {
	me, err := p.whoami(ctx)
	if err != nil {
		return "", err
	}
	sessions, err := p.sessions(ctx, sessionFlags{owner: me.Principal, limit: 100})
	if err != nil {
		return "", err
	}
	for _, s := range sessions {
		if s.Recorded {
			return s.SessionID, nil
		}
	}
	return "", fmt.Errorf("there is no recorded session of yours (%s); sallyport sessions lists those that you may see", me.Principal)
}

// spool lets fill write a temporary file, mode 0600, and returns it at its start.
func spool(fill func(io.Writer) error) (*os.File, error) {
	file, err := os.CreateTemp("", "sallyport-*.cast")
	if err != nil {
		return nil, fmt.Errorf("making a temporary file: %w", err)
	}
	defer os.Remove(file.Name()) // where open files cannot be removed, it stays
	if err := fill(file); err != nil {
		file.Close()
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// fetch copies what there is of a session's recording.
func fetch(ctx context.Context, api *client.API, id string, w io.Writer) error {
	in := client.GetRecordingInput{SessionID: id}
	for {
		out, err := api.GetRecording(ctx, in)
		if err != nil {
			return err
		}
		if _, err := w.Write(out.Data); err != nil {
			return fmt.Errorf("keeping the recording: %w", err)
		}
		if out.Done || len(out.Data) == 0 {
			return nil
		}
		if out.NextOffset <= in.Offset {
			return fmt.Errorf("the server's answer does not go on from byte %d", in.Offset)
		}
		in.Offset = out.NextOffset
	}
}

// playFile plays a recording on a terminal.
func (p *program) playFile(ctx context.Context, file io.ReadSeeker, from time.Duration, flags playFlags) error {
	tape, err := playback.NewTape(file)
	if err != nil {
		return err
	}
	if flags.command > 0 {
		if from, err = commandAt(tape, flags.command); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	stage, err := p.newStage()
	if err != nil {
		return err
	}
	defer stage.leave()
	pl := newPlayer(tape)
	pl.speed, pl.maxIdle, pl.keys = flags.speed, flags.maxIdle, stage.keys
	pl.show, pl.resized = stage.draw, stage.resize
	err = pl.run(ctx, from)
	stage.last = pl.screen
	return err
}

// commandAt is when the n-th command of a recording began; the n-th marker, where none is
// known.
func commandAt(tape *playback.Tape, n int) (time.Duration, error) {
	marks := slices.DeleteFunc(slices.Clone(tape.Marks), func(m playback.Mark) bool { return !m.Command })
	if len(marks) == 0 {
		marks = tape.Marks
	}
	if n > len(marks) {
		return 0, fmt.Errorf("there is no command %d: the recording tells of %d", n, len(marks))
	}
	return marks[n-1].At, nil
}
