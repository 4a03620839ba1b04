package client

import "context"

// Recording is a recording as the server keeps it.
type Recording struct {
	SessionID      string `json:"SessionId"`
	Recording      string `json:"Recording"` // its name in the store
	NodeID         string `json:"NodeId"`
	NodeName       string `json:"NodeName,omitempty"`
	Owner          string `json:"Owner"` // ARN
	Document       string `json:"Document,omitempty"`
	State          string `json:"State"` // spooled, stored, deleted
	Started        Time   `json:"Started,omitzero"`
	Ended          Time   `json:"Ended,omitzero"`
	EndReason      string `json:"EndReason,omitempty"`
	Size           int64  `json:"Size,omitempty"` // bytes, plain
	SHA256         string `json:"Sha256,omitempty"`
	ManifestSHA256 string `json:"ManifestSha256,omitempty"`
	KeyID          string `json:"KeyId,omitempty"`
	Member         string `json:"Member,omitempty"` // in whose spool it is, if it is spooled
	DeleteAfter    Time   `json:"DeleteAfter,omitzero"`
	DeletedAt      Time   `json:"DeletedAt,omitzero"`
	DeletedBy      string `json:"DeletedBy,omitempty"`
	DeleteReason   string `json:"DeleteReason,omitempty"`
	Held           bool   `json:"Held,omitempty"`
}

// ListRecordingsInput selects recordings.
type ListRecordingsInput struct {
	NodeID     string `json:"NodeId,omitempty"`
	Owner      string `json:"Owner,omitempty"` // ARN
	State      string `json:"State,omitempty"`
	KeyID      string `json:"KeyId,omitempty"`
	Since      Time   `json:"Since,omitzero"`
	Until      Time   `json:"Until,omitzero"`
	MaxResults int    `json:"MaxResults,omitempty"`
	NextToken  string `json:"NextToken,omitempty"`
}

// ListRecordingsOutput is a page of recordings, newest first. It may be empty and have
// another behind it.
type ListRecordingsOutput struct {
	Recordings []Recording `json:"Recordings"`
	NextToken  string      `json:"NextToken"`
}

// ListRecordings lists recordings that the caller may list.
func (a *API) ListRecordings(ctx context.Context, in ListRecordingsInput) (*ListRecordingsOutput, error) {
	return call[ListRecordingsOutput](ctx, a, "ListRecordings", in)
}

// RecordingHold keeps recordings from being deleted.
type RecordingHold struct {
	HoldID        string `json:"HoldId"`
	Of            string `json:"Of"` // session, person, node, request
	Value         string `json:"Value"`
	Reason        string `json:"Reason"`
	HeldBy        string `json:"HeldBy"`
	HeldAt        Time   `json:"HeldAt"`
	ReleasedBy    string `json:"ReleasedBy,omitempty"`
	ReleaseReason string `json:"ReleaseReason,omitempty"`
	ReleasedAt    Time   `json:"ReleasedAt,omitzero"`
}

// RecordingInfo is what is known of a recording.
type RecordingInfo struct {
	Recording     Recording         `json:"Recording"`
	RetentionRule string            `json:"RetentionRule,omitempty"`
	NodeTags      map[string]string `json:"NodeTags,omitempty"` // when the session began
	OwnerTags     map[string]string `json:"OwnerTags,omitempty"`
	Holds         []RecordingHold   `json:"Holds,omitempty"`
	PurgedAt      Time              `json:"PurgedAt,omitzero"`
	PurgeProblem  string            `json:"PurgeProblem,omitempty"`
}

type ofSession struct {
	SessionID string `json:"SessionId"`
	Reason    string `json:"Reason,omitempty"`
}

// GetRecordingInfo tells what is known of a session's recording.
func (a *API) GetRecordingInfo(ctx context.Context, session string) (*RecordingInfo, error) {
	return call[RecordingInfo](ctx, a, "GetRecordingInfo", ofSession{SessionID: session})
}

