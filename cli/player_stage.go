package cli

import (
	"io"

	"sallyport.dev/client"
	"sallyport.dev/playback"
)

// stage is the person's terminal while a screen is drawn on it.
type stage struct {
	out      io.Writer
	view     *playback.View
	keys     <-chan key // nil without a person
	terminal *client.Terminal
	stop     func()
	last     *playback.Screen // stays visible when the stage is left
}

// newStage takes the terminal that standard output is; leave gives it back.
func (p *program) newStage() (*stage, error) {
	s := &stage{out: p.stdout, stop: func() {}}
	s.terminal = &client.Terminal{Stdin: p.stdin, Stdout: p.stdout, Stderr: p.stderr}
	if s.terminal.Interactive() {
		if err := s.terminal.MakeRaw(); err != nil {
			return nil, err
		}
		s.keys, s.stop = readKeys(p.stdin)
	}
	size := s.terminal.Size()
	s.view = playback.NewView(int(size.Cols), int(size.Rows))
	_, err := io.WriteString(s.out, s.view.Enter())
	if err != nil {
		s.leave()
	}
	return s, err
}

// resize looks whether the terminal has another size now.
func (s *stage) resize() {
	size := s.terminal.Size()
	s.view.Fit(int(size.Cols), int(size.Rows))
}

func (s *stage) draw(screen *playback.Screen, status string) error {
	_, err := io.WriteString(s.out, s.view.Draw(screen, status))
	return err
}

// leave gives the terminal back, with the last screen in it.
func (s *stage) leave() {
	text := s.view.Leave()
	if s.last != nil {
		text += s.last.Print(int(s.terminal.Size().Cols))
	}
	io.WriteString(s.out, text)
	s.stop()
	s.terminal.Restore()
}
