package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"sallyport.dev/access"
	"sallyport.dev/archive"
	"sallyport.dev/document"
	"sallyport.dev/grant"
	"sallyport.dev/identity"
	"sallyport.dev/kms"
	"sallyport.dev/node"
	"sallyport.dev/policy"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

// exception makes the error that a client sees. Its HTTP status follows from the code
// (statusOf); the service's own spelling of common codes is the caller's affair.
func exception(code, format string, args ...any) *wire.Exception {
	return &wire.Exception{Code: code, Message: fmt.Sprintf(format, args...), Status: statusOf(code)}
}

// statuses holds the HTTP statuses of the codes whose status is not 400.
var statuses = map[string]int{
	"AccessDenied":                   http.StatusForbidden,
	"UnauthorizedOperation":          http.StatusForbidden,
	"SignatureDoesNotMatch":          http.StatusForbidden,
	"InvalidClientTokenId":           http.StatusForbidden,
	"MissingAuthenticationToken":     http.StatusForbidden,
	"ExpiredToken":                   http.StatusForbidden,
	"AuthFailure":                    http.StatusUnauthorized,
	"NoSuchEntity":                   http.StatusNotFound,
	"EntityAlreadyExists":            http.StatusConflict,
	"DeleteConflict":                 http.StatusConflict,
	"LimitExceeded":                  http.StatusConflict,
	"ConcurrentModification":         http.StatusConflict,
	"EntityTemporarilyUnmodifiable":  http.StatusConflict,
	"InvalidAuthenticationCode":      http.StatusForbidden,
	"InternalServerError":            http.StatusInternalServerError,
	"InternalError":                  http.StatusInternalServerError,
	"InternalFailure":                http.StatusInternalServerError,
	"ServiceFailure":                 http.StatusInternalServerError,
	"KMSInternalException":           http.StatusInternalServerError,
	"DryRunOperationException":       http.StatusPreconditionFailed,
	"InternalServerException":        http.StatusInternalServerError,
	"ServiceUnavailable":             http.StatusServiceUnavailable,
	"RequestEntityTooLargeException": http.StatusRequestEntityTooLarge,
	"RequestEntityTooLarge":          http.StatusRequestEntityTooLarge,
	"RequestTimeout":                 http.StatusRequestTimeout,
	"MethodNotAllowed":               http.StatusMethodNotAllowed,
}

func statusOf(code string) int {
	if status := statuses[code]; status != 0 {
		return status
	}
	return http.StatusBadRequest
}

// dialect spells the codes that services share but do not spell alike.
type dialect int

const (
	denied dialect = iota
	internal
	notFound
	alreadyExists
	inUse
	limitExceeded
	badPolicy
	unknownOperation
	badToken
	unavailable
	tooLarge
	timedOut
)

// code returns a service's spelling of a shared code.
func (s service) code(d dialect) string {
	spelled := map[dialect][3]string{ // JSON, Query, EC2
		denied:           {"AccessDeniedException", "AccessDenied", "UnauthorizedOperation"},
		internal:         {"InternalServerError", "InternalFailure", "InternalError"},
		notFound:         {"DoesNotExistException", "NoSuchEntity", "InvalidParameterValue"},
		alreadyExists:    {"AlreadyExistsException", "EntityAlreadyExists", "InvalidParameterValue"},
		inUse:            {"ResourceInUseException", "DeleteConflict", "DependencyViolation"},
		limitExceeded:    {"LimitExceededException", "LimitExceeded", "ResourceLimitExceeded"},
		badPolicy:        {"MalformedPolicyDocument", "MalformedPolicyDocument", "MalformedPolicyDocument"},
		unknownOperation: {"UnknownOperationException", "InvalidAction", "InvalidAction"},
		badToken:         {"InvalidNextToken", "InvalidInput", "InvalidNextToken"},
		unavailable:      {"ServiceUnavailable", "ServiceUnavailable", "ServiceUnavailable"},
		tooLarge:         {"RequestEntityTooLargeException", "RequestEntityTooLarge", "RequestEntityTooLarge"},
		timedOut:         {"RequestTimeout", "RequestTimeout", "RequestTimeout"},
	}[d][s.protocol]
	switch {
	case d == internal && s.name == "iam":
		return "ServiceFailure"
	case d == internal && s.name == "kms":
		return "KMSInternalException"
	case d == badToken && s.name == "kms":
		return "InvalidMarkerException"
	}
	return spelled
}

