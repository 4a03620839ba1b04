package archive

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport.dev/archive/bucket"
	"sallyport.dev/recording"
)

// childDir, set, makes this test program record into the archive in that folder until it
// is killed.
const childDir = "SALLYPORT_TEST_RECORD_TO"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(recordForEver(dir))
	}
	os.Exit(m.Run())
}

// busy is how many sessions the child records.
const busy = 50

// childSystem are the parts of the archive in a folder, for the child and for who comes
// after it. Rows are in memory, as a database that the child's death leaves alone.
func childConfig(dir string) (Config, error) {
	keeper, err := KeyFile(filepath.Join(dir, "recordings.key"))
	return Config{
		Keeper: keeper, Rows: &rows{rows: map[string]Row{}}, Logger: slog.New(slog.DiscardHandler), Member: "one",
		Spool: filepath.Join(dir, "spool"), ChunkInterval: 20 * time.Millisecond, ChunkSize: 16 << 10,
	}, err
}

// recordForEver prints what is durable: the session and the number of its last line, after
// the flush of it.
func recordForEver(dir string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cfg, err := childConfig(dir)
	if err != nil {
		return fail(err)
	}
	b, err := bucket.Open(context.Background(), bucket.Config{URL: filepath.Join(dir, "store")})
	if err != nil {
		return fail(err)
	}
	cfg.Bucket = b.Bucket
	a, err := Open(context.Background(), cfg)
	if err != nil {
		return fail(err)
	}
	for i := range busy {
		h := header(fmt.Sprint("s", i))
		r, err := a.Create(context.Background(), h)
		if err != nil {
			return fail(err)
		}
		go func() {
			for n := 0; ; n++ {
				err := r.Output(start.Add(time.Duration(n)*time.Millisecond), fmt.Appendf(nil, "line %06d %s\r\n", n, strings.Repeat("x", 40+i*20)))
				if n%10 == 9 && err == nil {
					if err = r.Flush(); err == nil {
						fmt.Printf("s%d %d\n", i, n) // one write
					}
				}
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				time.Sleep(100 * time.Microsecond)
			}
		}()
	}
	time.Sleep(10 * time.Minute) // the parent kills it long before
	return 1
}

// A recording process is killed several times while it writes, sends and removes: what was
// flushed can be played, the torn last frame is cut, each recording ends with the reason, and
// the store gets all of it.
func TestKilled(t *testing.T) {
	for _, events := range []int{60, 600} {
		t.Run(fmt.Sprint(events), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			told := runAndKill(t, dir, events)
			cfg, err := childConfig(dir)
			must(t, err)
			cfg.Bucket = folder(t, filepath.Join(dir, "store"))
			a, err := Open(t.Context(), cfg)
			must(t, err)
			defer closeNow(t, a)
			if len(told) != busy {
				t.Fatalf("%d sessions were busy, want %d", len(told), busy)
			}
			for range 2 {
				for session, last := range told {
					checkKilled(t, a, session, last)
				}
				waitStored(t, a)
			}
		})
	}
}

func checkKilled(t *testing.T, a *Archive, session string, last int) {
	t.Helper()
	name := "2026/11/20/" + session
	text, end := shown(t, mustRead(t, a, name))
	all := strings.Split(text, "\r\n")
	if !strings.HasPrefix(text, "line 000000 ") || len(all)-2 < last {
		t.Errorf("%s: got %d lines, but line %d was said to be durable", session, len(all)-1, last)
	}
	for n, line := range all[:len(all)-1] {
		if !strings.HasPrefix(line, fmt.Sprintf("line %06d x", n)) {
			t.Fatalf("%s: line %d is %q", session, n, line)
		}
	}
	if end == nil || end.Reason != Restarted {
		t.Errorf("%s: got the end %+v, want the reason %q", session, end, Restarted)
	}
	report, err := a.Verify(t.Context(), name)
	if err != nil || len(report.Damage) > 0 || report.Manifest.End.Reason != Restarted {
		t.Errorf("%s: got %+v, %v", session, report, err)
	}
	row, err := a.cfg.Rows.Recording(t.Context(), name)
	if err == nil && row.State == Stored && (row.EndReason != Restarted || row.Manifest != report.Manifest.Sum) {
		t.Errorf("%s: got %+v", session, row)
	}
}

