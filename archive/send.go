package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"sync"
	"time"

	"gocloud.dev/blob"

	"sallyport.dev/recording"
)

const (
	// senders is how many recordings are sent at once.
	senders = 8
	// backOff is how long a recording waits after the first failure of the store; it
	// doubles up to maxBackOff.
	backOff, maxBackOff = 250 * time.Millisecond, 5 * time.Second
	// storeTimeout bounds one call of the store, and what is added for each 64 KiB.
	storeTimeout, storeTimePerBlock = 15 * time.Second, 250 * time.Millisecond
	rowsTimeout                     = 10 * time.Second
)

// parcel is what of a recording waits for the store.
type parcel struct {
	name  string
	row   Row
	put   bool      // the row is there
	todo  []waiting // in order
	end   *Manifest // of a recording that has ended: it goes last
	late  bool      // Finished is to be told
	whole bool      // the store has all of it, and the row says so
	busy  bool
	tries int
	due   time.Time
}

// waiting is an object that the store does not have.
type waiting struct {
	object string
	since  time.Time
}

// post has an object of a live recording sent.
func (a *Archive) post(l *live, object string) {
	a.mu.Lock()
	p := a.parcels[l.name]
	if p == nil {
		p = &parcel{name: l.name, row: rowOf(l.name, l.meta, l.key.KeyID, a.cfg.Member)}
		a.parcels[l.name] = p
	}
	p.todo = append(p.todo, waiting{object, a.now()})
	a.mu.Unlock()
	a.rouse()
}

// postEnd has the manifest sent, behind all the rest, and Finished told of a recording that
// ended later than its session.
func (a *Archive) postEnd(name string, m Manifest, late bool) {
	a.mu.Lock()
	p := a.parcels[name]
	p.end, p.late = &m, late
	a.mu.Unlock()
	a.rouse()
}

// rouse wakes the sender.
func (a *Archive) rouse() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func rowOf(name string, m recording.Metadata, key, member string) Row {
	return Row{
		Name: name, Session: m.Session, Node: m.Node, NodeName: m.NodeName, Principal: m.Principal,
		Document: m.Document, Member: member, Started: m.Started, State: Spooled, KeyID: key,
	}
}

// sender hands out what waits, a recording at a time to each of its helpers.
func (a *Archive) sender() {
	var helpers sync.WaitGroup
	defer helpers.Wait()
	places := make(chan struct{}, senders)
	t := time.NewTicker(backOff)
	defer t.Stop()
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-t.C:
		case <-a.wake:
		}
		for _, p := range a.due() {
			select {
			case <-a.ctx.Done():
				return
			case places <- struct{}{}:
			}
			helpers.Go(func() {
				a.send(p)
				<-places
			})
		}
	}
}

// due marks what may be sent now as busy, and returns it.
func (a *Archive) due() []*parcel {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	var all []*parcel
	for _, p := range a.parcels {
		if !p.busy && (len(p.todo) > 0 || p.end != nil) && !now.Before(p.due) {
			p.busy = true
			all = append(all, p)
		}
	}
	return all
}

// send sends all that waits of a recording, and tries again later what fails.
func (a *Archive) send(p *parcel) {
	err := a.sendParcel(p)
	a.mu.Lock()
	p.busy = false
	if err == nil {
		p.tries = 0
		a.mu.Unlock()
		return
	}
	wait := min(backOff<<min(p.tries, 10), maxBackOff)
	p.due = a.now().Add(wait/2 + rand.N(wait))
	p.tries++
	first := p.tries == 1
	a.mu.Unlock()
	if first && a.ctx.Err() == nil {
		a.log.Warn("sending recording to the store; it waits in the spool", "recording", p.name, "error", err)
	}
}

func (a *Archive) sendParcel(p *parcel) error {
	if !p.put {
		if err := a.putRow(p.row); err != nil {
			return err
		}
		p.put = true
	}
	for a.ctx.Err() == nil {
		object, end := a.next(p)
		switch {
		case object != "":
			if err := a.sendObject(p, object); err != nil {
				return err
			}
			p.tries = 0
		case end != nil:
			return a.sendEnd(p, *end)
		default:
			return nil
		}
	}
	return a.ctx.Err()
}

// next returns what is to be sent next, if anything.
func (a *Archive) next(p *parcel) (object string, end *Manifest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(p.todo) > 0 {
		return p.todo[0].object, nil
	}
	return "", p.end
}

// sendObject sends an object, and lets go of it here if it is a chunk: the key is needed to
// go on after a crash.
func (a *Archive) sendObject(p *parcel, object string) error {
	b, err := a.spool.read(p.name, object, 0, maxChunk)
	if errors.Is(err, fs.ErrNotExist) {
		return a.sent(p) // by an earlier run, which was killed before it could say so
	}
	if err == nil && object != keyObject {
		err = a.spool.sync(p.name, object, journalObject) // a power cut leaves the store no more than the spool
	}
	if err == nil {
		err = a.upload(p.name, object, b)
	}
	if err == nil && object != keyObject {
		err = a.spool.remove(p.name, object)
	}
	if err != nil {
		return err
	}
	return a.sent(p)
}