// VerifiedRecording is what the server found when it read all of a recording.
type VerifiedRecording struct {
	Recording      string `json:"Recording"`
	Verified       bool   `json:"Verified"`
	SHA256         string `json:"Sha256,omitempty"`
	Size           int64  `json:"Size,omitempty"`
	ManifestSHA256 string `json:"ManifestSha256,omitempty"`
	Chunks         int    `json:"Chunks,omitempty"`
	AuditMember    string `json:"AuditMember,omitempty"`
	AuditSeq       int64  `json:"AuditSeq,omitempty"`
	Damage         []struct {
		Object string `json:"Object"`
		Frame  int64  `json:"Frame,omitempty"`
		What   string `json:"What"`
	} `json:"Damage,omitempty"`
}

// VerifyRecording has the server verify a session's recording.
func (a *API) VerifyRecording(ctx context.Context, session string) (*VerifiedRecording, error) {
	return call[VerifiedRecording](ctx, a, "VerifyRecording", ofSession{SessionID: session})
}

// DeletedRecording tells what became of a deletion.
type DeletedRecording struct {
	Recording    string `json:"Recording"`
	PurgeProblem string `json:"PurgeProblem,omitempty"` // why the store still has something
}

// DeleteRecording deletes a session's recording.
func (a *API) DeleteRecording(ctx context.Context, session, reason string) (*DeletedRecording, error) {
	return call[DeletedRecording](ctx, a, "DeleteRecording", ofSession{session, reason})
}

// HoldRecordingInput says what is held: one of the first four.
type HoldRecordingInput struct {
	SessionID string `json:"SessionId,omitempty"`
	Owner     string `json:"Owner,omitempty"` // a user's name, or an ARN
	NodeID    string `json:"NodeId,omitempty"`
	RequestID string `json:"RequestId,omitempty"`
	Reason    string `json:"Reason"`
}

// HoldRecordingOutput is a new hold.
type HoldRecordingOutput struct {
	HoldID     string `json:"HoldId"`
	Recordings int64  `json:"Recordings"` // that it is on now
}

// HoldRecording keeps recordings from being deleted.
func (a *API) HoldRecording(ctx context.Context, in HoldRecordingInput) (*HoldRecordingOutput, error) {
	return call[HoldRecordingOutput](ctx, a, "HoldRecording", in)
}

// ReleaseRecordingHold ends a hold.
func (a *API) ReleaseRecordingHold(ctx context.Context, hold, reason string) (*RecordingHold, error) {
	out, err := call[struct{ Hold RecordingHold }](ctx, a, "ReleaseRecordingHold", struct {
		HoldID string `json:"HoldId"`
		Reason string `json:"Reason"`
	}{hold, reason})
	if err != nil {
		return nil, err
	}
	return &out.Hold, nil
}

// ListRecordingHoldsOutput is a page of holds.
type ListRecordingHoldsOutput struct {
	Holds     []RecordingHold `json:"Holds"`
	NextToken string          `json:"NextToken"`
}

// ListRecordingHolds lists holds, those that were released too if wanted.
func (a *API) ListRecordingHolds(ctx context.Context, released bool, token string) (*ListRecordingHoldsOutput, error) {
	return call[ListRecordingHoldsOutput](ctx, a, "ListRecordingHolds", struct {
		Released  bool   `json:"Released,omitempty"`
		NextToken string `json:"NextToken,omitempty"`
	}{released, token})
}

// RewrapRecordingsInput says whose keys are wrapped anew.
type RewrapRecordingsInput struct {
	FromKeyID  string `json:"FromKeyId,omitempty"` // empty for all that another key than the one of now wraps
	MaxResults int    `json:"MaxResults,omitempty"`
	NextToken  string `json:"NextToken,omitempty"`
}

// RewrapRecordingsOutput says how far it went.
type RewrapRecordingsOutput struct {
	KeyID     string `json:"KeyId"`
	Rewrapped int    `json:"Rewrapped"`
	Failed    []struct {
		Recording string `json:"Recording"`
		Error     string `json:"Error"`
	} `json:"Failed,omitempty"`
	NextToken string `json:"NextToken,omitempty"`
}

// RewrapRecordings wraps the keys of some recordings anew.
func (a *API) RewrapRecordings(ctx context.Context, in RewrapRecordingsInput) (*RewrapRecordingsOutput, error) {
	return call[RewrapRecordingsOutput](ctx, a, "RewrapRecordings", in)
}
