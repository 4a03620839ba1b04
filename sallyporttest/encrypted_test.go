package sallyporttest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"sallyport.dev/audit"
	"sallyport.dev/client"
	"sallyport.dev/member"
	"sallyport.dev/sallyporttest"
	"sallyport.dev/session"
	"sallyport.dev/wire"
)

// encrypting returns a system with what becomes of encrypted sessions.
func encrypting(t *testing.T, mode string) *sallyporttest.System {
	return sallyporttest.Start(t, "a", sallyporttest.Options{Configure: func(c *member.Config) {
		c.Sessions = &member.Sessions{Encrypted: mode, RecordInput: true}
	}})
}

// keys is AWS's client of the service kms.
func keys(s *sallyporttest.System, k sallyporttest.Key) *awskms.Client {
	return awskms.New(awskms.Options{
		Region: sallyporttest.Region, BaseEndpoint: aws.String(s.PlainURL()),
		Credentials: credentials.NewStaticCredentialsProvider(k.ID, k.Secret, k.Token),
	})
}

// encryptedDocument makes a key with an alias and documents of every type that is
// encrypted with it; it returns the key's ARN.
func encryptedDocuments(t *testing.T, s *sallyporttest.System, k sallyporttest.Key) string {
	t.Helper()
	made, err := keys(s, k).CreateKey(t.Context(), &awskms.CreateKeyInput{Description: aws.String("sessions")})
	if err != nil {
		t.Fatal(err)
	}
	arn := *made.KeyMetadata.Arn
	if _, err := keys(s, k).CreateAlias(t.Context(), &awskms.CreateAliasInput{AliasName: aws.String("alias/sessions"), TargetKeyId: &arn}); err != nil {
		t.Fatal(err)
	}
	const command = `"properties":{"linux":{"commands":"sh -c 'echo shown-$((6*7)); echo wrong-$((6*7)) >&2; exit 7'"`
	for name, content := range map[string]string{
		"Shell":       `"sessionType":"Standard_Stream","inputs":{"kmsKeyId":"alias/sessions"}`,
		"Interactive": `"sessionType":"InteractiveCommands","inputs":{"kmsKeyId":"` + arn + `"},` + command + `}}`,
		"Command":     `"sessionType":"NonInteractiveCommands","inputs":{"kmsKeyId":"` + arn + `"},` + command + `,"separateOutputStream":true}}`,
		"Foreign":     `"sessionType":"Standard_Stream","inputs":{"kmsKeyId":"arn:aws:kms:us-east-1:999999999999:key/1"}`,
		"Port":        `"sessionType":"Port","inputs":{"kmsKeyId":"alias/sessions"},"properties":{"portNumber":"22"}`,
	} {
		createDocument(t, s, k, "Encrypted-"+name, `{"schemaVersion":"1.0",`+content+`}`)
	}
	return arn
}

