package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"sort"
	"sync"

	"sallyport.dev/recording"
)

// reader reads one recording. It keeps one chunk and one frame, from which who reads on
// from where they stopped is served.
type reader struct {
	ctx    context.Context // of Open; reads are bounded by it
	shelf  shelf
	sealer *sealer
	chunks []Chunk // the last one may still be growing, and has no digest then
	ended  bool    // there is a manifest: the last frame must say that it is the last
	fresh  bool    // nothing is taken from, or left in, the cache

	mu     sync.Mutex
	loaded int // index of the chunk in index, -1 for none
	index  []indexed
	opened head // of plain
	plain  []byte
}

// indexed is a frame of the loaded chunk.
type indexed struct {
	head
	bytes []byte
}

// Open opens a recording for reading, wherever it lies: what was flushed until now, of one
// that is still written. The context bounds the opening and the reads.
func (a *Archive) Open(ctx context.Context, name string) (Reader, error) {
	r, _, err := a.open(ctx, name)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (a *Archive) open(ctx context.Context, name string) (*reader, *Manifest, error) {
	if err := CheckName(name); err != nil {
		return nil, nil, err
	}
	r := &reader{ctx: ctx, shelf: a.shelf(name, Row{}), loaded: -1}
	if l := a.liveOf(name); l != nil {
		r.sealer = l.sealer
		chunks, open := l.view()
		r.setChunks(chunks, open)
		return r, nil, nil
	}
	row, err := a.row(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	r.shelf = a.shelf(name, row)
	m, err := a.findChunks(ctx, r, row)
	if err != nil {
		return nil, nil, err
	}
	r.sealer, err = a.key(ctx, r.shelf)
	return r, m, err
}

// row returns the row of a recording, or one that knows nothing.
func (a *Archive) row(ctx context.Context, name string) (Row, error) {
	row, err := a.cfg.Rows.Recording(ctx, name)
	if errors.Is(err, recording.ErrNotFound) {
		return Row{Name: name}, nil
	}
	if err != nil {
		return row, err
	}
	if row.State == Deleted {
		return row, fmt.Errorf("recording %s was deleted: %w", name, recording.ErrNotFound)
	}
	return row, nil
}

// findChunks finds out what the recording consists of: by its manifest if it has ended, by
// asking who writes it, or else by what is in the store.
func (a *Archive) findChunks(ctx context.Context, r *reader, row Row) (*Manifest, error) {
	if r.shelf.member != "" {
		chunks, ended, err := r.shelf.listPeer(ctx)
		if err == nil && !ended {
			r.chunks = chunks
			return nil, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.log.Warn("asking for a recording at another member", "recording", row.Name, "member", row.Member, "error", err)
			r.shelf.member = ""
		}
	}
	m, err := a.manifest(ctx, &r.shelf, row)
	if errors.Is(err, recording.ErrIncomplete) {
		return nil, r.survey()
	}
	if err != nil {
		return nil, err
	}
	r.chunks, r.ended = m.Chunks, true
	return &m, nil
}

// manifest reads the manifest, and compares it with the row. The error is
// recording.ErrIncomplete while there is none.
func (a *Archive) manifest(ctx context.Context, s *shelf, row Row) (Manifest, error) {
	b, err := s.read(ctx, manifestObject, 0, maxManifest+1)
	if errors.Is(err, fs.ErrNotExist) && row.Manifest != "" {
		return Manifest{}, a.damage(row.Name, manifestObject, 0, "it is missing")
	}
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, recording.ErrIncomplete
	}
	if err != nil {
		return Manifest{}, err
	}
	if row.Manifest != "" && sum(b) != row.Manifest {
		return Manifest{}, a.damage(row.Name, manifestObject, 0, "it was changed: its SHA-256 is %s, and was %s", sum(b), row.Manifest)
	}
	if len(b) > maxManifest {
		return Manifest{}, a.damage(row.Name, manifestObject, 0, "it has more than %d bytes", maxManifest)
	}
	m, err := ParseManifest(b, row.Name)
	if err != nil {
		return m, a.damage(row.Name, manifestObject, 0, "%v", err)
	}
	return m, nil
}

// key reads and unwraps the recording's key.
func (a *Archive) key(ctx context.Context, s shelf) (*sealer, error) {
	b, err := s.read(ctx, keyObject, 0, maxKeyBytes+1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, a.damage(s.name, keyObject, 0, "it is missing")
	}
	if err != nil {
		return nil, err
	}
	sealer, _, err := a.unwrap(ctx, s.name, b)
	return sealer, err
}

// survey lists what the store has of a recording without a manifest, whose member is away.
func (r *reader) survey() error {
	objects, err := r.shelf.list(r.ctx)
	if err != nil {
		return err
	}
	if local, err := r.shelf.a.spool.objects(r.shelf.name); err == nil {
		maps.Copy(objects, local)
	}
	if len(objects) == 0 {
		return fmt.Errorf("recording %s: %w", r.shelf.name, recording.ErrNotFound)
	}
	for n := 1; ; n++ {
		size, ok := objects[chunkName(n)]
		if !ok {
			return r.measure(objects, n)
		}
		b, err := r.shelf.read(r.ctx, chunkName(n), 0, frameHeader)
		if err != nil {
			return err
		}
		h, err := parseHead(b)
		if err != nil {
			return r.damage(chunkName(n), 0, "%v", err)
		}
		r.chunks = append(r.chunks, Chunk{Name: chunkName(n), Size: min(size, maxChunk), PlainOffset: h.offset})
	}
}

// measure fills in how many plain bytes the chunks of a survey have; n is the number of the
// first that is not there.
func (r *reader) measure(objects map[string]int64, n int) error {
	if hasChunkAfter(objects, n) {
		return r.damage(chunkName(n), 0, "it is missing")
	}
	for i := range r.chunks {
		c := &r.chunks[i]
		if i+1 < len(r.chunks) {
			c.PlainSize = r.chunks[i+1].PlainOffset - c.PlainOffset
			continue
		}
		b, err := r.shelf.read(r.ctx, c.Name, 0, maxChunk)
		if err != nil {
			return err
		}
		c.Size, _ = frames(b, func(h head, _ []byte) error {
			c.PlainSize += int64(h.plain)
			return nil
		})
	}
	return nil
}

func (r *reader) setChunks(chunks []Chunk, open Chunk) {
	r.chunks = chunks
	if open.Size > 0 {
		r.chunks = append(chunks, open)
	}
}

func (r *reader) damage(object string, frame int64, format string, args ...any) error {
	return r.shelf.a.damage(r.shelf.name, object, frame, format, args...)
}

// Size implements Reader.
func (r *reader) Size() int64 {
	if len(r.chunks) == 0 {
		return 0
	}
	return r.chunks[len(r.chunks)-1].end()
}

// Close implements Reader.
func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index, r.plain, r.loaded = nil, nil, -1
	r.opened = head{}
	return nil
}