// runAndKill starts a child, kills it once it has told of some flushes, and returns the last
// line of each session that it said was durable.
func runAndKill(t *testing.T, dir string, flushes int) map[string]int {
	t.Helper()
	program, err := os.Executable()
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	told := map[string]int{}
	scanner := bufio.NewScanner(out)
	for n := 0; scanner.Scan(); n++ {
		var session string
		var line int
		if _, err := fmt.Sscanf(scanner.Text(), "%s %d", &session, &line); err != nil {
			break // the line that the kill cut short
		}
		told[session] = max(told[session], line)
		if n >= flushes && len(told) == busy {
			cmd.Process.Kill() // SIGKILL: no chance to tidy up
		}
	}
	cmd.Wait() // killed, so an error
	return told
}

// Wherever a kill cuts the last frame, what was flushed before is there, and what comes after
// the cut is a good recording.
func TestTorn(t *testing.T) {
	s := newSystem(t)
	a := s.open()
	r := create(t, a, "alice-1")
	show(t, r, 0, 3)
	chunk := filepath.Join(s.cfg.Spool, r.Name, chunkName(1))
	before, err := os.ReadFile(chunk)
	must(t, err)
	show(t, r, 3, 1)
	whole, err := os.ReadFile(chunk)
	must(t, err)
	kill(a)
	journal, err := os.ReadFile(filepath.Join(s.cfg.Spool, r.Name, journalObject))
	must(t, err)
	key, err := os.ReadFile(filepath.Join(s.cfg.Spool, r.Name, keyObject))
	must(t, err)
	for _, cut := range []int{len(before), len(before) + 1, len(before) + frameHeader, len(before) + frameHeader + 1, len(whole) - 1, len(whole)} {
		next := newSystem(t)
		next.cfg.Keeper = s.cfg.Keeper
		dir := filepath.Join(next.cfg.Spool, r.Name)
		must(t, os.MkdirAll(dir, 0o700))
		for object, b := range map[string][]byte{keyObject: key, journalObject: journal, chunkName(1): whole[:cut]} {
			must(t, os.WriteFile(filepath.Join(dir, object), b, 0o600))
		}
		a := next.open()
		waitStored(t, a)
		want := lines(0, 3)
		if cut == len(whole) {
			want = lines(0, 4)
		}
		if text, end := shown(t, mustRead(t, a, r.Name)); text != want || end == nil {
			t.Errorf("cut at %d of %d: got %q and end %v", cut, len(whole), text, end)
		}
		if report, err := a.Verify(t.Context(), r.Name); err != nil || len(report.Damage) > 0 {
			t.Errorf("cut at %d: got %+v, %v", cut, report, err)
		}
		if damaged := a.Stats().Damaged; damaged != 0 {
			t.Errorf("cut at %d: got %d damages, want none: that is what a kill leaves", cut, damaged)
		}
		closeNow(t, a)
	}
}

