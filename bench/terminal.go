package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/creack/pty"
)

// terminal is a program on a terminal of its own, as a person has it.
type terminal struct {
	*started
	tty   *os.File
	timer *time.Timer // ends what hangs
	seen  []byte      // what was read and not looked for yet
}

// onTerminal starts a program on a terminal. It is killed after patience.
func (l *lab) onTerminal(cmd *exec.Cmd, name string) (*terminal, error) {
	master, slave, err := pty.Open()
	if err != nil {
		return nil, err
	}
	defer slave.Close()
	if err := pty.Setsize(master, &pty.Winsize{Cols: 80, Rows: 24}); err != nil {
		return nil, errors.Join(err, master.Close())
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	s, err := l.start(cmd, name)
	if err != nil {
		return nil, errors.Join(err, master.Close())
	}
	t := &terminal{started: s, tty: master}
	t.timer = time.AfterFunc(4*patience, func() { cmd.Process.Kill() })
	return t, nil
}

// end hangs up and waits for the program.
func (t *terminal) end() {
	t.timer.Stop()
	t.tty.Close()
	select {
	case <-t.done:
	case <-time.After(5 * time.Second):
		t.stop()
	}
}

// first waits for the first output.
func (t *terminal) first() error {
	b := make([]byte, 4096)
	n, err := t.tty.Read(b)
	t.seen = append(t.seen, b[:n]...)
	return err
}

// after reads until text comes, and drops all up to its end.
func (t *terminal) after(text string) error {
	b := make([]byte, 4096)
	for {
		if i := bytes.Index(t.seen, []byte(text)); i >= 0 {
			t.seen = t.seen[i+len(text):]
			return nil
		}
		n, err := t.tty.Read(b)
		t.seen = append(t.seen, b[:n]...)
		if err != nil {
			return fmt.Errorf("waiting for %q after %q: %w", text, t.seen, err)
		}
	}
}

// rawEcho makes a shell run a program that gives back every key as it comes.
func (t *terminal) rawEcho() error {
	if err := t.first(); err != nil {
		return err
	}
	if _, err := t.tty.WriteString("stty raw -echo; printf 're''ady\\n'; exec cat\r"); err != nil {
		return err
	}
	return t.after("ready\n")
}

// key types one key and returns how long its echo took.
func (t *terminal) key(k byte) (time.Duration, error) {
	var b [64]byte
	began := time.Now()
	if _, err := t.tty.Write([]byte{k}); err != nil {
		return 0, err
	}
	n, err := t.tty.Read(b[:])
	took := time.Since(began)
	if err == nil && (n != 1 || b[0] != k) {
		err = fmt.Errorf("echo of %q is %q", k, b[:n])
	}
	return took, err
}
