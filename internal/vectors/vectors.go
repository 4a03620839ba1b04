// Package vectors reads the recorded transcripts of the official programs
// (wire/testdata/vectors, described there) for the tests that replay them.
package vectors

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

// Line is one line of a transcript. Which fields are set depends on Event.
type Line struct {
	N          int     `json:"n"`
	Millis     float64 `json:"t"` // since the start of the file
	From       string  `json:"from"`
	To         string  `json:"to"`
	Event      string  `json:"ev"`
	Conn       int     `json:"conn"`
	Chan       string  `json:"chan"` // api, control or data
	Session    string  `json:"session"`
	Background bool    `json:"background"`

	// http-request
	RequestLine string      `json:"request_line"`
	Path        string      `json:"path"`
	Query       string      `json:"query"`
	Headers     [][2]string `json:"headers"` // in wire order and case; also of responses
	Framing     string      `json:"framing"` // content-length, chunked or none
	Body        string      `json:"body"`
	TLS         bool        `json:"tls"`
	Sig         *Sig        `json:"sig"`

	// http-response
	Request int `json:"request"` // the line answered
	Status  int `json:"status"`  // also the status of exit

	// ws-*
	Text    string      `json:"text"` // also of stdin, stdout, stderr, terminal-*
	Data    string      `json:"data"` // of ping and pong
	Hex     string      `json:"hex"`
	RelayOf int         `json:"relay_of"`
	Frame   *Frame      `json:"frame"`
	Smux    []SmuxFrame `json:"smux"`

	// the person's side
	Argv   []string          `json:"argv"`
	Env    map[string]string `json:"env"`
	Cols   int               `json:"cols"`
	Rows   int               `json:"rows"`
	Signal string            `json:"signal"`
}

// Frame is the decoded view of a framed message. Lines with RelayOf have only the
// fields up to PayloadLength.
type Frame struct {
	Type           string `json:"type"`
	Sequence       int64  `json:"seq"`
	Flags          uint64 `json:"flags"`
	ID             string `json:"id"`
	PayloadType    uint32 `json:"payloadType"`
	PayloadLength  int    `json:"payloadLength"`
	HeaderLength   uint32 `json:"headerLength"`
	SchemaVersion  uint32 `json:"schemaVersion"`
	CreatedDate    uint64 `json:"createdDate"`
	Digest         string `json:"digest"` // hexadecimal
	PayloadText    string `json:"payload"`
	PayloadHex     string `json:"payloadHex"`
	FlagValue      uint32 `json:"flagValue"`
	payloadDecoded []byte
}

// Payload returns the payload's bytes.
func (f *Frame) Payload() []byte { return f.payloadDecoded }

// SmuxFrame is one multiplexer frame that ends in a stream message.
type SmuxFrame struct {
	Version int    `json:"version"`
	Command string `json:"cmd"` // SYN, FIN, PSH or NOP
	Stream  uint32 `json:"stream"`
	Length  int    `json:"length"`
	Data    string `json:"data"`
}

// Sig says how a request was signed and what to check it with.
type Sig struct {
	Algorithm        string `json:"algorithm"`
	Kind             string `json:"kind"` // hmac-sha256 or rsa-pss-sha256-salt32
	KeyID            string `json:"keyId"`
	Region           string `json:"region"`
	Service          string `json:"service"`
	Time             string `json:"time"` // X-Amz-Date
	SignedHeaders    string `json:"signedHeaders"`
	CanonicalRequest string `json:"canonicalRequest"`
	SecretAccessKey  string `json:"secretAccessKey"`
	PublicKey        string `json:"publicKey"` // base64 of PKIX DER
	Valid            bool   `json:"valid"`
}

// Info is line 0 of a transcript.
type Info struct {
	Scenario    string       `json:"scenario"`
	Title       string       `json:"title"`
	Region      string       `json:"region"`
	Node        Node         `json:"node"`
	Credentials []Credential `json:"credentials"`
	Sessions    []string     `json:"sessions"`
}

// Node is the node of a scenario.
type Node struct {
	InstanceID   string `json:"instanceId"`
	Fingerprint  string `json:"fingerprint"`
	PublicKey    string `json:"publicKey"`
	NewPublicKey string `json:"newPublicKey"`
}

// Credential is a key that a scenario uses.
type Credential struct {
	AccessKeyID     string `json:"accessKeyId"`
	SecretAccessKey string `json:"secretAccessKey"`
	SessionToken    string `json:"sessionToken"`
	Of              string `json:"of"` // operator, assumed-role or node
}

// Transcript is one file.
type Transcript struct {
	Name  string // of the file, without .jsonl
	Info  Info
	Lines []Line
}

// Line returns the line numbered n, or nil.
func (t *Transcript) Line(n int) *Line {
	i := sort.Search(len(t.Lines), func(i int) bool { return t.Lines[i].N >= n })
	if i < len(t.Lines) && t.Lines[i].N == n {
		return &t.Lines[i]
	}
	return nil
}

// Message returns the bytes of a ws-binary line, following RelayOf.
func (t *Transcript) Message(l *Line) []byte {
	if l.Hex == "" && l.RelayOf != 0 {
		l = t.Line(l.RelayOf)
	}
	b, err := hex.DecodeString(l.Hex)
	if err != nil {
		panic(fmt.Sprintf("vectors: %s line %d: %v", t.Name, l.N, err))
	}
	return b
}

// Between returns the lines of the given sender and receiver; an empty name
// matches any.
func (t *Transcript) Between(from, to string) []Line {
	var out []Line
	for _, l := range t.Lines {
		if (from == "" || l.From == from) && (to == "" || l.To == to) {
			out = append(out, l)
		}
	}
	return out
}

// Load reads one transcript; dir is the path of wire/testdata/vectors from the
// test's package, name is without .jsonl.
func Load(t testing.TB, dir, name string) *Transcript {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	tr, err := parse(name, b)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// LoadAll reads every transcript in dir, in name order.
func LoadAll(t testing.TB, dir string) []*Transcript {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts in %s (%v)", dir, err)
	}
	var out []*Transcript
	for _, f := range files {
		out = append(out, Load(t, dir, strings.TrimSuffix(filepath.Base(f), ".jsonl")))
	}
	return out
}

func parse(name string, b []byte) (*Transcript, error) {
	tr := &Transcript{Name: name}
	for i, raw := range bytes.Split(bytes.TrimSpace(b), []byte("\n")) {
		if i == 0 {
			if err := json.Unmarshal(raw, &tr.Info); err != nil {
				return nil, fmt.Errorf("%s line 0: %w", name, err)
			}
			continue
		}
		var l Line
		if err := json.Unmarshal(raw, &l); err != nil {
			return nil, fmt.Errorf("%s line %d: %w", name, i, err)
		}
		if err := l.Frame.decode(); err != nil {
			return nil, fmt.Errorf("%s line %d: %w", name, i, err)
		}
		tr.Lines = append(tr.Lines, l)
	}
	return tr, nil
}

func (f *Frame) decode() (err error) {
	if f == nil {
		return nil
	}
	if f.PayloadHex != "" {
		f.payloadDecoded, err = hex.DecodeString(f.PayloadHex)
		return err
	}
	f.payloadDecoded = []byte(f.PayloadText)
	return nil
}
