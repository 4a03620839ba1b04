package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// maxLocalConns bounds the connections that Serve carries at once; more wait to be
	// accepted.
	maxLocalConns = 1024
	acceptPause   = 50 * time.Millisecond
)

// Serve accepts connections from l, once the forward is ready, and carries them until
// ctx ends, the forward does or l fails; it closes l and waits for the connections.
func (f *Forward) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	if err := f.await(ctx); err != nil {
		return err
	}
	var carrying sync.WaitGroup
	defer carrying.Wait()
	carrying.Go(func() {
		select {
		case <-f.over:
			cancel(ErrForwardOver)
		case <-ctx.Done():
		}
	})
	defer cancel(nil) // before the wait
	return f.accept(ctx, l, &carrying)
}

func (f *Forward) accept(ctx context.Context, l net.Listener, carrying *sync.WaitGroup) error {
	slots := make(chan struct{}, maxLocalConns)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return context.Cause(ctx)
		case err != nil && passing(err):
			<-slots
			rest(ctx, acceptPause)
			continue
		case err != nil:
			return fmt.Errorf("accepting a connection: %w", err)
		}
		carrying.Go(func() {
			defer func() { <-slots }()
			f.Carry(ctx, c)
		})
	}
}

func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// passing reports whether accepting failed for a reason that goes away, such as too many
// open files.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Carry opens a connection to the target and carries local over it until both sides
// have ended, or ctx does. It closes local. What happened is told by events.
func (f *Forward) Carry(ctx context.Context, local net.Conn) {
	defer local.Close()
	if f.await(ctx) != nil {
		return
	}
	c := f.newConn(local.RemoteAddr())
	if c.connect(ctx) != nil {
		return
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { local.Close(); c.Close() })
	defer stop()
	c.begin(local)
	var up sync.WaitGroup
	up.Go(func() { c.send(local) })
	c.receive(local)
	up.Wait()
}

// send copies from local to the target. When local has finished, so has the connection's
// half; when it broke, the connection is over.
func (c *conn) send(local net.Conn) {
	_, err := io.Copy(c, struct{ io.Reader }{local})
	if err == nil {
		err = c.CloseWrite()
	}
	if err != nil {
		c.breaks(err)
		c.Close()
		local.Close()
	}
}

// receive copies from the target to local.
func (c *conn) receive(local net.Conn) {
	_, err := c.WriteTo(local)
	if half, ok := local.(interface{ CloseWrite() error }); err == nil && ok {
		err = half.CloseWrite()
	} else if err == nil {
		err = local.Close()
	}
	if err != nil {
		c.Close()
		local.Close()
	}
}
