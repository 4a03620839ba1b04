//go:build windows

package client

import (
	"context"
	"io"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

const utf8CodePage = 65001

// prepareConsole makes the console interpret escape sequences and UTF-8.
func prepareConsole(w io.Writer) (undo func()) {
	f, ok := w.(*os.File)
	if !ok {
		return func() {}
	}
	console := windows.Handle(f.Fd())
	var mode uint32
	if windows.GetConsoleMode(console, &mode) != nil {
		return func() {}
	}
	page, _ := windows.GetConsoleOutputCP()
	windows.SetConsoleOutputCP(utf8CodePage)
	windows.SetConsoleMode(console, mode|windows.ENABLE_PROCESSED_OUTPUT|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING|windows.DISABLE_NEWLINE_AUTO_RETURN)
	return func() {
		windows.SetConsoleMode(console, mode)
		windows.SetConsoleOutputCP(page)
	}
}

// endingSignals end the process, after the terminal was given back.
var endingSignals = []os.Signal{os.Interrupt}

func signalStatus(os.Signal) int { return 130 }

// signalName is how an SSH client names one of endingSignals.
func signalName(os.Signal) string { return "INT" }

func ignoreTerminalStops() (undo func()) { return func() {} }

func isTerminalStop(error) bool { return false }

// typedSignal is the key that a signal stands for, where signals are passed on.
func typedSignal(s os.Signal) (byte, bool) { return 0x03, s == os.Interrupt }

func ignoreBrokenPipes() (undo func()) { return func() {} }

// watchSize calls resized twice a second, until ctx ends: the console has no signal
// for it. continued is never called.
func watchSize(ctx context.Context, resized, continued func()) {
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			resized()
		}
	}
}
