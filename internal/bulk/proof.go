package bulk

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Role is the end of a session that dials a connection.
type Role string

// The two ends.
const (
	Client Role = "client"
	Agent  Role = "agent"
)

const (
	tokenSize = 32
	// window is how many numbers a proof may be behind the newest: connections are
	// dialled side by side and overtake each other.
	window = 1024
	// maxProof bounds what is taken for a proof, in bytes.
	maxProof = 256
)

// ErrProof is the error of every proof that does not open a connection: made with
// another token, for another session or end, used before.
var ErrProof = errors.New("proof is not valid")

// Lock checks the proofs of one session's connections at the gateway.
type Lock struct {
	session string
	ends    map[Role]*lockEnd
}

type lockEnd struct {
	key  []byte
	mu   sync.Mutex
	seen [window / 64]uint64 // ring of bits, of the numbers up to newest
	last uint64              // the newest number
}

// NewLock makes the lock of a session, with fresh tokens for its ends.
func NewLock(session string) *Lock {
	l := &Lock{session: session, ends: map[Role]*lockEnd{}}
	for _, r := range []Role{Client, Agent} {
		key := make([]byte, tokenSize)
		rand.Read(key)
		l.ends[r] = &lockEnd{key: key}
	}
	return l
}

// Token is the secret of an end, good for as long as the session lives.
func (l *Lock) Token(r Role) string {
	return base64.RawURLEncoding.EncodeToString(l.ends[r].key)
}

// Open checks a proof, once, and tells whose it is. binding is what the proof must have
// been made with.
func (l *Lock) Open(proof, binding string) (Role, error) {
	if len(proof) > maxProof {
		return "", ErrProof
	}
	role, rest, _ := strings.Cut(proof, ".")
	number, mac, _ := strings.Cut(rest, ".")
	n, err := strconv.ParseUint(number, 10, 63)
	e := l.ends[Role(role)]
	if err != nil || e == nil {
		return "", ErrProof
	}
	want := sign(e.key, l.session, Role(role), n, binding)
	if subtle.ConstantTimeCompare([]byte(mac), []byte(want)) != 1 || !e.first(n) {
		return "", ErrProof
	}
	return Role(role), nil
}

// first reports whether n is new, and remembers it.
func (e *lockEnd) first(n uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n == 0 || n+window <= e.last {
		return false
	}
	for ; e.last < n; e.last++ {
		if n-e.last > window { // a leap over all that the ring holds
			e.last = n - window
		}
		e.clear(e.last + 1)
	}
	word, bit := &e.seen[n/64%uint64(len(e.seen))], uint64(1)<<(n%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

func (e *lockEnd) clear(n uint64) {
	e.seen[n/64%uint64(len(e.seen))] &^= 1 << (n % 64)
}

// sign is the MAC of one connection's proof (docs/protocol.md §28.11).
func sign(key []byte, session string, r Role, n uint64, binding string) string {
	m := hmac.New(sha256.New, key)
	fmt.Fprintf(m, "sallyport-bulk-1\n%s\n%s\n%d\n%s", session, r, n, binding)
	return hex.EncodeToString(m.Sum(nil))
}

// Prover makes the proofs of one end.
type Prover struct {
	session string
	role    Role
	key     []byte
	last    atomic.Uint64
}

// NewProver makes the prover of an end of a session with its token.
func NewProver(session string, r Role, token string) (*Prover, error) {
	key, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(key) != tokenSize {
		return nil, errors.New("bulk token is malformed")
	}
	return &Prover{session: session, role: r, key: key}, nil
}

// Next makes the proof of one more connection.
func (p *Prover) Next(binding string) string {
	n := p.last.Add(1)
	return fmt.Sprintf("%s.%d.%s", p.role, n, sign(p.key, p.session, p.role, n, binding))
}