func createDocument(t *testing.T, s *sallyporttest.System, k sallyporttest.Key, name, content string) {
	t.Helper()
	_, err := s.API(k).SSM.CreateDocument(t.Context(), &ssm.CreateDocumentInput{
		Name: &name, Content: &content, DocumentType: ssmtypes.DocumentTypeSession, DocumentFormat: ssmtypes.DocumentFormatJson,
	})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// wiretap keeps the stream messages that pass between a client and the gateway.
type wiretap struct {
	mu   sync.Mutex
	seen bytes.Buffer
}

func (w *wiretap) take(p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen.Write(p)
}

func (w *wiretap) saw(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Contains(w.seen.Bytes(), []byte(text))
}

type tappedLink struct {
	client.Link
	tap *wiretap
}

func (l tappedLink) Read() (bool, []byte, error) {
	text, p, err := l.Link.Read()
	l.tap.take(p)
	return text, p, err
}

func (l tappedLink) Write(text bool, p []byte) error {
	l.tap.take(p)
	return l.Link.Write(text, p)
}

// shownRun is an encrypted session that has ended.
type shownRun struct {
	id  string
	out string
	end client.End
	err error
	tap wiretap
}

// runEncrypted runs a session of our client's to its end; typed is typed when it begins.
func runEncrypted(t *testing.T, s *sallyporttest.System, k sallyporttest.Key, node, document, typed string, change ...func(*client.ChannelConfig)) *shownRun {
	t.Helper()
	api := s.API(k)
	in := client.StartInput{Target: node, Document: document}
	stream, err := api.Start(t.Context(), in)
	if err != nil {
		t.Fatalf("starting: %v", err)
	}
	r := &shownRun{id: stream.SessionID}
	dial := client.Dialer(api.TLS(), "sallyporttest")
	var out bytes.Buffer
	cfg := client.ChannelConfig{
		Stream: stream, Resume: api.ResumeSession, DataKey: api.DataKey, Logger: sallyporttest.Logger(t),
		Dial: func(ctx context.Context, url string) (client.Link, error) {
			link, err := dial(ctx, url)
			return tappedLink{link, &r.tap}, err
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	screen := &typist{out: &out}
	cfg.Handlers = map[string]client.Handler{"Standard_Stream": screen, "InteractiveCommands": screen, "NonInteractiveCommands": screen}
	channel := client.NewDataChannel(cfg)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if typed != "" && channel.Ready(ctx) {
			channel.Send(ctx, wire.PayloadOutput, []byte(typed))
		}
	}()
	r.end, r.err = channel.Run(ctx)
	cancel()
	<-done
	r.out = out.String()
	if r.err != nil { // it left
		api.TerminateSession(t.Context(), r.id)
	}
	s.Eventually(func() bool {
		row, err := s.Store.Session(t.Context(), r.id)
		return err == nil && !row.State.Active()
	}, "the session ends")
	return r
}

// typist shows what comes.
type typist struct{ out *bytes.Buffer }

func (p *typist) Start(json.RawMessage) error { return nil }

func (p *typist) Take(pt wire.PayloadType, b []byte) error {
	fmt.Fprintf(p.out, "%s", b)
	return nil
}

const (
	encryptedNode  = "i-060ee0879f3ec4eb8"
	encryptedTyped = "echo shown-$((6*7)); echo wrong-$((6*7)); exit 7\n"
)

// What the two ends say to each other is on no wire, and in the recording where that is
// configured.
func TestEncryptedSessions(t *testing.T) {
	for _, mode := range []string{"record", "unrecorded"} {
		t.Run(mode, func(t *testing.T) {
			s := encrypting(t, mode)
			key := s.User("admin", nil, sallyporttest.Everything)
			arn := encryptedDocuments(t, s, key)
			s.Node(encryptedNode, nil)
			for _, document := range []string{"Encrypted-Shell", "Encrypted-Interactive", "Encrypted-Command"} {
				t.Run(document, func(t *testing.T) { testEncrypted(t, s, key, encryptedNode, document, arn, mode) })
			}
			t.Run("the tap works", func(t *testing.T) {
				if r := runEncrypted(t, s, key, encryptedNode, "", encryptedTyped); !r.tap.saw("shown-42") || !r.tap.saw("exit 7") {
					t.Errorf("of a session that is not encrypted the tap saw nothing; it showed %q", r.out)
				}
			})
		})
	}
}

func testEncrypted(t *testing.T, s *sallyporttest.System, key sallyporttest.Key, node, document, arn, mode string) {
	t.Helper()
	typed := ""
	if document == "Encrypted-Shell" {
		typed = encryptedTyped
	}
	r := runEncrypted(t, s, key, node, document, typed)
	if r.err != nil || !strings.Contains(r.out, "shown-42") || !strings.Contains(r.out, "wrong-42") {
		t.Errorf("it showed %q and ended with %+v, %v", r.out, r.end, r.err)
	}
	for _, secret := range []string{"shown-", "wrong-", "6*7"} {
		if r.tap.saw(secret) {
			t.Errorf("%q was on the wire", secret)
		}
	}
	row, err := s.Store.Session(t.Context(), r.id)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(arn, row.KMSKey) || row.KMSKey == "" {
		t.Errorf("the session's row tells of key %q, want that of %s", row.KMSKey, arn)
	}
	records, err := s.Store.Audit(t.Context(), audit.Filter{Session: r.id, Event: audit.EventSessionStart})
	if err != nil || len(records) != 1 || records[0].Details["encryption"] != string(row.Encryption) {
		t.Errorf("the audit log tells of %+v, %v", records, err)
	}
	if mode == "unrecorded" {
		if row.Recording != "" || row.Encryption != session.EncryptionUnrecorded {
			t.Errorf("got recording %q, encryption %q, want none, and that", row.Recording, row.Encryption)
		}
		return
	}
	if row.Encryption != session.EncryptionRecorded {
		t.Errorf("got encryption %q", row.Encryption)
	}
	cast := recorded(t, s, key, r.id)
	if !strings.Contains(cast, "shown-42") || typed != "" && !strings.Contains(cast, "6*7") {
		t.Errorf("the recording has %q", cast)
	}
}

// recorded is a session's recording.
func recorded(t *testing.T, s *sallyporttest.System, key sallyporttest.Key, id string) string {
	t.Helper()
	var all bytes.Buffer
	for next, done := int64(0), false; !done; {
		piece, err := s.API(key).GetRecording(t.Context(), client.GetRecordingInput{SessionID: id, Offset: next})
		if err != nil {
			t.Fatalf("reading the recording: %v", err)
		}
		all.Write(piece.Data)
		next, done = piece.NextOffset, piece.Done
	}
	return all.String()
}

// Documents that demand encryption are refused unless configured, and where the key is
// not ours there is nothing to record with.
func TestEncryptedSessionsRefused(t *testing.T) {
	for _, tt := range []struct{ mode, document, want string }{
		{"", "Encrypted-Shell", `sessions.encrypted is "refuse"`},
		{"refuse", "Encrypted-Command", `sessions.encrypted is "refuse"`},
		{"record", "Encrypted-Foreign", "is none of this server's"},
	} {
		s := encrypting(t, tt.mode)
		key := s.User("admin", nil, sallyporttest.Everything)
		encryptedDocuments(t, s, key)
		s.Node(encryptedNode, nil)
		_, err := s.API(key).Start(t.Context(), client.StartInput{Target: encryptedNode, Document: tt.document})
		if err == nil || !strings.Contains(err.Error(), "InvalidDocument") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q, %s: got %v, want %q", tt.mode, tt.document, err, tt.want)
		}
		s.Stop()
	}
}

// A client that does not encrypt gets no session, and nothing of it.
func TestClientThatDoesNotEncrypt(t *testing.T) {
	s := encrypting(t, "record")
	key := s.User("admin", nil, sallyporttest.Everything)
	encryptedDocuments(t, s, key)
	s.Node(encryptedNode, nil)
	r := runEncrypted(t, s, key, encryptedNode, "Encrypted-Shell", encryptedTyped, func(c *client.ChannelConfig) { c.DataKey = nil })
	if r.out != "" || !strings.Contains(r.end.Output+fmt.Sprint(r.err), "does not support encryption with KMS") {
		t.Errorf("it showed %q and ended with %+v, %v", r.out, r.end, r.err)
	}
}

// Who may start sessions and not use the key is told so in AWS's words.
func TestNoPermissionForTheKey(t *testing.T) {
	s := encrypting(t, "record")
	admin := s.User("admin", nil, sallyporttest.Everything)
	arn := encryptedDocuments(t, s, admin)
	s.Node(encryptedNode, nil)
	alice := s.User("alice", nil, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:*","Resource":"*"}]}`)
	want := "User: arn:aws:iam::111111111111:user/alice is not authorized to perform: kms:GenerateDataKey on resource: " + arn +
		" because no identity-based policy allows the kms:GenerateDataKey action"
	r := runEncrypted(t, s, alice, encryptedNode, "Encrypted-Shell", encryptedTyped)
	if r.out != "" || !strings.Contains(r.end.Output, want) {
		t.Errorf("it showed %q and ended with %+v, %v, want %q", r.out, r.end, r.err, want)
	}
}

// Nobody can hand in a key that was made for something else.
func TestKeysOfOtherSessions(t *testing.T) {
	s := encrypting(t, "unrecorded")
	key := s.User("admin", nil, sallyporttest.Everything)
	encryptedDocuments(t, s, key)
	s.Node(encryptedNode, nil)
	api := s.API(key)
	for name, wrong := range map[string]func(map[string]string){
		"of another session":   func(c map[string]string) { c[wire.ContextSessionID] = "admin-0123456789abcdef0" },
		"of another node":      func(c map[string]string) { c[wire.ContextTargetID] = "i-0000000000000000a" },
		"of another challenge": func(c map[string]string) { c[wire.ContextChallenge] = "AAAAAAAAAAAAAAAAAAAAAA==" },
		"of no challenge":      func(c map[string]string) { delete(c, wire.ContextChallenge) },
	} {
		t.Run(name, func(t *testing.T) {
			r := runEncrypted(t, s, key, encryptedNode, "Encrypted-Shell", encryptedTyped, func(c *client.ChannelConfig) {
				c.DataKey = func(ctx context.Context, id string, e map[string]string) (client.DataKey, error) {
					wrong(e)
					return api.DataKey(ctx, id, e)
				}
			})
			if r.out != "" || !strings.Contains(r.end.Output, "fetching data key failed") {
				t.Errorf("it showed %q and ended with %+v, %v", r.out, r.end, r.err)
			}
		})
	}
}

// A client that has another key than it handed in can be neither read nor recorded.
func TestClientWithAnotherKey(t *testing.T) {
	s := encrypting(t, "record")
	key := s.User("admin", nil, sallyporttest.Everything)
	encryptedDocuments(t, s, key)
	s.Node(encryptedNode, nil)
	api := s.API(key)
	r := runEncrypted(t, s, key, encryptedNode, "Encrypted-Shell", encryptedTyped, func(c *client.ChannelConfig) {
		c.DataKey = func(ctx context.Context, id string, e map[string]string) (client.DataKey, error) {
			k, err := api.DataKey(ctx, id, e)
			k.Clear = bytes.Clone(k.Clear)
			k.Clear[0]++
			return k, err
		}
	})
	if r.out != "" || r.err == nil && !strings.Contains(r.end.Output, "encrypt") {
		t.Errorf("it showed %q and ended with %+v, %v", r.out, r.end, r.err)
	}
	if errors.Is(r.err, io.EOF) {
		t.Error("it ended without a word")
	}
}
