package bucket

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"

	"sallyport.dev/internal/cloud"
)

// folder is a store in a folder. Folders in it have mode 0700, files 0600; what was
// written is on the disk when the writing ends, whole; and no name leads out of it,
// through symbolic links neither.
type folder struct{ root *os.Root }

// unfinished is what names of files begin with that are being written.
const unfinished = ".new-"

func folderCredentials(file string) error {
	if file != "" {
		return errors.New("a folder has no credentials file")
	}
	return nil
}

// openFolder opens the folder of a URL, which is made if need be.
func openFolder(_ context.Context, u *url.URL, credentials string) (*Bucket, error) {
	if _, err := cloud.ParseParams(u); err != nil {
		return nil, err
	}
	if u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) {
		return nil, fmt.Errorf("want file:///ABSOLUTE/PATH")
	}
	if err := folderCredentials(credentials); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(u.Path, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(u.Path)
	if err != nil {
		return nil, err
	}
	f := &folder{root}
	b := blob.NewBucket(f)
	purge := func(ctx context.Context, key string) error {
		if err := f.tidy(key); err != nil {
			return err
		}
		return b.Delete(ctx, key)
	}
	return &Bucket{Bucket: b, purge: purge}, nil
}

// tidy removes what writers that were killed have left beside an object: copies of it, and
// of a key that is to be gone.
func (f *folder) tidy(key string) error {
	if err := check(key); err != nil {
		return err
	}
	dir := path.Dir(key)
	files, err := fs.ReadDir(f.root.FS(), dir)
	err = ignoreGone(err)
	for _, d := range files {
		if hidden(d.Name()) {
			err = errors.Join(err, ignoreGone(f.root.Remove(path.Join(dir, d.Name()))))
		}
	}
	return err
}

var errName = errors.New("no name of an object")

// check refuses keys that are no names of files within the folder.
func check(key string) error {
	if !fs.ValidPath(key) || key == "." || hidden(path.Base(key)) || strings.ContainsAny(key, "\\\x00") {
		return fmt.Errorf("%q: %w", key, errName)
	}
	return nil
}

func hidden(file string) bool { return strings.HasPrefix(file, unfinished) }

// ErrorCode implements driver.Bucket.
func (*folder) ErrorCode(err error) gcerrors.ErrorCode {
	switch {
	case errors.Is(err, errName):
		return gcerrors.InvalidArgument
	case errors.Is(err, fs.ErrNotExist):
		return gcerrors.NotFound
	case errors.Is(err, fs.ErrExist):
		return gcerrors.FailedPrecondition
	case errors.Is(err, fs.ErrPermission):
		return gcerrors.PermissionDenied
	case errors.Is(err, errors.ErrUnsupported):
		return gcerrors.Unimplemented
	}
	return gcerrors.Unknown
}

// As implements driver.Bucket: a folder is an *os.Root.
func (f *folder) As(i any) bool {
	root, ok := i.(**os.Root)
	if ok {
		*root = f.root
	}
	return ok
}

// ErrorAs implements driver.Bucket.
func (*folder) ErrorAs(error, any) bool { return false }

// Close implements driver.Bucket.
func (f *folder) Close() error { return f.root.Close() }

// SignedURL implements driver.Bucket.
func (*folder) SignedURL(context.Context, string, *driver.SignedURLOptions) (string, error) {
	return "", errors.ErrUnsupported
}

// Attributes implements driver.Bucket.
func (f *folder) Attributes(_ context.Context, key string) (*driver.Attributes, error) {
	if err := check(key); err != nil {
		return nil, err
	}
	info, err := f.root.Stat(key)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fs.ErrNotExist
	}
	return &driver.Attributes{ContentType: contentType, ModTime: info.ModTime(), Size: info.Size()}, nil
}

const contentType = "application/octet-stream"

// reader reads a part of a file.
type reader struct {
	io.Reader
	file  *os.File
	attrs driver.ReaderAttributes
}

// Attributes implements driver.Reader.
func (r *reader) Attributes() *driver.ReaderAttributes { return &r.attrs }

