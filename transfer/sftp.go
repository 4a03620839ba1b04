package transfer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// Bounds of what is remembered of one SFTP session.
const (
	maxPacket   = 256<<10 + 4 // bytes; what servers and clients take as well
	maxRequests = 16384       // unanswered ones
	maxHandles  = 1024        // open files
	maxHandle   = 256         // bytes of one handle, as the protocol has it
	maxNames    = 2 << 20     // bytes of the paths in unanswered requests
)

// ErrSFTP is what makes a session impossible to follow: it must not go on.
var ErrSFTP = errors.New("not SFTP version 3 as it is spoken")

// Types of SFTP packets (draft-ietf-secsh-filexfer-02 §3).
const (
	fxpInit     = 1
	fxpVersion  = 2
	fxpOpen     = 3
	fxpClose    = 4
	fxpRead     = 5
	fxpWrite    = 6
	fxpSetstat  = 9
	fxpFsetstat = 10
	fxpOpendir  = 11
	fxpRemove   = 13
	fxpMkdir    = 14
	fxpRmdir    = 15
	fxpRename   = 18
	fxpSymlink  = 20
	fxpExtended = 200

	fxpStatus = 101
	fxpHandle = 102
	fxpData   = 103
)

// SFTP follows one SFTP session. Its methods may be called by several goroutines, those
// for one direction by one at a time. An answer must be given to Server before it goes
// to the client.
type SFTP struct {
	emit func(Event)

	mu       sync.Mutex
	up, down packets
	spoken   bool // the client has said hello
	requests map[uint32]request
	files    map[string]*file // by handle
	names    int              // bytes
	early    budget
}

// request is one that the server has not answered.
type request struct {
	kind   byte
	event  Event // for those whose answer makes one; else without an operation
	file   *file
	offset int64
	length int
}

// told reports whether something is told of the request, now or with its file.
func (r request) told() bool { return r.file != nil || r.event.Operation != "" }

func (r request) names() int { return len(r.event.Path) + len(r.event.Target) }

// file is an open file.
type file struct {
	path          string
	reads         bool // something was read or tried to be
	writable      bool
	folder        bool // what is read of it is not told
	read, written *content
	refused       string // the first refusal of a write
	told          bool   // its events have been made
}

// NewSFTP follows a session and calls emit with what is done in it. emit is called
// with a lock held, in order; it may block and so hold up the transfer.
func NewSFTP(emit func(Event)) *SFTP {
	return &SFTP{emit: emit, requests: map[uint32]request{}, files: map[string]*file{}, early: budget{maxEarly}}
}

// Client takes bytes that the client sent. Errors wrap ErrSFTP.
func (s *SFTP) Client(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.up.feed(p, s.request)
}

// Server takes bytes that the server sent. Errors wrap ErrSFTP.
func (s *SFTP) Server(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down.feed(p, s.answer)
}

// Close tells of the files that were not closed.
func (s *SFTP) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if r.kind == fxpClose && r.file != nil {
			s.tell(r.file, "not known to be closed")
		}
	}
	for _, f := range s.files {
		s.tell(f, "not closed")
	}
	clear(s.requests)
	clear(s.files)
}

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSFTP, fmt.Sprintf(format, args...))
}

// request takes note of one request.
func (s *SFTP) request(kind byte, b *fields) error {
	id := b.uint32()
	if kind == fxpInit {
		if s.spoken || b.short {
			return broken("a second or cut hello")
		}
		s.spoken = true
		return nil
	}
	r := s.read(kind, b)
	if b.short {
		return broken("request of type %d is cut", kind)
	}
	if !s.spoken {
		return broken("request before the hello")
	}
	if b.strange {
		// Handles can be guessed, and what goes to one before it is given out would be
		// told of no file.
		return broken("request of type %d for a handle that was not given out", kind)
	}
	return s.note(id, r)
}