// exception turns an error into what the client sees of it. The second result is
// false for errors that have no place in the table: our own faults, of which the
// client learns nothing more.
func (s service) exception(err error) (*wire.Exception, bool) {
	if e := (*wire.Exception)(nil); errors.As(err, &e) {
		return e, true
	}
	if e := (*access.DeniedError)(nil); errors.As(err, &e) {
		return exception(s.code(denied), "%s", e.Error()), true
	}
	if e := (*identity.AuthError)(nil); errors.As(err, &e) {
		return s.authException(e), true
	}
	if e := (*policy.ParseError)(nil); errors.As(err, &e) {
		return exception(s.code(badPolicy), "The policy is not valid: %s", e.Error()), true
	}
	if e := s.domain(err); e != nil {
		return e, true
	}
	if e := s.unread(err); e != nil {
		return e, false
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return exception(s.code(unavailable), "The request could not be finished in time."), false
	}
	return exception(s.code(internal), "An internal error occurred. The server's log tells its cause."), false
}

// domain maps the sentinel errors of the domain packages.
func (s service) domain(err error) *wire.Exception {
	for _, row := range []struct {
		is   error
		code string
	}{
		{identity.ErrNotFound, s.code(notFound)},
		{identity.ErrExists, s.code(alreadyExists)},
		{identity.ErrConflict, s.code(inUse)},
		{identity.ErrLimit, s.code(limitExceeded)},
		{node.ErrNotFound, s.nodeNotFound()},
		{node.ErrInvalidActivation, "InvalidActivation"},
		{node.ErrActivationExpired, "ActivationExpired"},
		{node.ErrRegistrationLimit, "RegistrationLimitExceeded"},
		{node.ErrFingerprint, "MachineFingerprintDoesNotMatch"},
		{node.ErrInvalidPublicKey, "InvalidPublicKey"},
		{session.ErrNotFound, "DoesNotExistException"},
		{grant.ErrNotFound, "DoesNotExistException"},
		{grant.ErrState, "ConflictException"},
		{grant.ErrHash, "ConflictException"},
		{grant.ErrFlowsChanged, "ConflictException"},
		{grant.ErrBusy, "ThrottlingException"},
		{kms.ErrNotFound, "NotFoundException"},
		{kms.ErrExists, "AlreadyExistsException"},
		{kms.ErrLimit, "LimitExceededException"},
		{document.ErrNotFound, "InvalidDocument"},
		{document.ErrVersion, "InvalidDocumentVersion"},
		{document.ErrExists, "DocumentAlreadyExists"},
		{document.ErrDuplicate, "DuplicateDocumentContent"},
		{document.ErrDefault, "InvalidDocumentOperation"},
		{document.ErrLimit, "DocumentVersionLimitExceeded"},
	} {
		if errors.Is(err, row.is) {
			return exception(row.code, "%s", sentence(err))
		}
	}
	return nil
}

// unread says what a recording could not be read for; nil for other errors. What store and
// key service said in detail names endpoints, and is for the log.
func (s service) unread(err error) *wire.Exception {
	key := (*archive.KeyError)(nil)
	switch found := errors.As(err, &key); {
	case errors.Is(err, context.Canceled):
		return nil
	case errors.Is(err, archive.ErrStore):
		return exception(s.code(unavailable), "The store of recordings does not answer.")
	case found && errors.Is(err, archive.ErrUnknownKey):
		return exception(s.code(unavailable), "The key %s that wraps this recording is not configured (old_keys).", key.ID)
	case found:
		return exception(s.code(unavailable), "The key %s that wraps this recording cannot be used now.", key.ID)
	}
	return nil
}

func (s service) nodeNotFound() string {
	if s.protocol == protocolEC2 {
		return "InvalidInstanceID.NotFound"
	}
	return "InvalidInstanceId"
}

// sentence writes an error of ours as AWS writes messages.
func sentence(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// authCodes spells failures of authentication: JSON, Query, EC2.
var authCodes = map[identity.Failure][3]string{
	identity.MissingToken:  {"MissingAuthenticationTokenException", "MissingAuthenticationToken", "MissingAuthenticationToken"},
	identity.Incomplete:    {"IncompleteSignatureException", "IncompleteSignature", "IncompleteSignature"},
	identity.UnknownKey:    {"UnrecognizedClientException", "InvalidClientTokenId", "AuthFailure"},
	identity.BadSignature:  {"InvalidSignatureException", "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
	identity.OutOfTime:     {"InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired"},
	identity.WrongScope:    {"InvalidSignatureException", "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
	identity.ExpiredToken:  {"ExpiredTokenException", "ExpiredToken", "RequestExpired"},
	identity.InvalidToken:  {"UnrecognizedClientException", "InvalidClientTokenId", "AuthFailure"},
	identity.RefusedByHash: {"InvalidSignatureException", "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
}

func (s service) authException(e *identity.AuthError) *wire.Exception {
	return exception(authCodes[e.Failure][s.protocol], "%s", e.Message)
}
