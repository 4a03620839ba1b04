package member

import (
	"context"
	"io"

	"sallyport.dev/index"
	"sallyport.dev/recording"
)

// Search says whether what sessions show is kept in the database to be searched. That is
// text in the clear, which nothing but the database's permissions protects.
type Search struct {
	// Index is true unless it says false. Recordings stay what they are.
	Index *bool `hcl:"index,optional"`
}

// enabled reports whether sessions are indexed.
func (s *Search) enabled() bool { return s == nil || s.Index == nil || *s.Index }

// startIndex starts keeping transcripts, if they are wanted. Recordings are open.
func (m *Member) startIndex() {
	if !m.cfg.Search.enabled() {
		return
	}
	m.index = index.New(index.Config{
		Store: m.Store, Open: m.openTranscribed, Member: m.cfg.Member, Logger: m.log, Now: m.cfg.Now,
	})
}

// openTranscribed opens a recording whose transcript is to be made again.
func (m *Member) openTranscribed(ctx context.Context, name string) (io.ReadCloser, error) {
	r, size, err := recordings{m.archive}.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(r, 0, size), r}, nil
}

// transcribe has the index follow a recording.
func (m *Member) transcribe(w *recording.Writer, h recording.Header) {
	if m.index != nil {
		w.Attach(m.index.Follow(h))
	}
}

// finder is what sessions are searched in, nil for nothing.
func (m *Member) finder() index.Finder {
	if m.index == nil {
		return nil
	}
	return m.Store
}