// note remembers a request until its answer, also where nothing is to be told of it: with
// the number of another it could take that one's answer.
func (s *SFTP) note(id uint32, r request) error {
	if _, twice := s.requests[id]; twice {
		return broken("request number %d is used twice", id)
	}
	s.names += r.names()
	if len(s.requests) >= maxRequests || s.names > maxNames {
		return broken("too many unanswered requests")
	}
	s.requests[id] = r
	return nil
}

// read decodes a request.
func (s *SFTP) read(kind byte, b *fields) request {
	r := request{kind: kind}
	switch kind {
	case fxpOpen:
		return s.readOpen(b)
	case fxpClose:
		return s.readClose(b)
	case fxpRead:
		r.file, r.offset, r.length = s.files[string(b.bytes())], int64(b.uint64()), int(b.uint32())
		if r.file != nil {
			r.file.reads = true
		}
	case fxpWrite:
		return s.readWrite(b)
	case fxpSetstat:
		r.event = Event{Operation: Setattr, Path: b.path(), Note: attributes(b.uint32())}
	case fxpFsetstat:
		r.event = s.readFsetstat(b)
	case fxpOpendir:
		return request{kind: fxpOpen, file: &file{path: b.path(), folder: true}}
	case fxpRemove:
		r.event = Event{Operation: Remove, Path: b.path()}
	case fxpMkdir:
		r.event = Event{Operation: Mkdir, Path: b.path()}
	case fxpRmdir:
		r.event = Event{Operation: Rmdir, Path: b.path()}
	case fxpRename:
		r.event = Event{Operation: Rename, Path: b.path(), Target: b.path()}
	case fxpSymlink:
		// OpenSSH's order, which all have taken over: what it points to, then the link.
		target := b.path()
		r.event = Event{Operation: Symlink, Path: b.path(), Target: target}
	case fxpExtended:
		r.event = s.readExtended(b)
	}
	return r
}

// Flags of opening.
const (
	fxfRead   = 1
	fxfWrite  = 2
	fxfAppend = 4
)

func (s *SFTP) readOpen(b *fields) request {
	path, flags := b.path(), b.uint32()
	f := &file{path: path, writable: flags&(fxfWrite|fxfAppend) != 0}
	e := Event{Operation: Download, Path: path}
	if f.writable {
		e.Operation = Upload
	}
	return request{kind: fxpOpen, file: f, event: e}
}

// readClose forgets a handle at once, because the server may give it out again.
func (s *SFTP) readClose(b *fields) request {
	handle := string(b.bytes())
	f := s.files[handle]
	delete(s.files, handle)
	return request{kind: fxpClose, file: f}
}

func (s *SFTP) readWrite(b *fields) request {
	f, offset, data := s.open(b), int64(b.uint64()), b.bytes()
	if f == nil || b.short {
		return request{kind: fxpWrite}
	}
	if f.written == nil {
		f.written = newContent(&s.early)
	}
	f.written.add(offset, data)
	return request{kind: fxpWrite, file: f}
}

// open reads the handle of an open file.
func (s *SFTP) open(b *fields) *file {
	f := s.files[string(b.bytes())]
	b.strange = b.strange || f == nil
	return f
}

// readFsetstat returns the event of attributes that are set by a handle, if any.
func (s *SFTP) readFsetstat(b *fields) (e Event) {
	f, flags := s.open(b), b.uint32()
	if f == nil {
		return e
	}
	if flags&attrSize != 0 && f.setSize(int64(b.uint64())) {
		flags &^= attrSize
	}
	if flags == 0 {
		return e
	}
	return Event{Operation: Setattr, Path: f.path, Note: attributes(flags)}
}

// setSize reports whether the upload's own event tells all of a size that is set:
// OpenSSH cuts every upload to what it wrote, in case the file was longer.
func (f *file) setSize(size int64) bool {
	switch {
	case f.written == nil:
		return f.writable && size == 0
	case size != f.written.next || len(f.written.held) > 0:
		f.written.spoil("the file's size was set")
	}
	return true
}

