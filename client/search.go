package client

import "context"

// SearchSessionsInput searches what sessions showed and what was typed in them: for a text,
// in capitals or not, or for a regular expression in RE2's syntax. The others are as in
// ListSessionsInput; MaxResults counts sessions, MaxHits lines of each.
type SearchSessionsInput struct {
	Text       string `json:"Text,omitempty"`
	Regexp     string `json:"Regexp,omitempty"`
	State      string `json:"State,omitempty"`
	NodeID     string `json:"NodeId,omitempty"`
	Owner      string `json:"Owner,omitempty"`
	Since      Time   `json:"Since,omitzero"`
	Until      Time   `json:"Until,omitzero"`
	MaxResults int    `json:"MaxResults,omitempty"`
	MaxHits    int    `json:"MaxHits,omitempty"`
	NextToken  string `json:"NextToken,omitempty"`
}

// SearchSessionsOutput is one page of what was found, newest sessions first. Unfinished
// says that time was up; NextToken goes on, also where the page is empty.
type SearchSessionsOutput struct {
	Sessions   []FoundSession `json:"Sessions"`
	NextToken  string         `json:"NextToken,omitempty"`
	Unfinished bool           `json:"Unfinished,omitempty"`
}

// FoundSession is a session with the first of its lines that match.
type FoundSession struct {
	Session  Session     `json:"Session"`
	Hits     []FoundLine `json:"Hits"`
	MoreHits bool        `json:"MoreHits,omitempty"`
}

// FoundLine is a line that matches, or what stands around the match (Cut); the match is
// from From to To, in characters. It is not to be shown on a terminal as it is.
type FoundLine struct {
	OffsetMillis int64  `json:"OffsetMillis"` // since the session's start
	Kind         string `json:"Kind"`         // shown or typed
	Line         string `json:"Line"`
	From         int    `json:"From"`
	To           int    `json:"To"`
	Cut          bool   `json:"Cut,omitempty"`
}

// ListTransfersInput asks what a session did to files through the SSH front door.
type ListTransfersInput struct {
	SessionID string `json:"SessionId"`
	NextToken string `json:"NextToken,omitempty"`
}

// ListTransfersOutput is one page of that, oldest first.
type ListTransfersOutput struct {
	Transfers []Transfer `json:"Transfers"`
	NextToken string     `json:"NextToken,omitempty"`
}

// Transfer is something done to a file. Details are those of its audit record: path,
// target, bytes, sha256, error.
type Transfer struct {
	Time      Time              `json:"Time"`
	Operation string            `json:"Operation"`
	Details   map[string]string `json:"Details,omitempty"`
}

// SearchSessions answers one page of what was found.
func (a *API) SearchSessions(ctx context.Context, in SearchSessionsInput) (*SearchSessionsOutput, error) {
	return call[SearchSessionsOutput](ctx, a, "SearchSessions", in)
}

// ListTransfers answers one page of a session's file transfers.
func (a *API) ListTransfers(ctx context.Context, in ListTransfersInput) (*ListTransfersOutput, error) {
	return call[ListTransfersOutput](ctx, a, "ListTransfers", in)
}
