package identity

import "fmt"

// Failure says why a request could not be authenticated.
type Failure string

// Failures.
const (
	MissingToken  Failure = "missing authentication token" // the request is not signed
	Incomplete    Failure = "incomplete signature"         // the signature's parts are missing or malformed
	UnknownKey    Failure = "unknown access key"           // no such key, or it is inactive, or its owner is gone
	BadSignature  Failure = "bad signature"
	OutOfTime     Failure = "request expired" // signed too long ago, or in the future
	WrongScope    Failure = "wrong scope"     // signed for another service, region or day
	ExpiredToken  Failure = "expired token"   // temporary credentials are over
	InvalidToken  Failure = "invalid token"   // the session token is not ours, or of another key
	NameNeeded    Failure = "name needed"     // an SSH key of several users, none of whom is named
	RefusedByHash Failure = "payload hash"    // X-Amz-Content-Sha256 is not that of the body
)

// AuthError tells that a request could not be authenticated. Its message may be shown
// to the caller: it holds no secret and does not tell unknown keys from inactive ones.
type AuthError struct {
	Failure Failure
	Message string
	// AccessKeyID is the key that the request names, for the audit record; it is the
	// caller's claim and no more. It is empty where none could be read.
	AccessKeyID string
}

// Error implements error.
func (e *AuthError) Error() string { return e.Message }

func authError(f Failure, format string, args ...any) *AuthError {
	return &AuthError{Failure: f, Message: fmt.Sprintf(format, args...)}
}