// sent strikes the first object off the list.
func (a *Archive) sent(p *parcel) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	p.todo = p.todo[1:]
	return nil
}

// sendEnd writes down the end of a recording in its row, has the store take its manifest,
// and leaves the spool. A repetition changes nothing.
func (a *Archive) sendEnd(p *parcel, m Manifest) error {
	if p.whole { // it may have been deleted since
		return a.letGo(p)
	}
	b, err := a.spool.read(p.name, manifestObject, 0, maxManifest)
	if err != nil {
		return fmt.Errorf("reading %s: %w", manifestObject, err)
	}
	err = a.changeRow(p.name, func(r *Row) error {
		r.Ended, r.EndReason, r.Size, r.SHA256, r.Manifest = m.End.Ended, m.End.Reason, m.Size, m.SHA256, m.Sum
		return nil
	})
	if err != nil {
		return err
	}
	if err := a.upload(p.name, manifestObject, b); err != nil {
		return err
	}
	if p.late && a.cfg.Finished != nil {
		ctx, cancel := context.WithTimeout(a.ctx, rowsTimeout)
		defer cancel()
		if err := a.cfg.Finished(ctx, m); err != nil {
			return fmt.Errorf("telling that a recording is finished: %w", err)
		}
		p.late = false // it has been told, also where what follows is tried again
	}
	return a.settle(p)
}

// settle notes that the store has a recording whole.
func (a *Archive) settle(p *parcel) error {
	err := a.changeRow(p.name, func(r *Row) error {
		if r.State == Spooled {
			r.State = Stored
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.whole = true
	return a.letGo(p)
}

// letGo leaves the spool with what the store has.
func (a *Archive) letGo(p *parcel) error {
	if err := a.spool.drop(p.name); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.parcels, p.name)
	return nil
}

func (a *Archive) putRow(r Row) error {
	ctx, cancel := context.WithTimeout(a.ctx, rowsTimeout)
	defer cancel()
	return a.cfg.Rows.PutRecording(ctx, r)
}

func (a *Archive) changeRow(name string, change func(*Row) error) error {
	ctx, cancel := context.WithTimeout(a.ctx, rowsTimeout)
	defer cancel()
	return a.cfg.Rows.UpdateRecording(ctx, name, change)
}

// upload writes an object to the store. The same bytes may have been written before.
func (a *Archive) upload(name, object string, b []byte) error {
	limit := storeTimeout + time.Duration(len(b)/frameSize)*storeTimePerBlock
	ctx, cancel := context.WithTimeout(a.ctx, limit)
	defer cancel()
	key := path.Join(name, object)
	err := a.put(ctx, key, b, &blob.WriterOptions{ContentType: contentType(object)})
	a.storeAnswered(err)
	if err != nil {
		return fmt.Errorf("writing %s to the store: %w", key, err)
	}
	a.stats.stored.Add(1)
	a.stats.storedBytes.Add(int64(len(b)))
	return nil
}

// put writes an object whole. WriteAll gives stores the MD5 of what they are to have, which a
// folder of this machine could compare with nothing but itself, and which takes longer than
// all else that is done to write there.
func (a *Archive) put(ctx context.Context, key string, b []byte, opts *blob.WriterOptions) error {
	var folder *os.Root
	if !a.cfg.Bucket.As(&folder) {
		return a.cfg.Bucket.WriteAll(ctx, key, b, opts)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := a.cfg.Bucket.NewWriter(ctx, key, opts)
	if err != nil {
		return err
	}
	if _, err = w.Write(b); err != nil {
		cancel() // so that closing leaves nothing
	}
	return errors.Join(err, w.Close())
}

func contentType(object string) string {
	if path.Ext(object) == ".json" {
		return "application/json"
	}
	return "application/octet-stream"
}

// hastenLocked shortens the waits of what failed while the store did: it works again.
func (a *Archive) hastenLocked() {
	soon := a.now().Add(backOff)
	for _, p := range a.parcels {
		if p.due.After(soon) {
			p.due = soon
		}
	}
}

// storeAnswered notes whether the store works.
func (a *Archive) storeAnswered(err error) {
	if err != nil {
		if a.ctx.Err() != nil {
			return
		}
		a.stats.storeErrors.Add(1)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err == nil && a.failing != "":
		a.failing = ""
		a.hastenLocked()
	case err == nil:
	case a.failing == "":
		a.failing, a.failingAt = err.Error(), a.now()
	default:
		a.failing = err.Error()
	}
}
