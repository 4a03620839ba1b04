package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
)

// credentials writes a file of AWS credentials.
func credentials(t *testing.T, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "credentials")
	text := "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret\n[empty]\n"
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return file
}

// s3Server starts a store that speaks as S3 does, with a bucket named recordings.
func s3Server(t *testing.T) (url string, backend gofakes3.Backend) {
	t.Helper()
	backend = s3mem.New()
	if err := backend.CreateBucket("recordings"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server())
	t.Cleanup(server.Close)
	return server.URL, backend
}

func open(t *testing.T, c Config) *Bucket {
	t.Helper()
	b, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// TestStores does the same with each store.
func TestStores(t *testing.T) {
	for _, test := range []struct {
		name string
		open func(t *testing.T) *Bucket
	}{
		{"a folder by its path", func(t *testing.T) *Bucket {
			return open(t, Config{URL: filepath.Join(t.TempDir(), "made", "here")})
		}},
		{"a folder by URL", func(t *testing.T) *Bucket { return open(t, Config{URL: "file://" + t.TempDir()}) }},
		{"S3", func(t *testing.T) *Bucket {
			at, _ := s3Server(t)
			return open(t, Config{URL: "s3://recordings?region=eu-central-1&path_style=true&endpoint=" + at, CredentialsFile: credentials(t, 0o600)})
		}},
		{"S3 with a prefix", func(t *testing.T) *Bucket {
			at, _ := s3Server(t)
			return open(t, Config{URL: "s3://recordings/of/ours/?region=eu-central-1&path_style=true&endpoint=" + at, CredentialsFile: credentials(t, 0o600)})
		}},
	} {
		t.Run(test.name, func(t *testing.T) { testStore(t, test.open(t)) })
	}
}

func testStore(t *testing.T, b *Bucket) {
	ctx := t.Context()
	for _, key := range []string{"2026/11/20/a/key.json", "2026/11/20/a/000001.chunk", "2026/11/20/ab/key.json", "audit/head.json"} {
		if err := b.WriteAll(ctx, key, []byte("of "+key), nil); err != nil {
			t.Fatalf("writing %s: %v", key, err)
		}
	}
	got, err := b.ReadAll(ctx, "2026/11/20/a/key.json")
	if err != nil || string(got) != "of 2026/11/20/a/key.json" {
		t.Errorf("got %q, %v, want what was written", got, err)
	}
	if diff := cmp.Diff([]string{"2026/11/20/a/000001.chunk", "2026/11/20/a/key.json"}, listOf(t, b, "2026/11/20/a/")); diff != "" {
		t.Errorf("objects of a recording (-want +got):\n%s", diff)
	}
	if err := b.WriteAll(ctx, "2026/11/20/a/key.json", []byte("another"), nil); err != nil {
		t.Fatal(err)
	}
	if got, err := b.ReadAll(ctx, "2026/11/20/a/key.json"); err != nil || string(got) != "another" {
		t.Errorf("got %q, %v, want what was written over it", got, err)
	}
	for range 2 { // what is gone is no error
		if err := b.Purge(ctx, "2026/11/20/a/key.json"); err != nil {
			t.Errorf("purging: %v", err)
		}
	}
	if _, err := b.ReadAll(ctx, "2026/11/20/a/key.json"); gcerrors.Code(err) != gcerrors.NotFound {
		t.Errorf("got %v, want NotFound", err)
	}
	want := []string{"2026/11/20/a/000001.chunk", "2026/11/20/ab/key.json", "audit/head.json"}
	if diff := cmp.Diff(want, listOf(t, b, "")); diff != "" {
		t.Errorf("all objects (-want +got):\n%s", diff)
	}
}

func listOf(t *testing.T, b *Bucket, prefix string) (keys []string) {
	t.Helper()
	all := b.List(&blob.ListOptions{Prefix: prefix})
	for {
		o, err := all.Next(t.Context())
		if err == io.EOF {
			return keys
		}
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
}

func TestOpenRefuses(t *testing.T) {
	good := credentials(t, 0o600)
	for _, test := range []struct{ url, file, want string }{
		{"", "", "want an absolute path or a URL"},
		{"recordings", "", "want an absolute path or a URL"},
		{"ftp://host/x", "", "want an absolute path or one of azblob://, file://, gs://, s3://"},
		{"s3://AKID:secret@bucket?region=r", "", "a URL has no credentials in it"},
		{"s3://bucket?region=r&secret=x", good, `parameter "secret": want one of region, `},
		{"s3://bucket?region=r&region=s", good, `parameter "region": want one value`},
		{"s3://bucket?region=r&endpoint=http://s3.example.com", good, "want https; http is for this machine alone"},
		{"s3://bucket?region=r&endpoint=https://u:p@s3.example.com", good, "endpoint: want https://HOST[:PORT]"},
		{"s3://bucket?region=r&sse=rot13", good, `sse "rot13": want AES256`},
		{"s3://bucket?region=r&path_style=maybe", good, `path_style "maybe"`},
		{"s3://bucket/../other?region=r", good, "want names with single slashes"},
		{"s3://bucket?region=r", credentials(t, 0o644), "want a file of mode 0600"},
		{"s3://bucket?region=r&profile=empty", good, "profile empty has no keys"},
		{"s3://bucket?region=r&profile=other", good, "profile other"},
		{"s3://b*d?region=r", good, "want letters, digits"},
		{"file://elsewhere/x", "", "want file:///ABSOLUTE/PATH"},
		{"file:///x?mode=1", "", `parameter "mode": there are none`},
	} {
		_, err := Open(t.Context(), Config{URL: test.url, CredentialsFile: test.file})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.url, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret@") {
			t.Errorf("%s: the error %q tells a secret", test.url, err)
		}
	}
}

// TestPurgeVersions sees to it that nothing is left of what is purged in a bucket that
// keeps versions.
func TestPurgeVersions(t *testing.T) {
	at, backend := s3Server(t)
	versions := backend.(gofakes3.VersionedBackend)
	if err := versions.SetVersioningConfiguration("recordings", gofakes3.VersioningConfiguration{Status: gofakes3.VersioningEnabled}); err != nil {
		t.Fatal(err)
	}
	b := open(t, Config{URL: "s3://recordings/p?region=eu-central-1&path_style=true&endpoint=" + at, CredentialsFile: credentials(t, 0o600)})
	for n := range 3 {
		if err := b.WriteAll(t.Context(), "a/key.json", fmt.Append(nil, n), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.WriteAll(t.Context(), "a/key.json.other", []byte("stays"), nil); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), "a/key.json"); err != nil { // leaves a marker
		t.Fatal(err)
	}
	if err := b.Purge(t.Context(), "a/key.json"); err != nil {
		t.Fatal(err)
	}
	prefix := gofakes3.NewPrefix(nil, nil)
	left, err := versions.ListBucketVersions("recordings", &prefix, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(left.Versions) != 1 || left.Versions[0].GetVersionID() == "" {
		t.Errorf("got %d versions left, want the other object's one", len(left.Versions))
	}
	if got, err := b.ReadAll(t.Context(), "a/key.json.other"); err != nil || string(got) != "stays" {
		t.Errorf("got %q, %v, want the other object untouched", got, err)
	}
}

func TestFolderIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "recordings")
	b := open(t, Config{URL: dir})
	if err := b.WriteAll(t.Context(), "2026/11/20/a/key.json", []byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{"": 0o700, "2026": 0o700, "2026/11/20/a": 0o700, "2026/11/20/a/key.json": 0o600} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q: got %v, %v, want mode %v", path, info.Mode(), err, want)
		}
	}
	if err := b.Purge(t.Context(), "2026/11/20/a/key.json"); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("got %v, %v left, want an empty folder", left, err)
	}
}

