// Package pgtest starts a private PostgreSQL server for tests: its files in a
// temporary folder, its port on loopback only, gone when the test ends.
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport.dev/internal/needs"
)

const startTimeout = 60 * time.Second

// Server is a running PostgreSQL server.
type Server struct {
	bin      string // folder of initdb and pg_ctl
	dir      string // holds data/ and the socket
	port     int
	password string
	account  *user.User // whom it runs as; nil for ourselves
	count    atomic.Int32
}

// Start starts a server that the test's end stops. The test is skipped, by name,
// where no PostgreSQL is installed.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := find()
	if err != nil {
		needs.Missing(t, fmt.Sprintf("PostgreSQL: %v", err))
	}
	if s.dir, err = os.MkdirTemp("", "pg"); err != nil { // short: socket paths are limited to 107 bytes
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(s.dir) })
	if err := s.start(); err != nil {
		t.Fatalf("starting PostgreSQL: %v", err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("stopping PostgreSQL: %v", err)
		}
	})
	return s
}

// find looks for the newest installed PostgreSQL, and for an account to run it: it
// refuses to run as root.
func find() (*Server, error) {
	s := &Server{password: rand.Text()}
	if s.bin = newestBin(); s.bin == "" {
		return nil, errors.New("no initdb in /usr/lib/postgresql/*/bin nor in PATH")
	}
	if os.Geteuid() != 0 {
		return s, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("running as root: %w", err)
	}
	s.account = account
	return s, nil
}

func newestBin() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is valid
	if len(found) > 0 {
		newest := slices.MaxFunc(found, func(a, b string) int { return versionOf(a) - versionOf(b) })
		return filepath.Dir(newest)
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path)
	}
	return ""
}

func versionOf(initdb string) int {
	v, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb)))) // 0 for odd names
	return v
}

func (s *Server) start() error {
	if err := s.own(s.dir); err != nil {
		return err
	}
	pwfile := filepath.Join(s.dir, "password")
	if err := os.WriteFile(pwfile, []byte(s.password), 0o600); err != nil {
		return err
	}
	if err := s.own(pwfile); err != nil {
		return err
	}
	err := s.run("initdb", "--pgdata", s.data(), "--username", "sallyport", "--pwfile", pwfile,
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
	if err != nil {
		return err
	}
	if s.port, err = freePort(); err != nil {
		return err
	}
	return s.Up()
}

// own gives a file to the account that the server runs as.
func (s *Server) own(path string) error {
	if s.account == nil {
		return nil
	}
	uid, gid, err := ids(s.account)
	if err != nil {
		return err
	}
	return os.Chown(path, int(uid), int(gid))
}

func ids(u *user.User) (uid, gid uint32, err error) {
	id, errU := strconv.ParseUint(u.Uid, 10, 32)
	group, errG := strconv.ParseUint(u.Gid, 10, 32)
	return uint32(id), uint32(group), errors.Join(errU, errG)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// Up starts the server again after Down; Start has done so the first time.
func (s *Server) Up() error {
	// Without fsync it survives its own crash, though not the machine's, and is fast. Its log
	// is kept small: machines that run tests have small disks.
	options := fmt.Sprintf("-p %d -c listen_addresses=127.0.0.1 -c unix_socket_directories=%s"+
		" -c max_connections=200 -c fsync=off -c max_wal_size=96MB -c min_wal_size=32MB", s.port, s.dir)
	return s.run("pg_ctl", "start", "--pgdata", s.data(), "--log", filepath.Join(s.dir, "log"),
		"--wait", "--options", options)
}

// Down stops the server as a crash does, for tests of what happens then.
func (s *Server) Down() error {
	return s.run("pg_ctl", "stop", "--pgdata", s.data(), "--mode", "immediate", "--wait")
}

func (s *Server) stop() error {
	if _, err := os.Stat(filepath.Join(s.data(), "postmaster.pid")); err != nil {
		return nil // a test left it stopped
	}
	return s.Down()
}

func (s *Server) run(program string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, program), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	// In a session of its own, so that Ctrl-C ends the test first, which then stops it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if s.account != nil {
		uid, gid, err := ids(s.account)
		if err != nil {
			return err
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	// To a file: the server inherits the descriptor, and waiting for the end of a pipe
	// would be waiting for the server.
	out, err := os.Create(filepath.Join(s.dir, program+".out"))
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, s.tail(out.Name(), filepath.Join(s.dir, "log")))
	}
	return nil
}

func (s *Server) tail(files ...string) string {
	var all strings.Builder
	for _, f := range files {
		text, _ := os.ReadFile(f) // absent if it never came to that
		all.Write(text[max(0, len(text)-2000):])
	}
	return all.String()
}

// Database creates an empty database, which the test's end drops, and returns its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test%d", s.count.Add(1))
	if err := s.exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatalf("creating database: %v", err)
	}
	t.Cleanup(func() {
		if err := s.exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("dropping database: %v", err)
		}
	})
	return s.url(name)
}

// exec runs a statement that belongs to no database.
func (s *Server) exec(ctx context.Context, statement string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, statement)
	return err
}

func (s *Server) url(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword("sallyport", s.password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}
