package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"sallyport.dev/wire"
)

// request is what members ask of each other on the subjects of nodes and sessions.
type request struct {
	Op       string             `json:"op"` // open, send, ping, remove, keys; end, complete, watch
	Session  *Session           `json:"session,omitempty"`
	Start    *wire.StartSession `json:"start,omitempty"`
	Options  Options            `json:"options,omitzero"`
	Frame    []byte             `json:"frame,omitempty"` // for the node's control channel
	Cause    *Cause             `json:"cause,omitempty"`
	Complete *wire.TaskComplete `json:"complete,omitempty"`
	Watch    *WatchRequest      `json:"watch,omitempty"`
}

// reply is the answer; Code tells errors apart that callers must.
type reply struct {
	Code  string `json:"code,omitempty"`
	Error string `json:"error,omitempty"`

	Watch *WatchPiece `json:"watch,omitempty"`
}

// codes are the errors that keep their identity between members.
var codes = map[string]error{
	"NotConnected": ErrNotConnected,
	"Ended":        ErrEnded,
	"Stopped":      ErrStopped,

	"Recording":     ErrRecording,
	"RecordingFull": ErrRecordingFull,
	"NotRecorded":   ErrNotRecorded,
	"Watchers":      ErrWatchers,
	"NoWatch":       ErrNoWatch,
}

func replyFor(err error) []byte {
	var r reply
	if err != nil {
		r = reply{Code: "Error", Error: err.Error()}
		for code, e := range codes {
			if errors.Is(err, e) && (r.Code == "Error" || errors.Is(e, codes[r.Code])) {
				r.Code = code // of errors that are others, too, the narrowest
			}
		}
	}
	b, _ := json.Marshal(r) // strings always encode
	return b
}

// ask sends a request to the member that serves subject.
func (g *Gateway) ask(ctx context.Context, subject string, req request) error {
	_, err := g.question(ctx, subject, req)
	return err
}

// question is ask where the answer says more than whether it worked.
func (g *Gateway) question(ctx context.Context, subject string, req request) (r reply, err error) {
	data, err := json.Marshal(req)
	if err != nil {
		return r, fmt.Errorf("encoding %s: %w", req.Op, err)
	}
	answer, err := g.cfg.Cluster.Request(ctx, subject, data)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(answer, &r); err != nil {
		return r, fmt.Errorf("decoding answer to %s: %w", req.Op, err)
	}
	if r.Code == "" {
		return r, nil
	}
	if e, ok := codes[r.Code]; ok {
		return r, &remoteError{text: r.Error, is: e}
	}
	return r, errors.New(r.Error)
}

// remoteError is an error of another member that keeps its identity.
type remoteError struct {
	text string
	is   error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }
