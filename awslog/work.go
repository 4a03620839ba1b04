package awslog

import (
	"errors"
	"math/rand/v2"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/recording"
)

const (
	// saveEvery is how often the position of a stream is saved while events are put: what a
	// crash has come twice at most.
	saveEvery = 5 * time.Second
	// endWait is how long the recording of a session that has ended may lack its end, which
	// the member that wrote it adds when it comes back.
	endWait = time.Hour
	// firstRetry doubles up to lastRetry; giveUp is when it is over.
	firstRetry = 2 * time.Second
	lastRetry  = 10 * time.Minute
	giveUp     = 14 * 24 * time.Hour
	maxError   = 500 // bytes kept of an error's text
)

// errUnfinished means that the recording has no end yet.
var errUnfinished = errors.New("the recording is not finished yet")

// runStream streams the log of a live session until it ends.
func (k *Keeper) runStream(j Job) {
	k.finish(&j, k.stream(&j))
}

// runEnded writes an output of a session that has ended.
func (k *Keeper) runEnded(j Job) {
	if j.Kind == S3 {
		k.finish(&j, k.object(&j))
		return
	}
	k.finish(&j, k.whole(&j))
}

// newStream makes what sends the text of j, and saves how far it has come.
func (k *Keeper) newStream(j *Job) *stream {
	s := &stream{ctx: k.ctx, client: k.cfg.Logs, job: *j, region: k.cfg.Region, now: k.now, skip: j.Position}
	s.sent = func(position int64, events, bytes int) {
		j.Position = position
		if j.Tries > 0 {
			k.tell(j, "resumed")
			j.Tries, j.Error = 0, ""
		}
		k.stats.events.Add(int64(events))
		k.stats.eventBytes.Add(int64(bytes))
	}
	return s
}

func (k *Keeper) newTail(j *Job, to lines) *tail {
	return &tail{open: k.cfg.Open, name: j.Recording, to: to}
}

// stream puts what a session shows every second, as long as it may be put there.
func (k *Keeper) stream(j *Job) error {
	to := k.newStream(j)
	from := k.newTail(j, to)
	t := time.NewTicker(k.cfg.Interval)
	defer t.Stop()
	saved, position := k.now(), j.Position
	for {
		last := k.isClosing()
		if err := k.mayWrite(j); err != nil {
			return err
		}
		if err := k.step(j, from, to); err != nil || from.ended {
			return err
		}
		if last {
			return errClosed
		}
		if now := k.now(); j.Position != position && now.Sub(saved) >= saveEvery {
			if err := k.save(*j); err != nil {
				return err
			}
			saved, position = now, j.Position
		}
		select {
		case <-k.closing:
		case <-t.C:
		}
	}
}

// step puts what has come. A recording that lacks its end for too long ends here.
func (k *Keeper) step(j *Job, from *tail, to *stream) error {
	more, err := from.read(k.ctx)
	if err != nil {
		return err
	}
	if ended := k.endedAt(j.ID); !more && !from.ended && !ended.IsZero() && k.now().Sub(ended) >= endWait {
		from.ended = true
		if err := from.cutOff(); err != nil {
			return err
		}
	}
	return to.flush()
}

// whole puts the log of a session that has ended, from where it was left.
func (k *Keeper) whole(j *Job) error {
	if err := k.mayWrite(j); err != nil {
		return err
	}
	to := k.newStream(j)
	from := k.newTail(j, to)
	err := k.readAll(j, from)
	if err == nil {
		err = to.flush()
	}
	return err
}

// readAll reads a recording to its end. One that has none is errUnfinished for a while, and
// so is one that is not there: all of it may be in the spool of a member that is away.
func (k *Keeper) readAll(j *Job, from *tail) error {
	_, err := from.read(k.ctx)
	if from.ended || err != nil && !errors.Is(err, recording.ErrNotFound) {
		return err
	}
	if k.now().Sub(j.Ended) < endWait {
		return errUnfinished
	}
	if err != nil {
		return err
	}
	return from.cutOff()
}

// object writes a session's object. Until that is known to be there, what a run before has
// written is written again, over it.
func (k *Keeper) object(j *Job) (err error) {
	if err := k.mayWrite(j); err != nil {
		return err
	}
	to := &object{ctx: k.ctx, client: k.cfg.S3, bucket: j.Place, key: j.Name, acl: true, size: k.cfg.PartSize}
	if to.enc, err = k.sse(*j); err != nil {
		return err
	}
	defer func() {
		if dropped := to.drop(); dropped != nil {
			k.log.Warn("leaving parts of an object behind", "bucket", j.Place, "key", j.Name, "error", dropped)
		}
	}()
	if err := k.readAll(j, k.newTail(j, to)); err != nil {
		return err
	}
	if j.Void && to.isEmpty() {
		return errNothing
	}
	if err := to.commit(); err != nil {
		return err
	}
	k.stats.objects.Add(1)
	k.stats.objectBytes.Add(to.sent)
	return nil
}

// errNothing means that a session failed before it showed anything: there is no log of it.
var errNothing = errors.New("the session showed nothing")

func (o *object) isEmpty() bool { return o.upload == nil && o.buf.Len() == 0 }

// mayWrite asks again what Check was asked when the session began: the configuration may be
// another one, and the place.
func (k *Keeper) mayWrite(j *Job) error {
	if err := k.allowed(*j); err != nil {
		return err
	}
	if !j.Encrypted {
		return nil
	}
	_, err := k.checks.get(k.ctx, k.now, *j, k.encryption)
	return err
}

// sse is how the object is to be encrypted: as its bucket says, where that can be found out.
func (k *Keeper) sse(j Job) (encryption, error) {
	e, err := k.checks.get(k.ctx, k.now, j, k.encryption)
	if err != nil && !j.Encrypted {
		return encryption{}, nil
	}
	return e, err
}

// finish takes down how a job went.
func (k *Keeper) finish(j *Job, err error) {
	switch {
	case errors.Is(err, ErrLost):
		return
	case errors.Is(err, errClosed) || k.ctx.Err() != nil && err != nil:
		j.Lease = time.Time{}
	case err == nil, errors.Is(err, errNothing):
		k.done(j, err == nil)
	case errors.Is(err, errUnfinished):
		j.Lease, j.Due = time.Time{}, lookAgain(j.Ended, k.now())
	default:
		k.failed(j, err)
	}
	if err := k.save(*j); err != nil && !errors.Is(err, ErrLost) {
		k.log.Warn("saving how a session's log was written", "session", j.ID, "kind", string(j.Kind), "error", err)
	}
}

func (k *Keeper) done(j *Job, written bool) {
	late := j.Tries > 0
	j.State, j.Lease, j.Error = Done, time.Time{}, ""
	if written {
		j.Written = k.now()
	}
	if late && written {
		k.tell(j, "written late")
	}
}

// failed has a job tried again, or gives it up. The first failure is audited, and the last.
func (k *Keeper) failed(j *Job, err error) {
	k.stats.failures.Add(1)
	now := k.now()
	j.Tries++
	j.Lease, j.Error = time.Time{}, shorten(err.Error())
	if r := (*Refusal)(nil); errors.As(err, &r) && r.Cause != nil {
		j.Error = shorten(r.Text + ": " + r.Cause.Error())
	}
	j.Due = now.Add(retryAfter(j.Tries))
	k.log.Warn("a session's log cannot be written", "session", j.ID, "kind", string(j.Kind), "place", j.Place, "name", j.Name,
		"tries", j.Tries, "error", j.Error)
	gone := errors.Is(err, recording.ErrNotFound) && !j.Ended.IsZero()
	old := !j.Ended.IsZero() && now.Sub(j.Ended) >= giveUp
	switch {
	case gone || old:
		k.stats.givenUp.Add(1)
		j.State = Failed
		k.tell(j, "given up")
	case j.Tries == 1:
		k.tell(j, "failed")
	}
}

// tell writes into the audit log what became of an output.
func (k *Keeper) tell(j *Job, action string) {
	ctx, cancel := k.storing()
	defer cancel()
	_, err := k.cfg.Audit.Append(ctx, audit.Record{
		Event: audit.EventRecording, Action: "log " + action, Principal: j.Owner, Session: j.ID, Node: j.Node,
		Reason: j.Error,
		Details: map[string]string{
			"output": string(j.Kind), "place": j.Place, "name": j.Name, "recording": j.Recording,
		},
	})
	if err != nil {
		k.log.Error("auditing a session's log", "session", j.ID, "error", err)
	}
}

// retryAfter is how long to wait after so many tries, give or take an eighth, so that all
// that an outage has held up does not come at once.
func retryAfter(tries int) time.Duration {
	d := lastRetry
	if tries < 10 {
		d = min(lastRetry, firstRetry<<max(0, tries-1))
	}
	return d - d/8 + rand.N(d/4)
}

// lookAgain is when to look for the end of a recording again, whose session has ended: each
// look reads all that there is, and sends what is large.
func lookAgain(ended, now time.Time) time.Time {
	return now.Add(max(retryAfter(3), min(now.Sub(ended)/4, lastRetry)))
}

func shorten(s string) string {
	if len(s) > maxError {
		s = s[:maxError] + "…"
	}
	b := []rune(s)
	for i, r := range b {
		if r < ' ' {
			b[i] = ' '
		}
	}
	return string(b)
}