// What the earlier run had finished, or written down the end of, keeps that end; the
// recording that was finished late is told of.
func TestRecoveredEnds(t *testing.T) {
	store := newS3(t)
	s := store.with(t)
	var told []string
	a := s.open()
	finished, lost, known := create(t, a, "finished"), create(t, a, "lost"), create(t, a, "known")
	for _, r := range []*Recording{finished, lost, known} {
		show(t, r, 0, 5)
	}
	s.cfg.Finished = func(_ context.Context, m Manifest) error {
		told = append(told, m.Session)
		return nil
	}
	s.cfg.Ended = func(_ context.Context, session string) (recording.End, bool) {
		return recording.End{Reason: "terminated", Ended: start.Add(time.Minute)}, session == "known"
	}
	store.set(away)
	end(t, finished)
	kill(a)
	store.set(works)
	a = s.open()
	waitStored(t, a)
	for name, want := range map[string]recording.End{
		"finished": {Reason: "exit", Ended: start.Add(time.Hour)},
		"lost":     {Reason: Restarted, Ended: start.Add(4 * time.Second)},
		"known":    {Reason: "terminated", Ended: start.Add(time.Minute)},
	} {
		m, err := a.Manifest(t.Context(), "2026/11/20/"+name)
		if err != nil || m.End != want || m.Session != name || m.NodeName != "web-1" {
			t.Errorf("%s: got %+v, %v, want the end %+v", name, m, err, want)
		}
		text, got := shown(t, mustRead(t, a, "2026/11/20/"+name))
		if text != lines(0, 5) || got == nil || *got != want {
			t.Errorf("%s: got %q and the end %+v", name, text, got)
		}
	}
	if len(told) != 1 || told[0] != "known" {
		t.Errorf("told of %v, want of what ended before", told)
	}
}

// The machine may lose the end of the journal, or all of it; what is in chunks here or in the
// store is put together again.
func TestLostJournal(t *testing.T) {
	for name, test := range map[string]struct {
		keep   int64 // bytes of the journal
		stored bool  // the store has all chunks
	}{
		"all":                                 {0, false},
		"the end":                             {700, false},
		"all, and the store has the rest":     {0, true},
		"the end, and the store has the rest": {700, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t, func(c *Config) { c.ChunkSize = 1000 })
			a := s.open()
			r := create(t, a, "alice-1")
			show(t, r, 0, 40)
			n := 40
			for ; test.stored && chunkIsOpen(r); n++ {
				show(t, r, n, 1)
			}
			eventually(t, "chunks to be stored", func() bool { return !hasFinished(t, s, r) })
			if !test.stored {
				show(t, r, n, 3)
				n += 3
			}
			kill(a)
			must(t, os.Truncate(filepath.Join(s.cfg.Spool, r.Name, journalObject), test.keep))
			a = s.open()
			waitStored(t, a)
			if text, end := shown(t, mustRead(t, a, r.Name)); text != lines(0, n) || end == nil {
				t.Errorf("got %d bytes and the end %v, want %d", len(text), end, len(lines(0, n)))
			}
			report, err := a.Verify(t.Context(), r.Name)
			if err != nil || len(report.Damage) > 0 || report.Manifest.Session != "alice-1" {
				t.Errorf("got %+v, %v", report, err)
			}
		})
	}
}

func chunkIsOpen(r *Recording) bool {
	_, open := r.live.view()
	return open.Size > 0
}

// hasFinished reports whether the spool has chunks that wait for the store.
func hasFinished(t *testing.T, s *system, r *Recording) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.cfg.Spool, r.Name, "*.chunk"))
	must(t, err)
	_, open := r.live.view()
	return slices.ContainsFunc(files, func(f string) bool { return filepath.Base(f) != open.Name })
}

// A key service that is away when the member starts holds up neither the start nor other
// recordings; what was left is finished once it is back.
func TestRecoveryWaitsForTheKeeper(t *testing.T) {
	s := newSystem(t)
	a := s.open()
	r := create(t, a, "alice-1")
	show(t, r, 0, 5)
	kill(a)
	away := &awayKeeper{Keeper: s.cfg.Keeper}
	away.away.Store(true)
	s.cfg.Keeper = away
	a = s.open()
	if _, err := a.Open(t.Context(), r.Name); err == nil {
		t.Error("opened without a key")
	}
	if _, err := a.Create(t.Context(), header("alice-2")); err == nil || !strings.Contains(err.Error(), "key service is away") {
		t.Errorf("got %v, want no recording without a key", err)
	}
	away.away.Store(false)
	waitStored(t, a)
	if text, _ := shown(t, mustRead(t, a, r.Name)); text != lines(0, 5) {
		t.Errorf("got %q", text)
	}
}

