package cloud

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// Opener opens what a URL names, with the credentials of a file.
type Opener[T any] func(ctx context.Context, u *url.URL, credentials string) (T, error)

// Find returns the opener of a URL by its scheme; that of file for an absolute path. An
// opener that is nil is of a scheme that this build was made without.
func Find[T any](text string, openers map[string]Opener[T]) (*url.URL, Opener[T], error) {
	if filepath.IsAbs(text) {
		return &url.URL{Scheme: "file", Path: text}, openers["file"], nil
	}
	u, err := Parse(text)
	if err != nil {
		return nil, nil, err
	}
	open, known := openers[u.Scheme]
	switch {
	case !known:
		names := strings.Join(slices.Sorted(maps.Keys(openers)), "://, ")
		return nil, nil, fmt.Errorf("%q: want an absolute path or one of %s://", Shown(u), names)
	case open == nil:
		return nil, nil, fmt.Errorf("%q: this build knows no %s://; sallyportd-full does (build tag clouds)", Shown(u), u.Scheme)
	}
	return u, open, nil
}
