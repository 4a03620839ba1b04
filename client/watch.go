package client

import "context"

// WatchSessionInput asks for what a session shows from an offset of its recording on.
type WatchSessionInput struct {
	SessionID string `json:"SessionId"`
	Watch     string `json:"Watch,omitempty"`  // of an earlier answer; empty to begin
	Offset    int64  `json:"Offset,omitempty"` // NextOffset of an earlier answer
	Leave     bool   `json:"Leave,omitempty"`  // ends the watch
}

// WatchSessionOutput is a piece of the recording of a session that goes on.
type WatchSessionOutput struct {
	Watch      string `json:"Watch"`
	Data       []byte `json:"Data"`
	Offset     int64  `json:"Offset"` // of Data
	NextOffset int64  `json:"NextOffset"`
	// Skipped says that Offset is not what was asked for: too much lay between. Data
	// begins with a whole line.
	Skipped   bool   `json:"Skipped"`
	Columns   int    `json:"Columns"` // of the session's terminal now; 0 where nobody knows
	Rows      int    `json:"Rows"`
	Ended     bool   `json:"Ended"`
	EndReason string `json:"EndReason"`
}

// WatchSession answers what a session has shown since an earlier answer, after a wait of
// up to two seconds where there is nothing.
func (a *API) WatchSession(ctx context.Context, in WatchSessionInput) (*WatchSessionOutput, error) {
	return call[WatchSessionOutput](ctx, a, "WatchSession", in)
}
