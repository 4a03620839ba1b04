package transfer

import (
	"bytes"
	"fmt"
	"path"
	"strconv"
	"strings"
	"sync"
)

// Bounds of what is remembered of a transfer by scp.
const (
	maxLine    = 8 << 10 // bytes of one line of the protocol
	maxFolders = 256     // folders within each other
)

// SCP follows the protocol of scp, in which one end is the source of files and the
// other the sink: the source says what comes, the sink answers, in turn. Its methods
// may be called by several goroutines; what an end sends must be given to it before
// it goes to the other end. Where the ends do not keep to the protocol, one event says
// so, and nothing more is told.
type SCP struct {
	op      Operation
	operand string // what the program on the node was told
	emit    func(Event)

	mu       sync.Mutex
	lost     bool
	awaiting bool   // the sink's answer is due
	answer   []byte // a refusal of the sink, in part
	line     []byte // of the source, in part
	folders  []string
	record   byte // which record awaits its answer, 0 for the beginning
	name     string
	left     int64 // of the file's bytes
	body     bool  // the file's bytes and the source's word on them are due
	content  *content
	early    budget
}

// NewSCP follows a transfer by the program that a command line starts on the node, and
// reports false for one that is none of scp's.
func NewSCP(command string, emit func(Event)) (s *SCP, fromClient, ok bool) {
	words := strings.Fields(command)
	if len(words) < 2 || path.Base(words[0]) != "scp" {
		return nil, false, false
	}
	s = &SCP{emit: emit, awaiting: true}
	for words = words[1:]; len(words) > 0 && len(words[0]) > 1 && words[0][0] == '-'; words = words[1:] {
		if words[0] == "--" {
			words = words[1:]
			break
		}
		switch {
		case s.op != "":
		case strings.ContainsRune(words[0], 't'):
			s.op = Upload
		case strings.ContainsRune(words[0], 'f'):
			s.op = Download
		}
	}
	s.operand = clip(strings.Join(words, " "), maxPath)
	return s, s.op == Upload, s.op != ""
}

// event begins the event of a file. Its name is the source's to choose: a sink that was
// told of a file gives the content that name.
func (s *SCP) event() Event { return Event{Operation: s.op, Path: s.path(), Target: s.operand} }

// Source takes bytes that the source sent.
func (s *SCP) Source(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 && !s.lost {
		if s.awaiting {
			s.lose("the source did not wait for an answer")
			return
		}
		switch {
		case s.body && s.left > 0:
			n := min(s.left, int64(len(p)))
			s.content.add(s.content.next, p[:n])
			s.left -= n
			p = p[n:]
		case s.body:
			p = s.takeLine(p, s.bodyEnded)
		default:
			p = s.takeLine(p, s.takeRecord)
		}
	}
}

// takeLine gathers a line and hands it over without its end; a zero byte is a line of
// its own. It returns the bytes behind it.
func (s *SCP) takeLine(p []byte, take func(line []byte)) (rest []byte) {
	if len(s.line) == 0 && p[0] == 0 {
		take(p[:1])
		return p[1:]
	}
	i := bytes.IndexByte(p, '\n')
	if i < 0 {
		i = len(p) - 1
		s.line = append(s.line, p...)
	} else {
		s.line = append(s.line, p[:i]...)
		line := s.line
		s.line = nil
		take(line)
	}
	if len(s.line) > maxLine {
		s.lose("a line is too long")
	}
	return p[i+1:]
}

// takeRecord acts on what the source announces.
func (s *SCP) takeRecord(line []byte) {
	kind := byte(0)
	if len(line) > 0 {
		kind = line[0]
	}
	switch kind {
	case 'C', 'D':
		s.takeEntry(kind, string(line[1:]))
	case 'E', 'T':
		s.record, s.awaiting = kind, true
	case 1, 2: // the source's trouble; it needs no answer
		s.emit(Event{Operation: s.op, Error: clip(string(line[1:]), maxPath)})
	default:
		s.lose("an unknown record")
	}
	if kind == 'E' && len(s.folders) > 0 {
		s.folders = s.folders[:len(s.folders)-1]
	}
}

// takeEntry reads "MODE SIZE NAME" of a file or a folder.
func (s *SCP) takeEntry(kind byte, text string) {
	parts := strings.SplitN(text, " ", 3)
	if len(parts) < 3 {
		s.lose("an unreadable record")
		return
	}
	size, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil || size < 0 {
		s.lose("a record without a size")
		return
	}
	s.record, s.awaiting = kind, true
	s.name, s.left = clip(parts[2], maxPath), size
}

// Sink takes bytes that the sink sent.
func (s *SCP) Sink(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 && !s.lost {
		if len(s.answer) == 0 && p[0] == 0 {
			p = p[1:]
			s.answered("")
			continue
		}
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			s.answer = append(s.answer, p...)
			if len(s.answer) > maxLine {
				s.lose("an answer is too long")
			}
			return
		}
		s.answer = append(s.answer, p[:i]...)
		refusal := strings.TrimSpace(strings.TrimLeft(string(s.answer), "\x01\x02"))
		s.answer = nil
		p = p[i+1:]
		s.answered(clip(refusal, maxPath))
	}
}

// answered acts on the sink's answer; refusal is empty for a good one.
func (s *SCP) answered(refusal string) {
	if !s.awaiting {
		if refusal == "" {
			s.lose("the sink answered out of turn")
			return
		}
		if s.body { // it tells of trouble while it takes the bytes
			s.content.spoil("the sink reported: " + refusal)
		}
		return
	}
	s.awaiting = false
	record := s.record
	s.record = 0
	switch {
	case record == 'C' && refusal != "":
		e := s.event()
		e.Error = refusal
		s.emit(e)
	case record == 'C':
		s.body, s.content = true, s.newContent()
	case record == 'D' && refusal == "":
		s.enterFolder()
	case record == 'B':
		s.told(refusal)
	}
}

func (s *SCP) newContent() *content {
	s.early = budget{}
	return newContent(&s.early)
}

func (s *SCP) enterFolder() {
	if len(s.folders) >= maxFolders {
		s.lose("too many folders within each other")
		return
	}
	s.folders = append(s.folders, s.name)
}

// bodyEnded takes the source's word on the file whose bytes it has sent.
func (s *SCP) bodyEnded(line []byte) {
	if len(line) != 1 || line[0] != 0 {
		s.content.spoil("the source reported: " + clip(strings.TrimLeft(string(line), "\x01\x02"), maxPath))
	}
	s.body, s.awaiting, s.record = false, true, 'B'
}

// told makes the event of a file that the sink has taken or refused in the end.
func (s *SCP) told(refusal string) {
	e := s.event()
	e.Error = refusal
	s.content.finish(&e)
	s.content = nil
	s.emit(e)
}

func (s *SCP) path() string {
	return clip(strings.Join(append(s.folders[:len(s.folders):len(s.folders)], s.name), "/"), maxPath)
}

// lose gives up following.
func (s *SCP) lose(why string) {
	s.lost = true
	s.line, s.answer = nil, nil
	e := Event{Operation: Unfollowed, Path: s.name, Note: fmt.Sprintf("not the protocol of scp: %s", why)}
	if s.content != nil {
		e.Bytes = s.content.bytes
	}
	s.emit(e)
}

// Close tells of a file that was not finished.
func (s *SCP) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost || s.content == nil {
		return
	}
	s.content.spoil("the transfer broke off")
	s.told("broken off")
}
