package agent

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"sallyport.dev/wire"
)

// States of a job on disk.
const (
	jobRunning = "running"
	jobDone    = "done"    // the server does not know yet
	jobSettled = "settled" // only remembered, so that it does not run again
)

// record is a job on disk: StateDir/jobs/ID.json.
type record struct {
	ID    string         `json:"id"`
	JobID string         `json:"jobId"`
	State string         `json:"state"`
	Reply *wire.JobReply `json:"reply,omitempty"`
}

const jobInterrupted = "the agent was restarted while the command ran"

func (j *jobs) dir() string { return filepath.Join(j.a.cfg.StateDir, "jobs") }

func (j *jobs) keep(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(j.dir(), 0o700); err != nil {
		return err
	}
	return writeFile(j.dir(), r.ID+".json", b)
}

// settled notes that the server knows what a command came to.
func (j *jobs) settled(id, jobID string) {
	if err := j.keep(record{ID: id, JobID: jobID, State: jobSettled}); err != nil {
		j.a.log.Warn("noting that the server knows of a command", "command", id, "error", err)
	}
}

// resume goes on after a restart: what had ended is reported, what ran has failed.
func (j *jobs) resume() {
	entries, err := os.ReadDir(j.dir())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			j.a.log.Warn("reading what commands left", "error", err)
		}
		return
	}
	for _, e := range entries {
		path := filepath.Join(j.dir(), e.Name())
		id, isRecord := strings.CutSuffix(e.Name(), ".json")
		if !isRecord || uuid.Validate(id) != nil || !j.resumeOne(path) {
			if err := os.RemoveAll(path); err != nil { // the scripts of a command, or a leftover
				j.a.log.Warn("removing what a command left", "error", err)
			}
		}
	}
}

// resumeOne reports whether a record is still needed. What the server does not know is,
// however old: without it the command would be taken for new.
func (j *jobs) resumeOne(path string) bool {
	r, at, ok := readRecord(path)
	now := j.a.cfg.now()
	if !ok || r.forgettable(at, now) {
		return false
	}
	if r.State != jobSettled {
		at = now
	}
	j.mu.Lock()
	j.seen[r.ID] = at
	j.mu.Unlock()
	switch {
	case r.State == jobDone && r.Reply != nil:
		j.report(*r.Reply, func() { j.settled(r.ID, r.JobID) })
	case r.State == jobRunning:
		out := failedOutcome(jobInterrupted)
		j.report(out.reply(r.JobID, now), func() { j.settled(r.ID, r.JobID) })
	}
	return true
}

// readRecord reads a record and when it was written.
func readRecord(path string) (r record, at time.Time, ok bool) {
	info, err := os.Stat(path)
	if err != nil {
		return r, at, false
	}
	b, err := os.ReadFile(path)
	ok = err == nil && json.Unmarshal(b, &r) == nil && r.ID+".json" == filepath.Base(path)
	return r, info.ModTime(), ok
}

// forgettable reports whether nobody needs a record that was written at a time.
func (r record) forgettable(at, now time.Time) bool {
	return r.State == jobSettled && now.Sub(at) > remembered
}

// tidy removes records that nobody needs any more.
func (j *jobs) tidy(now time.Time) {
	entries, _ := os.ReadDir(j.dir()) // without it there is nothing to tidy
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || e.IsDir() || now.Sub(info.ModTime()) <= remembered {
			continue
		}
		path := filepath.Join(j.dir(), e.Name())
		if r, at, ok := readRecord(path); !ok || r.forgettable(at, now) {
			os.Remove(path)
		}
	}
}
