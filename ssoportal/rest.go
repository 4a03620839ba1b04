package ssoportal

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"sallyport.dev/access"
	"sallyport.dev/signin"
)

// fault is an error as the services answer it: portal errors have a message, those of
// sso-oidc error and error_description (RFC 6749, 5.2). Clients tell them apart by the
// header x-amzn-ErrorType.
type fault struct {
	status  int
	code    string // of AWS's model: UnauthorizedException
	oauth   string // of RFC 6749 and 8628; empty for the portal
	message string
}

func (f *fault) Error() string { return f.code + ": " + f.message }

func badRequest(message string) *fault {
	return &fault{http.StatusBadRequest, "InvalidRequestException", "invalid_request", message}
}

// maxBody bounds what programs may send, in bytes.
const maxBody = 16 << 10

// serve makes a handler of a function that returns what to answer.
func (p *Portal) serve(run func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		out, err := p.run(r, run)
		if err != nil {
			p.fail(w, r, err)
			return
		}
		write(w, http.StatusOK, out)
	})
}

func (p *Portal) run(r *http.Request, run func(*http.Request) (any, error)) (any, error) {
	if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
		return nil, &fault{http.StatusForbidden, "ForbiddenException", "access_denied", "this is for programs, not for pages"}
	}
	if !p.rates.allow(p.config.SignIns.SourceIP(r)) {
		return nil, &fault{http.StatusTooManyRequests, "TooManyRequestsException", "slow_down", "too many requests at once"}
	}
	return run(r)
}

// decode reads the body of a request.
func decode(r *http.Request, into any) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return badRequest("the body cannot be read, or is too long")
	}
	if err := json.Unmarshal(body, into); err != nil {
		return badRequest("the body is not JSON of the right form")
	}
	return nil
}

func (p *Portal) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := p.fault(r, err)
	w.Header().Set("X-Amzn-Errortype", f.code)
	body := map[string]string{"message": f.message, "__type": f.code}
	if f.oauth != "" {
		body["error"], body["error_description"] = f.oauth, f.message
	}
	write(w, f.status, body)
}

// fault words an error.
func (p *Portal) fault(r *http.Request, err error) *fault {
	var f *fault
	var denied *access.DeniedError
	var refused *signin.RefusedError
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, errToken):
		return &fault{http.StatusUnauthorized, "UnauthorizedException", "", "Session token not found or invalid"}
	case errors.As(err, &denied):
		return &fault{http.StatusForbidden, "ForbiddenException", "", denied.Error()}
	case errors.Is(err, signin.ErrPending):
		return &fault{http.StatusBadRequest, "AuthorizationPendingException", "authorization_pending", "nobody has confirmed it yet"}
	case errors.Is(err, signin.ErrTooFast):
		return &fault{http.StatusBadRequest, "SlowDownException", "slow_down", "asked again too soon"}
	case errors.Is(err, signin.ErrTooMany):
		return &fault{http.StatusBadRequest, "SlowDownException", "slow_down", "too many wait to be confirmed"}
	case errors.Is(err, signin.ErrExpired):
		return &fault{http.StatusBadRequest, "ExpiredTokenException", "expired_token", "it has expired"}
	case errors.Is(err, signin.ErrDenied):
		return &fault{http.StatusBadRequest, "AccessDeniedException", "access_denied", "it was refused in the browser"}
	case errors.Is(err, signin.ErrRefused), errors.Is(err, signin.ErrReused), errors.Is(err, signin.ErrNotSignedIn), errors.As(err, &refused):
		return &fault{http.StatusBadRequest, "InvalidGrantException", "invalid_grant", "it is not known, was refused or was used before"}
	}
	p.config.Logger.Error("answering for AWS's sign-in portal", "path", r.URL.Path, "error", err)
	return &fault{http.StatusInternalServerError, "InternalServerException", "server_error", "an internal error; the server's log tells its cause"}
}

func write(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte("{}")
	}
	w.WriteHeader(status)
	_, _ = w.Write(b) // whoever asked has gone
}

// rates bound the requests from one place in a while.
type rates struct {
	now func() time.Time

	mu    sync.Mutex
	began time.Time
	count map[string]int
}

const (
	rateWindow = 10 * time.Second
	rateLimit  = 100
	maxRated   = 8192
)

// allow counts a request from a place. Places beyond maxRated share one count.
func (l *rates) allow(place string) bool {
	place = signin.PlaceOf(place)
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.now(); l.count == nil || now.Sub(l.began) >= rateWindow || now.Before(l.began) {
		l.began, l.count = now, map[string]int{}
	}
	if _, known := l.count[place]; !known && len(l.count) >= maxRated {
		place = ""
	}
	l.count[place]++
	return l.count[place] <= rateLimit
}
