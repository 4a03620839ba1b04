package server

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// What strangers may send: everything up to the moment at which the signature of a
// request has been verified.
const (
	// maxBody is the largest request body, in bytes.
	maxBody = 1 << 20
	// maxUnsigned is the largest body of a request that need not be signed, or is not.
	maxUnsigned = 16 << 10
	// maxHeld bounds the bodies held of all unverified requests together, and
	// maxHeldBySource those of one source.
	maxHeld         = 64 << 20
	maxHeldBySource = 8 << 20
)

var (
	errTooLarge = errors.New("the request is too large")
	errBusy     = errors.New("too many requests are arriving")
)

// intake bounds the memory that requests take before anybody is known to have sent
// them: of all sources together, and of each, so that one cannot shut out the others.
// Half of it is kept for small bodies, which nearly all honest ones are.
type intake struct {
	mu      sync.Mutex
	held    int
	sources map[string]int
}

// admit reserves n bytes for a request of a source. It reports false, at once, where
// there is no room; otherwise release must be called, and may be called again.
func (in *intake) admit(source string, n int) (release func(), ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	room := maxHeld
	if n > maxUnsigned {
		room = maxHeld / 2
	}
	if in.held+n > room || in.sources[source]+n > maxHeldBySource {
		return nil, false
	}
	if in.sources == nil {
		in.sources = map[string]int{}
	}
	in.held += n
	in.sources[source] += n
	return sync.OnceFunc(func() { in.leave(source, n) }), true
}

func (in *intake) leave(source string, n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.held -= n
	if in.sources[source] -= n; in.sources[source] == 0 {
		delete(in.sources, source)
	}
}

// receive reads the body of an unverified request of a source, within limit bytes and
// the time that ServeHTTP gave it. release gives its room back; it is not nil even with an error.
func (s *Server) receive(w http.ResponseWriter, r *http.Request, source string, limit int) (body []byte, release func(), err error) {
	release = func() {}
	body, err = s.receiveBody(w, r, sourceKey(source), limit, &release)
	if err != nil {
		w.Header().Set("Connection", "close")
		return nil, release, err
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // set by ServeHTTP
	return body, release, nil
}

func (s *Server) receiveBody(w http.ResponseWriter, r *http.Request, source string, limit int, release *func()) ([]byte, error) {
	size := limit
	if r.ContentLength > int64(limit) {
		return nil, errTooLarge
	}
	if r.ContentLength >= 0 {
		size = int(r.ContentLength)
	}
	admitted, ok := s.intake.admit(source, size)
	if !ok {
		return nil, errBusy
	}
	*release = admitted
	body, err := readAll(http.MaxBytesReader(w, r.Body, int64(limit)), size)
	if e := (*http.MaxBytesError)(nil); errors.As(err, &e) {
		return nil, errTooLarge
	}
	return body, err
}

// readAll reads what should be size bytes. The buffer grows as they come: a length is
// easily claimed.
func readAll(r io.Reader, size int) ([]byte, error) {
	b := make([]byte, 0, min(size+1, 4<<10))
	for {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
		if len(b) == cap(b) {
			b = append(make([]byte, 0, max(len(b)+1, min(2*len(b), size+1))), b...)
		}
	}
}

// bodyLimit is how large the body of a request may be, judged by its head alone.
func (req *request) bodyLimit(o *Operation) int {
	if req.unsigned != nil || req.http.Method == http.MethodGet || o != nil && o.Caller == CallerAnonymous {
		return maxUnsigned
	}
	return maxBody
}

// intakeError tells a client why its request was not read.
func intakeError(sv service, err error, limit int) error {
	switch {
	case errors.Is(err, errTooLarge):
		return exception(sv.code(tooLarge), "The request is larger than %d bytes.", limit)
	case errors.Is(err, errBusy):
		return exception(sv.code(unavailable), "Too many requests are arriving. Try again in a moment.")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return exception(sv.code(timedOut), "The request did not arrive in time.")
	}
	return exception("IncompleteBody", "The request did not arrive as a whole.")
}
