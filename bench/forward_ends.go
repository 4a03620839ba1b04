package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// What forwards lead to and what they are measured with: a target that takes, gives or
// echoes what each connection's first bytes ask for, a relay that splices, and a pipe
// that takes its time.

// Orders to the target.
const (
	orderTake byte = 'u' // so many bytes; it answers one
	orderGive byte = 'd' // so many bytes
	orderEcho byte = 'e'
	orderSum  byte = 's' // takes so many bytes and answers their digest, then echoes the digest's bytes
)

// orderSize is an order and a number.
const orderSize = 9

// forwardEnds is the state behind the role of a target, a relay or a pipe.
type forwardEnds struct {
	mu        sync.Mutex
	listeners []net.Listener
}

func forwardRole() (operations, func(), error) {
	f := &forwardEnds{}
	stop := func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, l := range f.listeners {
			l.Close()
		}
	}
	return operations{
		"target": handler(func(struct{}) (int, error) { return f.listen(obey) }),
		"relay":  handler(func(to string) (int, error) { return f.listen(func(c net.Conn) { relayTo(c, to) }) }),
		"pipe": handler(func(p slowPipe) (int, error) {
			return f.listen(func(c net.Conn) { p.carry(c) })
		}),
	}, stop, nil
}

// listen serves each connection to a free port, which it returns.
func (f *forwardEnds) listen(serve func(net.Conn)) (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	f.mu.Lock()
	f.listeners = append(f.listeners, l)
	f.mu.Unlock()
	go func() { // ends with the listener, which ends with the process
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// obey does what the first bytes of a connection ask for.
func obey(c net.Conn) {
	var head [orderSize]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return
	}
	n := int64(binary.BigEndian.Uint64(head[1:]))
	switch head[0] {
	case orderTake:
		if take(c, n) == nil {
			c.Write([]byte{1})
		}
	case orderGive:
		give(c, n)
	case orderSum:
		h := sha256.New()
		io.CopyN(h, c, n)
		c.Write(h.Sum(nil))
	case orderEcho:
		p := make([]byte, 4096)
		for {
			k, err := c.Read(p)
			if err != nil {
				return
			}
			c.Write(p[:k])
		}
	}
}

const blockSize = 256 << 10

func give(c net.Conn, n int64) error {
	p := make([]byte, blockSize)
	for n > 0 {
		k, err := c.Write(p[:min(n, blockSize)])
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

func take(c net.Conn, n int64) error {
	p := make([]byte, blockSize)
	for n > 0 {
		k, err := c.Read(p)
		n -= int64(k)
		if err != nil && n > 0 {
			return err
		}
	}
	return nil
}

// order sends an order.
func order(c net.Conn, what byte, n int64) error {
	_, err := c.Write(binary.BigEndian.AppendUint64([]byte{what}, uint64(n)))
	return err
}

// relayTo is the floor: io.Copy between two sockets splices.
func relayTo(c net.Conn, to string) {
	d, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{c, d}, {d, c}} {
		wg.Go(func() {
			io.Copy(way[0], way[1])
			way[0].(*net.TCPConn).CloseWrite()
		})
	}
	wg.Wait()
	d.Close()
}

// slowPipe is a link that takes Delay each way and loses nothing.
type slowPipe struct {
	To    string
	Delay time.Duration
}

// pipeRoom is how much is on the way at most: more than any sender's window.
const pipeRoom = 256

type piece struct {
	due  time.Time
	data []byte
}

func (p slowPipe) carry(c net.Conn) {
	d, err := net.Dial("tcp", p.To)
	if err != nil {
		return
	}
	defer d.Close()
	var wg sync.WaitGroup
	wg.Go(func() { p.oneWay(d, c) })
	p.oneWay(c, d)
	wg.Wait()
}

func (p slowPipe) oneWay(dst, src net.Conn) {
	pieces := make(chan piece, pipeRoom)
	done := make(chan struct{})
	go func() { // ends with pieces
		defer close(done)
		for q := range pieces {
			time.Sleep(time.Until(q.due))
			if _, err := dst.Write(q.data); err != nil {
				src.Close()
			}
		}
		dst.(*net.TCPConn).CloseWrite()
	}()
	for {
		b := make([]byte, blockSize)
		n, err := src.Read(b)
		if n > 0 {
			pieces <- piece{time.Now().Add(p.Delay), b[:n]}
		}
		if err != nil {
			break
		}
	}
	close(pieces)
	<-done
}

// transfer moves n bytes over conns connections at once and returns the seconds that
// it took.
func transfer(ctx context.Context, address string, what byte, conns int, n int64) (float64, error) {
	var all []net.Conn
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	for range conns {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return 0, err
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		all = append(all, c)
	}
	began := time.Now()
	err := each(conns, conns, func(i int) error { return move(all[i], what, n/int64(conns)) })
	return time.Since(began).Seconds(), errors.Join(err, ctx.Err())
}

func move(c net.Conn, what byte, n int64) error {
	if err := order(c, what, n); err != nil {
		return err
	}
	if what == orderGive {
		return take(c, n)
	}
	if err := give(c, n); err != nil {
		return err
	}
	return take(c, 1)
}

// proveIntact sends noise through a forward and compares digests.
func proveIntact(address string, n int64) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	if err := order(c, orderSum, n); err != nil {
		return err
	}
	h := sha256.New()
	noise := rand.NewChaCha8([32]byte{1})
	if _, err := io.CopyN(io.MultiWriter(c, h), noise, n); err != nil {
		return err
	}
	got := make([]byte, sha256.Size)
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if [sha256.Size]byte(got) != [sha256.Size]byte(h.Sum(nil)) {
		return fmt.Errorf("%d bytes arrived otherwise than they were sent", n)
	}
	return nil
}

// newConnections opens connections one after the other, each until one byte came back,
// and returns the median in milliseconds.
func newConnections(address string, count int) (float64, error) {
	var took []float64
	for range count {
		began := time.Now()
		c, err := net.Dial("tcp", address)
		if err != nil {
			return 0, err
		}
		c.SetDeadline(began.Add(patience))
		err = errors.Join(order(c, orderEcho, 0), bounce(c))
		took = append(took, float64(time.Since(began))/1e6)
		if c.Close(); err != nil {
			return 0, err
		}
	}
	return median(took), nil
}

func bounce(c net.Conn) error {
	b := []byte{'x'}
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(c, b)
	return err
}

// bounces returns the median of the round trips of one byte, in microseconds.
func bounces(address string, count int) (float64, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if err := order(c, orderEcho, 0); err != nil {
		return 0, err
	}
	var took []float64
	for range count {
		began := time.Now()
		if err := bounce(c); err != nil {
			return 0, err
		}
		took = append(took, float64(time.Since(began))/1e3)
	}
	return median(took), nil
}