// ReadAt implements Reader. Where it returns an error, the bytes before are good.
func (r *reader) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("reading a recording before its beginning")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for n < len(p) {
		if off+int64(n) >= r.Size() {
			return n, io.EOF
		}
		plain, err := r.frameAt(off + int64(n))
		if err != nil {
			return n, err
		}
		n += copy(p[n:], plain)
	}
	return n, nil
}

// frameAt returns the plain bytes of one frame from an offset on.
func (r *reader) frameAt(off int64) ([]byte, error) {
	if from := off - r.opened.offset; from >= 0 && from < int64(len(r.plain)) {
		return r.plain[from:], nil
	}
	i := sort.Search(len(r.chunks), func(i int) bool { return r.chunks[i].end() > off })
	if err := r.load(i); err != nil {
		return nil, err
	}
	k := sort.Search(len(r.index), func(k int) bool { return r.index[k].offset+int64(r.index[k].plain) > off })
	if k == len(r.index) || r.index[k].offset > off {
		return nil, r.damage(r.chunks[i].Name, 0, "no frame holds byte %d of the recording", off)
	}
	plain, err := r.openFrame(r.chunks[i].Name, r.index[k])
	if err != nil {
		return nil, err
	}
	r.opened, r.plain = r.index[k].head, plain
	return plain[off-r.opened.offset:], nil
}

func (r *reader) openFrame(chunk string, f indexed) ([]byte, error) {
	plain, err := r.sealer.open(kindChunk, f.head, f.bytes)
	if err != nil {
		return nil, r.damage(chunk, f.number, "%v", err)
	}
	end := f.offset + int64(f.plain)
	if atEnd := end == r.Size(); r.ended && f.last != atEnd {
		return nil, r.damage(chunk, f.number, "the last frame is not at the end")
	}
	return plain, nil
}

// load makes the index of chunk i, once its bytes are found to be what they should be.
func (r *reader) load(i int) error {
	if r.loaded == i {
		return nil
	}
	c := r.chunks[i]
	b, err := r.fetch(c)
	if err != nil {
		return err
	}
	index, err := r.indexOf(i, b)
	if err != nil {
		r.shelf.a.chunks.drop(r.shelf.name + "/" + c.Name)
		return err
	}
	r.loaded, r.index = i, index
	return nil
}