// TestFolderKeepsNamesIn tries names and links that lead out of the folder.
func TestFolderKeepsNamesIn(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	b := open(t, Config{URL: dir})
	for _, key := range []string{
		"../" + filepath.Base(outside) + "/secret", "link/secret", secret, "a/../../secret", "./secret", "a//b", "link", ".new-x", `a\..\b`,
	} {
		if got, err := b.ReadAll(t.Context(), key); err == nil {
			t.Errorf("%s: read %q, want an error", key, got)
		}
		if err := b.WriteAll(t.Context(), key, []byte("x"), nil); err == nil && key != "link" {
			t.Errorf("%s: could be written, want an error", key)
		}
		if err := b.Purge(t.Context(), key); err == nil && key == "link/secret" {
			t.Errorf("%s: could be purged, want an error", key)
		}
	}
	if got, err := os.ReadFile(secret); err != nil || string(got) != "secret" {
		t.Errorf("got %q, %v, want the file outside untouched", got, err)
	}
	if got := listOf(t, b, "../"); len(got) > 0 {
		t.Errorf("got %v, want nothing from outside", got)
	}
}

// TestFolderUnfinished sees to it that what is not written to its end is not there.
func TestFolderUnfinished(t *testing.T) {
	b := open(t, Config{URL: t.TempDir()})
	ctx, cancel := context.WithCancel(t.Context())
	w, err := b.NewWriter(ctx, "a/000001.chunk", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
		t.Fatal(err)
	}
	if got := listOf(t, b, ""); len(got) > 0 {
		t.Errorf("got %v while it is written, want nothing", got)
	}
	cancel()
	if err := w.Close(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if ok, err := b.Exists(t.Context(), "a/000001.chunk"); ok || err != nil {
		t.Errorf("got %v, %v, want nothing there", ok, err)
	}
}

// A writer that was killed has left a copy of a key: what is purged is gone with it.
func TestFolderPurgesUnfinished(t *testing.T) {
	dir := t.TempDir()
	b := open(t, Config{URL: dir})
	for _, key := range []string{"a/key.json", "b/key.json"} {
		if err := b.WriteAll(t.Context(), key, []byte("x"), nil); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Dir(key), unfinished+"x"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Purge(t.Context(), "a/key.json"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want nothing left", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "b")); err != nil || len(left) != 2 {
		t.Errorf("got %v, %v beside the other key, want it untouched", left, err)
	}
}

// Pages of any size are what has the prefix, in the order of keys, which is not that of
// folders: "a-b" is before "a/b".
func TestFolderPages(t *testing.T) {
	b := open(t, Config{URL: t.TempDir()})
	for _, key := range []string{"a-b", "a/b/1", "a/b/2", "a/b-c", "a/b0", "a0", "a0b/x", "b/c/d/e", "c"} {
		if err := b.WriteAll(t.Context(), key, []byte(key), nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ prefix, delimiter, want string }{
		{"", "", "a-b a/b-c a/b/1 a/b/2 a/b0 a0 a0b/x b/c/d/e c"},
		{"a", "", "a-b a/b-c a/b/1 a/b/2 a/b0 a0 a0b/x"},
		{"a/b", "", "a/b-c a/b/1 a/b/2 a/b0"},
		{"a/b/", "", "a/b/1 a/b/2"},
		{"a/b/1", "", "a/b/1"},
		{"a/b/1/", "", ""},
		{"a//", "", ""},
		{"/", "", ""},
		{"none/", "", ""},
		{"", "/", "a-b a/ a0 a0b/ b/ c"},
		{"a/", "/", "a/b-c a/b/ a/b0"},
		{"", "b", "a-b a/b a0 a0b b c"},
	} {
		for size := 1; size < 10; size++ {
			var got []string
			for token := blob.FirstPageToken; token != nil; {
				page, next, err := b.ListPage(t.Context(), token, size, &blob.ListOptions{Prefix: test.prefix, Delimiter: test.delimiter})
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range page {
					got = append(got, o.Key)
					if !o.IsDir && o.Size != int64(len(o.Key)) {
						t.Errorf("%s: got the size %d", o.Key, o.Size)
					}
				}
				token = next
			}
			if got := strings.Join(got, " "); got != test.want {
				t.Errorf("prefix %q, delimiter %q, by pages of %d: got %q, want %q", test.prefix, test.delimiter, size, got, test.want)
			}
		}
	}
}

// reads counts the folders that are read.
type reads struct {
	fs.FS
	n int
}

func (r *reads) Open(name string) (fs.File, error) {
	r.n++
	return r.FS.Open(name)
}

// A page of a large store reads a few folders, and not all of it: whether a store is there is
// asked at each start.
func TestFolderPageReadsFew(t *testing.T) {
	store := fstest.MapFS{}
	for n := range 1000 {
		store[fmt.Sprintf("2026/%04d/key.json", n)] = &fstest.MapFile{}
	}
	for _, token := range []string{"", "2026/0500/key.json"} {
		r := &reads{FS: store}
		l := &listing{files: r, o: &driver.ListOptions{PageToken: []byte(token)}, size: 1}
		if err := l.folder(t.Context(), "."); err != nil || len(l.found) != 2 || r.n > 10 {
			t.Errorf("after %q: got %d objects and %d reads, %v, want 2 with few", token, len(l.found), r.n, err)
		}
	}
}
