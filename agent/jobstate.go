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

// resumeOne reports whether a record is still needed.
func (j *jobs) resumeOne(path string) bool {
	info, err := os.Stat(path)
	if err != nil || j.a.cfg.now().Sub(info.ModTime()) > remembered {
		return false
	}
	b, err := os.ReadFile(path)
	var r record
	if err != nil || json.Unmarshal(b, &r) != nil || r.ID+".json" != filepath.Base(path) {
		return false
	}
	j.mu.Lock()
	j.seen[r.ID] = info.ModTime()
	j.mu.Unlock()
	switch {
	case r.State == jobDone && r.Reply != nil:
		j.report(*r.Reply, func() { j.settled(r.ID, r.JobID) })
	case r.State == jobRunning:
		out := failedOutcome(jobInterrupted)
		j.report(out.reply(r.JobID, j.a.cfg.now()), func() { j.settled(r.ID, r.JobID) })
	}
	return true
}

// tidy removes records that nobody needs any more.
func (j *jobs) tidy(now time.Time) {
	entries, _ := os.ReadDir(j.dir()) // without it there is nothing to tidy
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || e.IsDir() || now.Sub(info.ModTime()) <= remembered {
			continue
		}
		id := strings.TrimSuffix(e.Name(), ".json")
		j.mu.Lock()
		running := j.live[id] != nil
		j.mu.Unlock()
		if !running {
			os.Remove(filepath.Join(j.dir(), e.Name()))
		}
	}
}
