package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/transfer"
	"sallyport.dev/wire"
)

// Sessions with an Exec are those of the SSH front door and of commands with input
// (docs/protocol.md §28.10, §28.12). Their payloads are few and known; file transfers are
// followed as they pass.

const (
	// maxShownCommand bounds the command line in the audit log, in bytes; a longer one
	// is there as its beginning and its SHA-256.
	maxShownCommand = 4 << 10
	// auditsAtOnce bounds the records of transfers that wait to become durable. More
	// hold the transfer up.
	auditsAtOnce = 64
	// freeTransfers are the records of one session that are made as fast as they come, and
	// transferPause what each one after them costs: programs can make up transfers of
	// nothing, and a person could fill the audit log with them.
	freeTransfers = 10_000
	transferPause = 2 * time.Millisecond
)

// program is what a session has besides, where the task has an Exec.
type program struct {
	*wire.Exec
	follow follower // nil where no file transfer is followed
	limit  *limiter // nil where all of the output is recorded

	auditing  sync.WaitGroup
	places    chan struct{} // one per record that is being written
	transfers int           // told so far; guarded by the follower's lock
}

// follower follows a file transfer. An error of either method ends the session.
type follower interface {
	Client(p []byte) error
	Server(p []byte) error
	Close()
}

// onlyOnce reports whether the session's client cannot come back: an SSH client.
func (s *live) onlyOnce() bool { return s.exec != nil && !s.opts.ClientReturns }

// newProgram prepares what a session with an Exec needs; nil for others.
func (s *live) newProgram() *program {
	if s.task.Exec == nil {
		return nil
	}
	e := &program{Exec: s.task.Exec, places: make(chan struct{}, auditsAtOnce)}
	if e.Subsystem == sftpSubsystem {
		e.follow = sftpFollower{transfer.NewSFTP(s.tellTransfer)}
	} else if scp, fromClient, ok := transfer.NewSCP(e.Command, s.tellTransfer); ok && e.Terminal == nil {
		e.follow = scpFollower{scp, fromClient}
	}
	if e.Terminal == nil {
		e.limit = newLimiter(s.g.cfg.RecordLimit)
		if s.opts.ClientReturns { // no less than without input
			e.limit.output.left = math.MaxInt64
		}
	}
	return e
}

// sftpSubsystem is the one subsystem that agents serve.
const sftpSubsystem = "sftp"

// isSFTP reports whether the session speaks SFTP: there is nothing to look at in it,
// so that it is not recorded but told of, file by file.
func (e *program) isSFTP() bool { return e != nil && e.Subsystem == sftpSubsystem }

type sftpFollower struct{ *transfer.SFTP }

// scpFollower tells the ends of a transfer by scp apart. That a command is not what it
// looks like ends nothing: it is a command like any other.
type scpFollower struct {
	*transfer.SCP
	fromClient bool
}

func (f scpFollower) Client(p []byte) error {
	f.give(f.fromClient, p)
	return nil
}

func (f scpFollower) Server(p []byte) error {
	f.give(!f.fromClient, p)
	return nil
}

func (f scpFollower) give(source bool, p []byte) {
	if source {
		f.Source(p)
	} else {
		f.Sink(p)
	}
}

// speaks reports whether a payload has a place in the session.
func (e *program) speaks(fromAgent bool, h wire.Header) bool {
	switch h.PayloadType {
	case wire.PayloadOutput:
		return true
	case wire.PayloadStdErr:
		return fromAgent
	case wire.PayloadSize:
		return !fromAgent && e.Terminal != nil
	case wire.PayloadExecControl:
		return e.controls(fromAgent, h.Payload)
	case wire.PayloadExecStreams:
		return e.ForwardAgent
	}
	return false
}

// maxControlPayload bounds an ExecControl, in bytes.
const maxControlPayload = 1 << 10

func (e *program) controls(fromAgent bool, payload []byte) bool {
	var c wire.ExecControl
	if len(payload) > maxControlPayload || json.Unmarshal(payload, &c) != nil {
		return false
	}
	switch c.Op {
	case wire.ExecEOF, wire.ExecSignal, wire.ExecNoOutput:
		return !fromAgent
	case wire.ExecExit:
		return fromAgent
	}
	return false
}

// passes shows a payload to what follows the session's transfer.
func (e *program) passes(fromAgent bool, h wire.Header) error {
	if e.follow == nil || h.PayloadType != wire.PayloadOutput {
		return nil
	}
	if fromAgent {
		return e.follow.Server(h.Payload)
	}
	return e.follow.Client(h.Payload)
}

func unfollowable(err error) *Cause {
	return &Cause{
		Reason: ReasonTransferLost, Detail: clip(err.Error()), Failed: true,
		Terminal: "The file transfer could not be followed, so the session has ended.",
	}
}