// readExtended returns the event of an extension's request, if any.
func (s *SFTP) readExtended(b *fields) (e Event) {
	switch string(b.bytes()) {
	case "posix-rename@openssh.com":
		e = Event{Operation: Rename, Path: b.path(), Target: b.path()}
	case "hardlink@openssh.com":
		target := b.path()
		e = Event{Operation: Link, Path: b.path(), Target: target}
	case "lsetstat@openssh.com":
		e = Event{Operation: Setattr, Path: b.path(), Note: attributes(b.uint32())}
	case "copy-data":
		from, _, _, to := s.open(b), b.uint64(), b.uint64(), s.open(b)
		if from == nil || to == nil {
			return e
		}
		if to.written == nil {
			to.written = newContent(&s.early)
		}
		to.written.spoil("the node copied into it")
		e = Event{Operation: Copy, Path: from.path, Target: to.path}
	}
	return e
}

const (
	attrSize        = 1
	attrOwner       = 2
	attrPermissions = 4
	attrTimes       = 8
)

// attributes names the attributes that are set.
func attributes(flags uint32) string {
	var text string
	for _, a := range []struct {
		flag uint32
		name string
	}{{attrSize, "size"}, {attrOwner, "owner"}, {attrPermissions, "permissions"}, {attrTimes, "times"}} {
		if flags&a.flag != 0 {
			if text != "" {
				text += ", "
			}
			text += a.name
		}
	}
	return text
}

// answer matches an answer with its request.
func (s *SFTP) answer(kind byte, b *fields) error {
	id := b.uint32()
	if b.short {
		return broken("answer of type %d is cut", kind)
	}
	if kind == fxpVersion {
		if id != 3 {
			return broken("the server speaks version %d", id)
		}
		return nil
	}
	r, found := s.requests[id]
	if !found {
		return broken("an answer to a request that there is not")
	}
	delete(s.requests, id)
	s.names -= r.names()
	return s.settle(r, kind, b)
}

// settle acts on the answer to a request.
func (s *SFTP) settle(r request, kind byte, b *fields) error {
	failure := ""
	if kind == fxpStatus {
		failure = status(b)
	}
	if b.short {
		return broken("answer of type %d is cut", kind)
	}
	switch {
	case r.kind == fxpOpen && (kind == fxpHandle || kind == fxpStatus):
		return s.opened(r, kind, b, failure)
	case r.kind == fxpRead && kind == fxpData:
		return s.received(r, b)
	case kind == fxpHandle, kind == fxpData, kind != fxpStatus && r.told():
		return broken("answer of type %d to a request of type %d", kind, r.kind)
	}
	switch {
	case r.kind == fxpClose && r.file != nil:
		s.tell(r.file, failure)
	case r.kind == fxpWrite && r.file.refused == "":
		r.file.refused = failure
	case r.event.Operation != "":
		r.event.Error = failure
		s.emit(r.event)
	}
	return nil
}

func (s *SFTP) opened(r request, kind byte, b *fields, failure string) error {
	if kind != fxpHandle && r.file.folder {
		return nil
	}
	if kind != fxpHandle {
		r.event.Error = failure
		if failure == "" {
			r.event.Error = "not opened"
		}
		s.emit(r.event)
		return nil
	}
	handle := string(b.bytes())
	if b.short || len(handle) > maxHandle {
		return broken("a handle of %d bytes", len(handle))
	}
	if _, twice := s.files[handle]; twice || len(s.files) >= maxHandles {
		return broken("a handle is given out twice, or too many are")
	}
	s.files[handle] = r.file
	return nil
}

func (s *SFTP) received(r request, b *fields) error {
	data := b.bytes()
	if b.short || len(data) > r.length || r.file == nil || r.file.told {
		return broken("more data than asked for, or after the file was closed")
	}
	if r.file.read == nil {
		r.file.read = newContent(&s.early)
	}
	r.file.read.add(r.offset, data)
	return nil
}