// As implements driver.Reader.
func (*reader) As(any) bool { return false }

// Close implements driver.Reader.
func (r *reader) Close() error { return r.file.Close() }

// NewRangeReader implements driver.Bucket.
func (f *folder) NewRangeReader(_ context.Context, key string, offset, length int64, o *driver.ReaderOptions) (driver.Reader, error) {
	if err := check(key); err != nil {
		return nil, err
	}
	// A pipe that somebody put there would otherwise be waited at for ever.
	file, err := f.root.OpenFile(key, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	r, err := newReader(file, offset, length, o)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return r, nil
}

func newReader(file *os.File, offset, length int64, o *driver.ReaderOptions) (*reader, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fs.ErrNotExist
	}
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return nil, err
	}
	if o.BeforeRead != nil {
		if err := o.BeforeRead(func(any) bool { return false }); err != nil {
			return nil, err
		}
	}
	r := &reader{Reader: file, file: file}
	if length >= 0 {
		r.Reader = io.LimitReader(file, length)
	}
	r.attrs = driver.ReaderAttributes{ContentType: contentType, ModTime: info.ModTime(), Size: info.Size()}
	return r, nil
}

// writer writes a file beside its place, and puts it there when it is closed.
type writer struct {
	ctx       context.Context // of the writing, as the driver's contract has it
	f         *folder
	file      *os.File
	key, temp string
	only      bool // not over another
}

// NewTypedWriter implements driver.Bucket.
func (f *folder) NewTypedWriter(ctx context.Context, key, _ string, o *driver.WriterOptions) (driver.Writer, error) {
	if err := check(key); err != nil {
		return nil, err
	}
	if o.BeforeWrite != nil {
		if err := o.BeforeWrite(func(any) bool { return false }); err != nil {
			return nil, err
		}
	}
	w := &writer{ctx: ctx, f: f, key: key, temp: path.Join(path.Dir(key), unfinished+rand.Text()), only: o.IfNotExist}
	var err error
	w.file, err = f.create(w.temp)
	return w, err
}