// fetch returns the bytes of a chunk, and keeps what does not come from this disk.
func (r *reader) fetch(c Chunk) ([]byte, error) {
	b, err := r.shelf.a.spool.read(r.shelf.name, c.Name, 0, c.Size)
	if !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	key := r.shelf.name + "/" + c.Name
	var have []byte
	if !r.fresh {
		have = r.shelf.a.chunks.get(key)
	}
	if int64(len(have)) >= c.Size {
		return have[:c.Size], nil
	}
	// One byte more tells of a chunk that is longer than it was.
	to := c.Size
	if c.SHA256 != "" {
		to++
	}
	rest, err := r.shelf.read(r.ctx, c.Name, int64(len(have)), to)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, r.damage(c.Name, 0, "it is missing")
	}
	if err != nil {
		return nil, err
	}
	b = append(have[:len(have):len(have)], rest...)
	if !r.fresh {
		r.shelf.a.chunks.put(key, b)
	}
	return b, nil
}

// indexOf finds the frames of chunk i in its bytes.
func (r *reader) indexOf(i int, b []byte) ([]indexed, error) {
	c := r.chunks[i]
	if c.SHA256 != "" && (int64(len(b)) != c.Size || sum(b) != c.SHA256) {
		return nil, r.changed(i, b)
	}
	if int64(len(b)) < c.Size {
		return nil, r.damage(c.Name, 0, "it has %d bytes, and had %d", len(b), c.Size)
	}
	index, err := r.walk(i, b)
	if err != nil {
		return nil, err
	}
	return index, nil
}

// walk takes a chunk apart, as far as its frames continue each other.
func (r *reader) walk(i int, b []byte) (index []indexed, err error) {
	c := r.chunks[i]
	offset, number := c.PlainOffset, r.firstFrame(i)
	_, err = frames(b, func(h head, frame []byte) error {
		if h.offset != offset || number > 0 && h.number != number {
			return fmt.Errorf("a frame for byte %d of the recording stands in its place", h.offset)
		}
		index = append(index, indexed{h, frame})
		offset, number = offset+int64(h.plain), h.number+1
		return nil
	})
	if err == nil && offset != c.end() {
		err = fmt.Errorf("it ends with byte %d of the recording, not with %d", offset, c.end())
	}
	if err != nil {
		return index, r.damage(c.Name, max(1, number), "%v", err)
	}
	return index, nil
}

// firstFrame is the number of the first frame of chunk i, 0 if nobody knows.
func (r *reader) firstFrame(i int) int64 {
	n := int64(1)
	for _, c := range r.chunks[:i] {
		if c.Frames == 0 {
			return 0
		}
		n += c.Frames
	}
	return n
}

// changed names the first place where a chunk that is not what it was does not verify.
func (r *reader) changed(i int, b []byte) error {
	c := r.chunks[i]
	index, err := r.walk(i, b)
	for _, f := range index {
		if r.sealer == nil {
			break
		}
		if _, bad := r.openFrame(c.Name, f); bad != nil {
			return bad
		}
	}
	if err != nil {
		return err
	}
	return r.damage(c.Name, 0, "it was changed: it has %d bytes with SHA-256 %s, and had %d with %s", len(b), sum(b), c.Size, c.SHA256)
}

// shelf returns where a recording is read.
func (a *Archive) shelf(name string, row Row) shelf {
	s := shelf{a: a, name: name}
	if row.State == Spooled && row.Member != a.cfg.Member && a.cfg.Peers != nil {
		s.member = row.Member
	}
	return s
}

// Manifest returns the manifest of a finished recording, compared with the row. The error
// is recording.ErrIncomplete while there is none.
func (a *Archive) Manifest(ctx context.Context, name string) (Manifest, error) {
	m, _, err := a.findManifest(ctx, name)
	return m, err
}

func (a *Archive) findManifest(ctx context.Context, name string) (m Manifest, s shelf, err error) {
	if err := CheckName(name); err != nil {
		return m, s, err
	}
	if a.liveOf(name) != nil {
		return m, s, recording.ErrIncomplete
	}
	row, err := a.row(ctx, name)
	if err != nil {
		return m, s, err
	}
	s = a.shelf(name, row)
	m, err = a.manifest(ctx, &s, row)
	return m, s, err
}

// Digest returns the hex SHA-256 of a finished recording's plain bytes, their number, and
// the hex SHA-256 of its manifest. The error is recording.ErrIncomplete of one that has not
// ended.
func (a *Archive) Digest(ctx context.Context, name string) (sha256 string, size int64, manifest string, err error) {
	row, err := a.row(ctx, name)
	if err == nil && row.SHA256 != "" {
		return row.SHA256, row.Size, row.Manifest, nil
	}
	if err != nil {
		return "", 0, "", err
	}
	m, err := a.Manifest(ctx, name)
	return m.SHA256, m.Size, m.Sum, err
}