// tellTransfer writes an audit record of something done to a file, in the background.
// It waits while too many records do, which holds up the transfer.
func (s *live) tellTransfer(t transfer.Event) {
	e := s.exec
	e.transfers++
	details := transferDetails(t, e.transfers)
	if s.cause.Load() == nil {
		time.Sleep(pauseOf(e.transfers))
	}
	e.places <- struct{}{}
	e.auditing.Go(func() {
		defer func() { <-e.places }()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.g.ctx), storeTimeout)
		defer cancel()
		_, err := s.g.cfg.Audit.Append(ctx, audit.Record{
			Time: s.g.now(), Event: audit.EventTransfer, Action: string(t.Operation),
			Principal: s.row.Owner, Session: s.row.ID, Node: s.row.NodeID, Document: s.row.Document,
			SourceIP: s.row.SourceIP, Details: details,
		})
		if err != nil {
			s.log.Error("recording a file transfer", "error", err)
			s.end(&Cause{
				Reason: ReasonAuditLost, Detail: clip(err.Error()), Failed: true,
				Terminal: "The file transfer cannot be recorded any more, so the session has ended.",
			})
		}
	})
}

// pauseOf is how long the record of a session's transfer with a number is put off.
func pauseOf(number int) time.Duration {
	if number <= freeTransfers {
		return 0
	}
	return transferPause
}

func transferDetails(t transfer.Event, number int) map[string]string {
	d := map[string]string{"number": strconv.Itoa(number)}
	for name, value := range map[string]string{
		"path": t.Path, "target": t.Target, "sha256": t.SHA256, "note": t.Note, "error": t.Error,
	} {
		if value != "" {
			d[name] = value
		}
	}
	if t.Operation == transfer.Upload || t.Operation == transfer.Download || t.Bytes > 0 {
		d["bytes"] = strconv.FormatInt(t.Bytes, 10)
	}
	if t.Offset > 0 {
		d["offset"] = strconv.FormatInt(t.Offset, 10)
	}
	return d
}

// finishTransfers tells of what was left open, and waits for the records. Nothing may
// enter any more.
func (s *live) finishTransfers() {
	e := s.exec
	if e == nil || e.follow == nil {
		return
	}
	s.enterIn.Lock()
	s.enterOut.Lock()
	e.follow.Close()
	s.enterOut.Unlock()
	s.enterIn.Unlock()
	e.auditing.Wait()
}

// details are what the audit log says of the session's start.
func (s *live) details() map[string]string {
	d := map[string]string{}
	if s.opts.Command != "" {
		d["command"] = s.opts.Command
	}
	if len(s.opts.Command) > maxShownCommand {
		digest := sha256.Sum256([]byte(s.opts.Command))
		d["command"] = strings.ToValidUTF8(s.opts.Command[:maxShownCommand], "") + "…"
		d["command_sha256"] = hex.EncodeToString(digest[:])
	}
	if s.exec != nil && s.exec.Subsystem != "" {
		d["subsystem"] = s.exec.Subsystem
	}
	if s.row.Encryption != EncryptionNone {
		d["encryption"], d["kms_key"] = string(s.row.Encryption), s.row.KMSKey
	}
	if len(s.opts.Grants) > 0 {
		d["grants"] = strings.Join(s.opts.Grants, " ")
	}
	if s.opts.ClientReturns {
		d["input"] = "true"
	}
	if s.exec != nil && s.exec.ForwardAgent {
		d["forward_agent"] = "true"
	}
	return d
}

// limiter bounds how much of each direction of a program without a terminal is
// recorded. What comes after that is summed up.
type limiter struct {
	output, input bounded
}

func newLimiter(limit int64) *limiter {
	return &limiter{output: bounded{left: limit}, input: bounded{left: limit}}
}

// bounded is one direction. Its session's entering guards it.
type bounded struct {
	left   int64
	bytes  int64 // beyond
	digest hash.Hash
}

// take returns what of p is to be recorded.
func (b *bounded) take(p []byte) []byte {
	n := min(b.left, int64(len(p)))
	b.left -= n
	if rest := p[n:]; len(rest) > 0 {
		if b.digest == nil {
			b.digest = sha256.New()
		}
		b.digest.Write(rest)
		b.bytes += int64(len(rest))
	}
	return p[:n]
}

// summary tells of what was not recorded; empty for nothing.
func (b *bounded) summary(what string) string {
	if b.bytes == 0 {
		return ""
	}
	return fmt.Sprintf("\r\n[sallyport] %d more bytes of %s were not recorded; SHA-256 of them: %x\r\n", b.bytes, what, b.digest.Sum(nil))
}

// recordSummary ends the recording of a program that wrote or read more than is kept.
func (s *live) recordSummary(now time.Time) {
	if s.exec == nil || s.exec.limit == nil {
		return
	}
	for _, text := range []string{s.exec.limit.output.summary("output"), s.exec.limit.input.summary("input")} {
		if text != "" {
			s.rec.Output(now, []byte(text)) // its error is that of closing
		}
	}
}