// create makes a file in a folder that may have to be made, and may go as its last file
// is deleted.
func (f *folder) create(temp string) (file *os.File, err error) {
	for range 3 {
		if err := f.root.MkdirAll(path.Dir(temp), 0o700); err != nil {
			return nil, err
		}
		file, err = f.root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return file, err
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) { return w.file.Write(p) }

// Close puts the file into its place, unless the writing was given up.
func (w *writer) Close() error {
	err := w.ctx.Err()
	if err == nil {
		err = w.file.Sync()
	}
	err = errors.Join(err, w.file.Close())
	if err == nil {
		err = w.place()
	}
	if err != nil {
		w.f.root.Remove(w.temp)
		return err
	}
	return w.f.sync(path.Dir(w.key))
}

func (w *writer) place() error {
	if !w.only {
		return w.f.root.Rename(w.temp, w.key)
	}
	if err := w.f.root.Link(w.temp, w.key); err != nil {
		return err
	}
	return w.f.root.Remove(w.temp)
}

// sync makes what folders say of their files durable, up to the store's own.
func (f *folder) sync(dir string) error {
	for {
		d, err := f.root.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil || dir == "." {
			return err
		}
		dir = path.Dir(dir)
	}
}

// Copy implements driver.Bucket.
func (f *folder) Copy(ctx context.Context, to, from string, o *driver.CopyOptions) error {
	if o.BeforeCopy != nil {
		if err := o.BeforeCopy(func(any) bool { return false }); err != nil {
			return err
		}
	}
	r, err := f.NewRangeReader(ctx, from, 0, -1, &driver.ReaderOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := f.NewTypedWriter(ctx, to, contentType, &driver.WriterOptions{})
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		return errors.Join(err, w.Close())
	}
	return w.Close()
}

// Delete implements driver.Bucket. Folders that it empties go as well.
func (f *folder) Delete(_ context.Context, key string, o *driver.DeleteOptions) error {
	if err := check(key); err != nil {
		return err
	}
	if o.BeforeDelete != nil {
		if err := o.BeforeDelete(func(any) bool { return false }); err != nil {
			return err
		}
	}
	if info, err := f.root.Lstat(key); err != nil || info.IsDir() {
		return errors.Join(err, notFile(info))
	}
	if err := f.root.Remove(key); err != nil {
		return err
	}
	dir := path.Dir(key)
	for dir != "." && f.root.Remove(dir) == nil {
		dir = path.Dir(dir)
	}
	if err := f.sync(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil // another has emptied it
}

func notFile(info fs.FileInfo) error {
	if info == nil {
		return nil
	}
	return fs.ErrNotExist
}

// ListPaged implements driver.Bucket. It reads the folders that a page needs, in the order of
// keys, and no others.
func (f *folder) ListPaged(ctx context.Context, o *driver.ListOptions) (*driver.ListPage, error) {
	if o.BeforeList != nil {
		if err := o.BeforeList(func(any) bool { return false }); err != nil {
			return nil, err
		}
	}
	l := &listing{files: f.root.FS(), o: o, size: cmp.Or(o.PageSize, listPage)}
	from := "."
	if i := strings.LastIndexByte(o.Prefix, '/'); i >= 0 {
		from = o.Prefix[:i]
	}
	if !fs.ValidPath(from) {
		return &driver.ListPage{}, nil // no object has such a name
	}
	if err := l.folder(ctx, from); err != nil {
		return nil, err
	}
	page := &driver.ListPage{Objects: l.found}
	if len(l.found) > l.size {
		page.Objects = l.found[:l.size]
		page.NextPageToken = []byte(page.Objects[l.size-1].Key)
	}
	return page, nil
}

const listPage = 1000

// listing is a page of what has a prefix, while it is made.
type listing struct {
	files fs.FS
	o     *driver.ListOptions
	size  int
	found []*driver.ListObject // one more than size where there is another page
}

// folder adds what is in a folder and below it, until the page is full.
func (l *listing) folder(ctx context.Context, dir string) error {
	entries, err := fs.ReadDir(l.files, dir)
	if err := errors.Join(ignoreGone(err), ctx.Err()); err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(keyOf(dir, a), keyOf(dir, b)) })
	for _, d := range entries {
		switch key := keyOf(dir, d); {
		case d.IsDir() && l.leadsOn(key):
			err = l.folder(ctx, path.Join(dir, d.Name()))
		case d.Type().IsRegular() && !hidden(d.Name()) && strings.HasPrefix(key, l.o.Prefix):
			err = ignoreGone(l.add(key, d))
		}
		if err != nil || len(l.found) > l.size {
			return err
		}
	}
	return nil
}

// keyOf is what the key of a file is, and what those of a folder's files begin with.
func keyOf(dir string, d fs.DirEntry) string {
	key := path.Join(dir, d.Name())
	if d.IsDir() {
		key += "/"
	}
	return key
}

// leadsOn reports whether keys that begin with that of a folder may be on the page.
func (l *listing) leadsOn(key string) bool {
	if token := string(l.o.PageToken); key <= token && !strings.HasPrefix(token, key) {
		return false // all of them were on the pages before
	}
	return strings.HasPrefix(key, l.o.Prefix) || strings.HasPrefix(l.o.Prefix, key)
}

// add adds a file, or once for all that have it in common what the delimiter ends.
func (l *listing) add(key string, d fs.DirEntry) error {
	o := &driver.ListObject{Key: key}
	if l.o.Delimiter != "" {
		if i := strings.Index(key[len(l.o.Prefix):], l.o.Delimiter); i >= 0 {
			o.Key, o.IsDir = key[:len(l.o.Prefix)+i+len(l.o.Delimiter)], true
		}
	}
	if o.Key <= string(l.o.PageToken) || len(l.found) > 0 && l.found[len(l.found)-1].Key == o.Key {
		return nil
	}
	if !o.IsDir {
		info, err := d.Info()
		if err != nil {
			return err
		}
		o.ModTime, o.Size = info.ModTime(), info.Size()
	}
	l.found = append(l.found, o)
	return nil
}

// ignoreGone forgives what was deleted while it was listed, or never was a folder.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return err
}
