package archive

import (
	"context"
	"errors"
	"fmt"

	"sallyport.dev/recording"
)

// Open opens the archive and goes on with what an earlier run has left in the spool. The
// context bounds the opening alone.
func Open(ctx context.Context, cfg Config) (*Archive, error) { return nil, errors.ErrUnsupported }

// Create starts the recording of the session that h names. What cannot be recorded must
// not begin: ErrFull and errors of the key service and the disk are for the caller to show.
func (a *Archive) Create(ctx context.Context, h recording.Header) (*Recording, error) {
	return nil, errors.ErrUnsupported
}

// Open opens a recording for reading, wherever it lies. The context bounds the opening
// and the reads.
func (a *Archive) Open(ctx context.Context, name string) (Reader, error) {
	return nil, errors.ErrUnsupported
}

// Digest returns the hex SHA-256 of a finished recording's plain bytes, their number, and
// the hex SHA-256 of its manifest.
func (a *Archive) Digest(ctx context.Context, name string) (sha256 string, size int64, manifest string, err error) {
	return "", 0, "", errors.ErrUnsupported
}

// Verify reads all of a recording and compares it with its manifest, and that with the
// row. The error is one of reading; what is wrong with the recording is in the report.
func (a *Archive) Verify(ctx context.Context, name string) (Report, error) {
	return Report{}, errors.ErrUnsupported
}

// Manifest returns the manifest of a finished recording.
func (a *Archive) Manifest(ctx context.Context, name string) (Manifest, error) {
	return Manifest{}, errors.ErrUnsupported
}

// Answer answers another member's Peers.Ask.
func (a *Archive) Answer(ctx context.Context, request []byte) (answer []byte, err error) {
	return nil, errors.ErrUnsupported
}

// Ready tells what keeps recordings from being written.
func (a *Archive) Ready() error { return errors.ErrUnsupported }

// Stats returns the figures of now.
func (a *Archive) Stats() Stats { return Stats{} }

// Close sends what it can to the store until ctx ends; the rest waits in the spool for
// the next start.
func (a *Archive) Close(ctx context.Context) error { return errors.ErrUnsupported }

// Error implements error.
func (d *Damage) Error() string {
	where := d.Object
	if d.Frame > 0 {
		where += fmt.Sprintf(", frame %d", d.Frame)
	}
	return fmt.Sprintf("recording %s: %s: %s", d.Name, where, d.What)
}

// KeyFile returns a keeper with the key in a file of mode 0600, which it makes if need be.
func KeyFile(path string) (Keeper, error) { return nil, errors.ErrUnsupported }