// unreadable makes a file one that is there and cannot be read, until readAgain, as where the disk
// fails: a link that leads out of the spool.
func unreadable(t *testing.T, file string) (readAgain func()) {
	t.Helper()
	must(t, os.Rename(file, file+".aside"))
	must(t, os.Symlink(t.TempDir(), file))
	return func() { must(t, os.Rename(file+".aside", file)) } // at no moment is there none
}

// What an earlier run left is read while it cannot be finished: nothing of it is damaged.
func TestReadUnfinished(t *testing.T) {
	store := newS3(t)
	s := store.with(t, func(c *Config) { c.ChunkSize = 1000 })
	a := s.open()
	store.set(away)
	r := create(t, a, "alice-1")
	show(t, r, 0, 43)
	kill(a)
	store.set(works)
	journal := filepath.Join(s.cfg.Spool, r.Name, journalObject)
	readAgain := unreadable(t, journal)
	a = s.open()
	if text, end := shown(t, mustRead(t, a, r.Name)); text != lines(0, 43) || end != nil {
		t.Errorf("got %d bytes and the end %v, want %d and none", len(text), end, len(lines(0, 43)))
	}
	if n := a.Stats().Damaged; n != 0 {
		t.Errorf("got %d damages, want none", n)
	}
	readAgain()
	waitStored(t, a)
	checkWhole(t, a, r.Name, lines(0, 43))
}

// A chunk of an earlier run that cannot be read for a while is sent when it can be: nothing is
// taken for sent that is not.
func TestUnreadableChunkWaits(t *testing.T) {
	for name, ended := range map[string]bool{"of a finished recording": true, "of one that was live": false} {
		t.Run(name, func(t *testing.T) {
			store := newS3(t)
			s := store.with(t, func(c *Config) { c.ChunkSize = 1000 })
			a := s.open()
			store.set(away)
			r := create(t, a, "alice-1")
			show(t, r, 0, 43)
			if ended {
				end(t, r)
			}
			kill(a)
			readAgain := unreadable(t, filepath.Join(s.cfg.Spool, r.Name, chunkName(2)))
			a = s.open()
			store.set(works)
			eventually(t, "what can be read to be sent", func() bool { return a.Stats().Stored >= 2 })
			readAgain()
			waitStored(t, a)
			checkWhole(t, a, r.Name, lines(0, 43))
		})
	}
}

// A recording that was finished late is told of by whichever run has it stored: the audit log
// would never name its manifest.
func TestFinishedLateIsTold(t *testing.T) {
	for name, sealed := range map[string]bool{"it was live": false, "its manifest could not be written": true} {
		t.Run(name, func(t *testing.T) {
			store := newS3(t)
			s := store.with(t)
			a := s.open()
			store.set(away)
			r := create(t, a, "known")
			show(t, r, 0, 5)
			if sealed {
				end(t, r)
			}
			kill(a)
			if sealed {
				must(t, os.Remove(filepath.Join(s.cfg.Spool, r.Name, manifestObject)))
			}
			var told []string
			s.cfg.Finished = func(_ context.Context, m Manifest) error {
				told = append(told, m.Session)
				return nil
			}
			s.cfg.Ended = func(context.Context, string) (recording.End, bool) {
				return recording.End{Reason: "terminated", Ended: start.Add(time.Minute)}, true
			}
			kill(s.open()) // finishes it, and cannot send it
			store.set(works)
			a = s.open()
			waitStored(t, a)
			if len(told) != 1 || told[0] != "known" {
				t.Errorf("told of %v, want of what ended before", told)
			}
		})
	}
}
