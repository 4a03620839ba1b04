package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"sallyport.dev/client"
	"sallyport.dev/recording"
)

type playFlags struct {
	speed      float64
	maxIdle    time.Duration
	from       string
	text, cast bool
}

func (p *program) newPlayCommand() *cobra.Command {
	var flags playFlags
	cmd := &cobra.Command{
		Use:   "play [SESSION | FILE]",
		Short: "Play back a recorded session",
		Long: `Play back a recorded session, from the server or from an asciicast file (- is standard
input); without an argument your newest one. On a terminal: space pauses, . steps while
paused, the arrows left and right jump five seconds, q quits.

Sequences that would ask your terminal something, or set its title or clipboard, are
left out. --cast writes the recording as it is.`,
		Example: `  sallyport play
  sallyport play --speed 4 --max-idle 1s --from 2m alice-0a1b2c3d4e5f67890
  sallyport play --text alice-0a1b2c3d4e5f67890 | less`,
		Args:              between(0, 1, "want one SESSION or FILE"),
		ValidArgsFunction: p.completeRecordings,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.play(cmd.Context(), strings.Join(args, ""), flags)
		},
	}
	f := cmd.Flags()
	f.Float64Var(&flags.speed, "speed", 1, "so many times as fast")
	f.DurationVar(&flags.maxIdle, "max-idle", 2*time.Second, "shorten pauses to this; 0 keeps them")
	f.StringVar(&flags.from, "from", "", "start at this `time` (90s, 2m, 1:30)")
	f.BoolVar(&flags.text, "text", false, "write plain text at once")
	f.BoolVar(&flags.cast, "cast", false, "write the asciicast file")
	cmd.MarkFlagsMutuallyExclusive("text", "cast")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name {
		case "idle-limit":
			name = "max-idle"
		case "jump":
			name = "from"
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
		return usagef("--max-idle %s: want 0 or more", flags.maxIdle)
	}
	from, err := parseOffset(flags.from)
	if err != nil {
		return err
	}
	file, err := p.openRecording(ctx, what)
	if err != nil {
		return err
	}
	defer file.Close()
	switch {
	case flags.cast:
		_, err = io.Copy(p.stdout, file)
		return err
	case flags.text:
		return p.dumpText(file)
	}
	return p.playFile(ctx, file, from, flags)
}

// parseOffset reads how far into a recording: 90s, 2m or 1:30.
func parseOffset(s string) (time.Duration, error) {
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
			return 0, usagef("--from %q: want 90s, 2m, 1:30 or 1:00:00", s)
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

func (p *program) dumpText(file io.Reader) error {
	reader, err := recording.NewReader(file)
	if err != nil {
		return err
	}
	t := newTranscript(p.stdout)
	for {
		e, err := reader.Next()
		if err == io.EOF {
			return t.close()
		}
		if err != nil {
			return errors.Join(t.close(), err)
		}
		if e.Kind == recording.KindOutput {
			t.write(e.Data)
		}
	}
}

func (p *program) playFile(ctx context.Context, file io.ReadSeeker, from time.Duration, flags playFlags) error {
	out, ok := p.stdout.(*os.File)
	live := ok && term.IsTerminal(int(out.Fd()))
	pl := &player{file: file, out: bufio.NewWriter(p.stdout), speed: flags.speed, maxIdle: flags.maxIdle, live: live}
	if err := pl.rewind(); err != nil {
		return err
	}
	if live {
		terminal := &client.Terminal{Stdin: p.stdin, Stdout: p.stdout, Stderr: p.stderr}
		if terminal.Interactive() {
			if err := terminal.MakeRaw(); err != nil {
				return err
			}
			defer terminal.Restore()
			keys, stop := readKeys(p.stdin)
			defer stop()
			pl.keys = keys
		}
		defer pl.reset()
	}
	return pl.run(ctx, from)
}