// tell makes the events of a file that is closed.
func (s *SFTP) tell(f *file, failure string) {
	f.told = true
	if f.writable {
		s.tellContent(Upload, f, f.written, firstOf(f.refused, failure))
	}
	if f.reads {
		s.tellContent(Download, f, f.read, failure)
	}
}

func (s *SFTP) tellContent(op Operation, f *file, c *content, failure string) {
	if c == nil {
		c = newContent(&s.early)
	}
	e := Event{Operation: op, Path: f.path, Error: failure}
	c.finish(&e)
	s.emit(e)
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// statusTexts are the status codes of version 3 but for success.
var statusTexts = [...]string{1: "end of file", 2: "no such file", 3: "permission denied", 4: "failure", 5: "bad message", 6: "no connection", 7: "connection lost", 8: "operation not supported"}

// status reads a STATUS answer: empty for success.
func status(b *fields) string {
	code := b.uint32()
	switch {
	case code == 0:
		return ""
	case code < uint32(len(statusTexts)):
		return statusTexts[code]
	}
	return fmt.Sprintf("status %d", code)
}

// packets cuts a stream into SFTP packets.
type packets struct{ rest []byte }

// feed takes more of the stream and calls take with each whole packet.
func (p *packets) feed(data []byte, take func(kind byte, b *fields) error) error {
	for len(p.rest) > 0 && len(data) > 0 {
		n, err := p.wanted()
		if err != nil {
			return err
		}
		n = min(n-len(p.rest), len(data))
		p.rest = append(p.rest, data[:n]...)
		data = data[n:]
		if whole, err := p.takeRest(take); err != nil || !whole {
			return err
		}
	}
	for len(data) > 0 {
		n, whole, err := packetLength(data)
		if err != nil {
			return err
		}
		if !whole {
			p.rest = append(p.rest[:0], data...)
			return nil
		}
		if err := take(data[4], &fields{rest: data[5:n]}); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// wanted is how long the packet that rest begins is, or the part that tells.
func (p *packets) wanted() (int, error) {
	if len(p.rest) < 4 {
		return 4, nil
	}
	n, _, err := packetLength(p.rest)
	return n, err
}

// takeRest takes the packet in rest if it is whole.
func (p *packets) takeRest(take func(kind byte, b *fields) error) (whole bool, err error) {
	n, whole, err := packetLength(p.rest)
	if err != nil || !whole {
		return len(p.rest) == 4 && err == nil, err
	}
	err = take(p.rest[4], &fields{rest: p.rest[5:n]})
	p.rest = p.rest[:0]
	if cap(p.rest) > maxKept {
		p.rest = nil
	}
	return true, err
}

// maxKept is how large a buffer is kept between packets: what WRITE and DATA need.
const maxKept = 64 << 10

// packetLength returns the length of the packet that b begins, its own length included,
// and whether b holds all of it.
func packetLength(b []byte) (n int, whole bool, err error) {
	if len(b) < 4 {
		return 0, false, nil
	}
	length := binary.BigEndian.Uint32(b)
	if length < 5 || length > maxPacket {
		return 0, false, broken("a packet of %d bytes", length)
	}
	n = int(length) + 4
	return n, len(b) >= n, nil
}

// fields reads the fields of a packet. short is set when they are cut; then zero values
// are read. strange is set by a handle that is no open file's.
type fields struct {
	rest           []byte
	short, strange bool
}

func (f *fields) take(n int) []byte {
	if n > len(f.rest) {
		f.short, f.rest = true, nil
		return nil
	}
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) uint32() uint32 {
	b := f.take(4)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func (f *fields) uint64() uint64 {
	b := f.take(8)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// bytes reads a string, valid as long as the packet.
func (f *fields) bytes() []byte {
	n := f.uint32()
	if f.short || n > maxPacket {
		f.short = true
		return nil
	}
	return f.take(int(n))
}

func (f *fields) path() string { return clip(string(f.bytes()), maxPath) }
