package bucket

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
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

// As implements driver.Bucket.
func (*folder) As(any) bool { return false }

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
	want      []byte
	hash      hash.Hash // of what was written, if want says what it must be
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
	if len(o.ContentMD5) > 0 {
		w.want, w.hash = o.ContentMD5, md5.New()
	}
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
func (w *writer) Write(p []byte) (int, error) {
	if w.hash != nil {
		w.hash.Write(p)
	}
	return w.file.Write(p)
}

// Close puts the file into its place, unless the writing was given up.
func (w *writer) Close() error {
	err := w.ctx.Err()
	if err == nil && w.hash != nil && !bytes.Equal(w.hash.Sum(nil), w.want) {
		err = fmt.Errorf("%s: the MD5 is another", w.key)
	}
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

// ListPaged implements driver.Bucket. It reads the folders that the prefix leads to.
func (f *folder) ListPaged(ctx context.Context, o *driver.ListOptions) (*driver.ListPage, error) {
	if o.BeforeList != nil {
		if err := o.BeforeList(func(any) bool { return false }); err != nil {
			return nil, err
		}
	}
	all, err := f.list(ctx, o)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b *driver.ListObject) int { return strings.Compare(a.Key, b.Key) })
	after, _ := slices.BinarySearchFunc(all, string(o.PageToken), func(v *driver.ListObject, token string) int {
		if v.Key <= token {
			return -1
		}
		return 1
	})
	if len(o.PageToken) > 0 {
		all = all[after:]
	}
	size := o.PageSize
	if size == 0 {
		size = listPage
	}
	page := &driver.ListPage{Objects: all}
	if len(all) > size {
		page.Objects = all[:size]
		page.NextPageToken = []byte(all[size-1].Key)
	}
	return page, nil
}

const listPage = 1000

// list returns what has the prefix, folders that the delimiter ends once.
func (f *folder) list(ctx context.Context, o *driver.ListOptions) (all []*driver.ListObject, err error) {
	from := path.Dir(o.Prefix) // without what follows the last slash
	if !strings.Contains(o.Prefix, "/") {
		from = "."
	}
	if !fs.ValidPath(from) {
		return nil, nil // no object has such a name
	}
	seen := map[string]bool{}
	err = fs.WalkDir(f.root.FS(), from, func(key string, d fs.DirEntry, err error) error {
		if err := errors.Join(ignoreGone(err), ctx.Err()); err != nil {
			return err
		}
		if err != nil || !d.Type().IsRegular() || hidden(d.Name()) || !strings.HasPrefix(key, o.Prefix) {
			return nil
		}
		object, err := listed(key, d, o)
		if object != nil && !seen[object.Key] {
			seen[object.Key] = true
			all = append(all, object)
		}
		return ignoreGone(err)
	})
	return all, ignoreGone(err)
}

// listed is how a file is listed.
func listed(key string, d fs.DirEntry, o *driver.ListOptions) (*driver.ListObject, error) {
	if o.Delimiter != "" {
		if i := strings.Index(key[len(o.Prefix):], o.Delimiter); i >= 0 {
			return &driver.ListObject{Key: key[:len(o.Prefix)+i+len(o.Delimiter)], IsDir: true}, nil
		}
	}
	info, err := d.Info()
	if err != nil {
		return nil, err
	}
	return &driver.ListObject{Key: key, ModTime: info.ModTime(), Size: info.Size()}, nil
}

// ignoreGone forgives what was deleted while it was listed.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
