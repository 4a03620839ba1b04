package client

import (
	"errors"
	"fmt"
)

// Link is one websocket connection under a data channel. Read is called by one
// goroutine; the bytes it returns stay valid until the next Read. The other methods
// may be called by any.
type Link interface {
	Read() (text bool, p []byte, err error)
	Write(text bool, p []byte) error
	Ping() error
	// OnPong sets what is called, by Read's goroutine, for every pong.
	OnPong(func())
	Close() error
}

// RefusedError is a server's refusal to open a websocket.
type RefusedError struct {
	Status int    // HTTP status
	Text   string // status line or body, shortened
}

// Error implements error.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("server refused the data channel with status %d: %s", e.Status, e.Text)
}

// Errors that end a data channel.
var (
	// ErrTimedOut says that the session is over: no new token is given out for it.
	ErrTimedOut = errors.New("session timed out")
	// ErrLost says that the link broke and could not be brought back.
	ErrLost = errors.New("connection lost")
)
