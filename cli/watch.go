package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
	"sallyport.dev/playback"
	"sallyport.dev/recording"
)

const (
	// watchPatience is how long a server may be away, watchRetry is between two attempts.
	watchPatience = 15 * time.Second
	watchRetry    = 500 * time.Millisecond
	// watchLeave bounds telling the server that the watch is over.
	watchLeave = 3 * time.Second
	// sizeEvery is how often a window is looked at for its size.
	sizeEvery = 250 * time.Millisecond
)

func (p *program) newWatchCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "watch SESSION",
		Short: "Follow a session while it goes on",
		Long: `Follow a session while it goes on: what its recording takes down, as its person sees it.
Nothing that you type gets to it; q or Ctrl-C leaves. In a pipe or a file, it is written as
plain text.

The person is told, if the flow of their grant or the server says so. Each watch is audited.
Sessions that are not recorded cannot be watched.`,
		Example: `  sallyport sessions --active
  sallyport watch alice-0a1b2c3d4e5f67890`,
		Args:              between(1, 1, "want one SESSION, as sallyport sessions --active shows them"),
		ValidArgsFunction: p.completeSessions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.watch(cmd.Context(), args[0])
		},
	}
}

func (p *program) watch(ctx context.Context, id string) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	first, err := api.WatchSession(ctx, client.WatchSessionInput{SessionID: id})
	if err != nil {
		return err
	}
	// The signals that end a process give the terminal back first.
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	w := &watcher{api: api, id: id, watch: first.Watch, live: playback.NewLive()}
	defer w.leave(ctx)
	if isTerminal(p.stdout) {
		err = p.watchOnTerminal(ctx, w, first)
	} else {
		err = p.watchAsText(ctx, w, first)
	}
	if err == nil && w.ended {
		p.say("the session has ended: %s", client.CleanLine(orDash(w.reason)))
	}
	return err
}

// watcher asks for what a session shows.
type watcher struct {
	api    *client.API
	id     string
	watch  string
	offset int64
	live   *playback.Live
	ended  bool
	reason string
}

// leave tells the server that nobody watches any more.
func (w *watcher) leave(ctx context.Context) {
	if w.ended {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), watchLeave)
	defer cancel()
	// Should it not hear of it, the watch ends by silence.
	_, _ = w.api.WatchSession(ctx, client.WatchSessionInput{SessionID: w.id, Watch: w.watch, Leave: true})
}

// ask asks until there is an answer, the server refuses or was away for too long, or ctx
// ends.
func (w *watcher) ask(ctx context.Context) (*client.WatchSessionOutput, error) {
	var lost time.Time
	for {
		out, err := w.api.WatchSession(ctx, client.WatchSessionInput{SessionID: w.id, Watch: w.watch, Offset: w.offset})
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil:
			return out, nil
		case isRefusal(err):
			return nil, err
		case lost.IsZero():
			lost = time.Now()
		case time.Since(lost) > watchPatience:
			return nil, err
		}
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
		}
	}
}

// take applies an answer.
func (w *watcher) take(out *client.WatchSessionOutput) error {
	if !out.Skipped && out.Offset != w.offset && len(out.Data) > 0 || out.NextOffset < out.Offset {
		return fmt.Errorf("the server's answer does not go on from byte %d", w.offset)
	}
	if out.Skipped {
		w.live.Skip(out.Columns, out.Rows)
	}
	if _, err := w.live.Write(out.Data); err != nil {
		return err
	}
	w.offset = out.NextOffset
	w.ended, w.reason = out.Ended, out.EndReason
	if end := w.live.End; end != nil {
		w.reason = end.Reason
	}
	return nil
}

// answer is one of the server's, or why there is none.
type answer struct {
	out *client.WatchSessionOutput
	err error
}

// answers asks on and on, until stop; each question is asked when the answer to the one
// before was taken.
func (w *watcher) answers(ctx context.Context, first *client.WatchSessionOutput) (answers <-chan answer, taken func(), stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	c, next := make(chan answer), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for a := (answer{out: first}); ; {
			select {
			case c <- a:
			case <-ctx.Done():
				return
			}
			select {
			case <-next:
			case <-ctx.Done():
				return
			}
			a.out, a.err = w.ask(ctx)
		}
	})
	taken = func() {
		select {
		case next <- struct{}{}:
		case <-ctx.Done():
		}
	}
	return c, taken, func() { cancel(); wg.Wait() }
}

// watchAsText writes what is shown as plain text, a line when it is left.
func (p *program) watchAsText(ctx context.Context, w *watcher, out *client.WatchSessionOutput) (err error) {
	var text *recording.TextWriter // nil until there is an event: then its width is known
	w.live.Each = func(e recording.Event) error {
		if text == nil {
			cols, _ := w.live.Screen.Size()
			text = recording.NewTextWriter(p.stdout, cols)
		}
		return errors.Join(text.Take(e), text.Flush())
	}
	defer func() {
		if text != nil && err == nil {
			err = text.Close() // writes the line that has not ended
		}
	}()
	for {
		if err := w.take(out); err != nil || w.ended {
			return err
		}
		if out, err = w.ask(ctx); err != nil {
			return ignoreCancel(ctx, err)
		}
	}
}

// watchOnTerminal draws the session's screen until it ends or the person leaves.
func (p *program) watchOnTerminal(ctx context.Context, w *watcher, first *client.WatchSessionOutput) error {
	stage, err := p.newStage()
	if err != nil {
		return err
	}
	defer stage.leave()
	answers, taken, stop := w.answers(ctx, first)
	defer stop()
	size := time.NewTicker(sizeEvery)
	defer size.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-size.C:
			stage.resize()
		case k, ok := <-stage.keys:
			if !ok {
				stage.keys = nil
			}
			if k == keyQuit || k == keyInterrupt {
				return nil
			}
			continue
		case a := <-answers:
			if a.err != nil {
				return ignoreCancel(ctx, a.err)
			}
			if err := w.take(a.out); err != nil {
				return err
			}
			if w.ended {
				stage.last = w.live.Screen
				return nil
			}
			taken()
		}
		if err := stage.draw(w.live.Screen, w.status(stage.view)); err != nil {
			return err
		}
	}
}

func ignoreCancel(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// status is the line below the screen.
func (w *watcher) status(v *playback.View) string {
	cols, rows := w.live.Screen.Size()
	text := fmt.Sprintf(" watching %s  %dx%d", client.CleanLine(w.id), cols, rows)
	if v.Cropped(w.live.Screen) {
		c, r := v.Area()
		text += fmt.Sprintf(", %dx%d of it shown", min(c, cols), min(r, rows))
	}
	return text + "  q leaves"
}
