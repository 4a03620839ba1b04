package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// peerPiece is how much of an object one answer of a member holds, in bytes.
const peerPiece = 384 << 10

// maxListed is how many chunks one answer of a member tells of.
const maxListed = 1000

// shelf is where the objects of one recording are read: in this member's spool, in another
// member's, in the store. They are asked in this order, for an object leaves a spool once
// the store has it.
type shelf struct {
	a      *Archive
	name   string
	member string // whose spool may have it, or empty
}

// read returns the bytes of an object from an offset to an end, or fewer if it is shorter.
// It returns fs.ErrNotExist where it is nowhere.
func (s *shelf) read(ctx context.Context, object string, from, to int64) ([]byte, error) {
	b, err := s.a.spool.read(s.name, object, from, to-from)
	if !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	if s.member != "" {
		b, err := s.readPeer(ctx, object, from, to)
		if err == nil {
			return b, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			s.a.log.Warn("reading a recording at another member", "recording", s.name, "member", s.member, "error", err)
			s.member = ""
		}
	}
	return s.readStore(ctx, object, from, to)
}

func (s *shelf) readStore(ctx context.Context, object string, from, to int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*storeTimeout)
	defer cancel()
	r, err := s.a.cfg.Bucket.NewRangeReader(ctx, path.Join(s.name, object), from, to-from, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w: %w", object, ErrStore, err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, to-from))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w: %w", object, ErrStore, err)
	}
	return b, nil
}

// list returns the objects of the recording in the store, with their sizes.
func (s *shelf) list(ctx context.Context) (map[string]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*storeTimeout)
	defer cancel()
	prefix := s.name + "/"
	objects := map[string]int64{}
	it := s.a.cfg.Bucket.List(&blob.ListOptions{Prefix: prefix})
	for {
		o, err := it.Next(ctx)
		if err == io.EOF {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("listing the recording: %w: %w", ErrStore, err)
		}
		if len(objects) > maxChunks {
			return nil, errors.New("listing the recording in the store: it has too many objects")
		}
		objects[o.Key[len(prefix):]] = o.Size
	}
}

// ask is what members ask each other.
type ask struct {
	Op     string `json:"op"` // list or read
	Name   string `json:"name"`
	Object string `json:"object,omitempty"`
	From   int64  `json:"from"` // byte of the object, or chunk of the list
	N      int64  `json:"n,omitempty"`
}

// answer is what they answer. What is in it is as sealed as in the spool.
type answer struct {
	Found  bool    `json:"found"`
	Data   []byte  `json:"data,omitempty"`
	Ended  bool    `json:"ended,omitempty"` // there is a manifest
	Chunks []Chunk `json:"chunks,omitempty"`
	Open   Chunk   `json:"open"` // behind the last of them, growing
	More   bool    `json:"more,omitempty"`
}

func (s *shelf) ask(ctx context.Context, q ask) (r answer, err error) {
	b, err := json.Marshal(q)
	if err != nil {
		return r, err
	}
	if b, err = s.a.cfg.Peers.Ask(ctx, s.member, b); err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("decoding a member's answer: %w", err)
	}
	if !r.Found {
		return r, fs.ErrNotExist
	}
	return r, nil
}

func (s *shelf) readPeer(ctx context.Context, object string, from, to int64) ([]byte, error) {
	var all []byte
	for from < to {
		n := min(peerPiece, to-from)
		r, err := s.ask(ctx, ask{Op: "read", Name: s.name, Object: object, From: from, N: n})
		if err != nil {
			return nil, err
		}
		if int64(len(r.Data)) > n {
			return nil, errors.New("a member answers with more than was asked for")
		}
		all = append(all, r.Data...)
		from += int64(len(r.Data))
		if int64(len(r.Data)) < n {
			break
		}
	}
	return all, nil
}

// listPeer asks the home member what there is; ended says that there is a manifest.
func (s *shelf) listPeer(ctx context.Context) (chunks []Chunk, ended bool, err error) {
	for len(chunks) <= maxChunks {
		r, err := s.ask(ctx, ask{Op: "list", Name: s.name, From: int64(len(chunks))})
		if err != nil || r.Ended {
			return nil, r.Ended, err
		}
		last := !r.More || len(r.Chunks) == 0
		if last && r.Open.Size != 0 {
			r.Chunks = append(r.Chunks, r.Open)
		}
		if chunks, err = appendListed(chunks, r.Chunks); err != nil {
			return nil, false, fmt.Errorf("a member's answer: %w", err)
		}
		if last {
			break
		}
	}
	return chunks, false, nil
}

// appendListed takes chunks that a member tells of, if a recording could have them.
func appendListed(chunks, more []Chunk) ([]Chunk, error) {
	for _, c := range more {
		end := int64(0)
		if n := len(chunks); n > 0 {
			end = chunks[n-1].end()
		}
		if err := c.check(len(chunks)+1, end); err != nil {
			return nil, err
		}
		if c.SHA256 != "" && !isDigest(c.SHA256) {
			return nil, fmt.Errorf("%s: sha256 is none", c.Name)
		}
		chunks = append(chunks, c)
	}
	return chunks, nil
}

// Answer answers another member's Peers.Ask, with what lies in the spool here.
func (a *Archive) Answer(ctx context.Context, request []byte) ([]byte, error) {
	var q ask
	if err := json.Unmarshal(request, &q); err != nil {
		return nil, fmt.Errorf("decoding a member's request: %w", err)
	}
	if err := CheckName(q.Name); err != nil {
		return nil, err
	}
	var r answer
	var err error
	switch q.Op {
	case "list":
		r, err = a.answerList(q)
	case "read":
		r, err = a.answerRead(q)
	default:
		err = fmt.Errorf("members ask list or read, not %q", clip(q.Op))
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(r)
}

func (a *Archive) answerRead(q ask) (answer, error) {
	if q.Object != keyObject && q.Object != manifestObject && chunkNumber(q.Object) == 0 {
		return answer{}, fmt.Errorf("a recording has no object %q", clip(q.Object))
	}
	if q.From < 0 || q.N < 0 {
		return answer{}, errors.New("a member asks for bytes before the first")
	}
	b, err := a.spool.read(q.Name, q.Object, q.From, min(q.N, peerPiece))
	if errors.Is(err, fs.ErrNotExist) {
		return answer{}, nil
	}
	return answer{Found: err == nil, Data: b}, err
}

func (a *Archive) answerList(q ask) (answer, error) {
	if l := a.liveOf(q.Name); l != nil {
		chunks, open := l.view()
		from := min(max(0, q.From), int64(len(chunks)))
		to := min(from+maxListed, int64(len(chunks)))
		return answer{Found: true, Chunks: chunks[from:to], Open: open, More: to < int64(len(chunks))}, nil
	}
	b, err := a.spool.read(q.Name, manifestObject, 0, 1)
	if errors.Is(err, fs.ErrNotExist) {
		return answer{}, nil
	}
	return answer{Found: err == nil, Ended: len(b) > 0}, err
}

// liveOf returns a recording that is being written here, if it is.
func (a *Archive) liveOf(name string) *live {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.live[name]
}
