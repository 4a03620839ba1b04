package sallyporttest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"sallyport.dev/agent"
	"sallyport.dev/archive"
	"sallyport.dev/client"
	"sallyport.dev/internal/awstest"
	"sallyport.dev/internal/needs"
	"sallyport.dev/member"
	"sallyport.dev/recording"
	"sallyport.dev/sallyporttest"
)

// valve is a TCP listener before a server, which can be cut off from it.
type valve struct {
	t      *testing.T
	addr   string
	server string
	hung   atomic.Int64 // connections that were taken and not served

	mu       sync.Mutex
	listener net.Listener
	hangs    bool
	conns    []net.Conn
	wg       sync.WaitGroup
}

func newValve(t *testing.T, server string) *valve {
	t.Helper()
	v := &valve{t: t, addr: "127.0.0.1:0", server: strings.TrimPrefix(server, "http://")}
	v.pass()
	v.addr = v.listener.Addr().String()
	t.Cleanup(func() { v.refuse(); v.wg.Wait() })
	return v
}

// refuse refuses connections, and breaks those that there are.
func (v *valve) refuse() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closeLocked()
}

func (v *valve) closeLocked() {
	if v.listener != nil {
		v.listener.Close()
	}
	for _, c := range v.conns {
		c.Close()
	}
	v.listener, v.conns = nil, nil
}

// pass serves; hang takes connections and says nothing.
func (v *valve) pass() { v.t.Helper(); v.listen(false) }
func (v *valve) hang() { v.t.Helper(); v.listen(true) }

func (v *valve) listen(hangs bool) {
	v.t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closeLocked()
	l, err := net.Listen("tcp", v.addr)
	if err != nil {
		v.t.Fatal(err)
	}
	v.listener, v.hangs = l, hangs
	v.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			v.take(c)
		}
	})
}

func (v *valve) take(c net.Conn) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.conns = append(v.conns, c)
	if v.hangs {
		v.hung.Add(1)
		return
	}
	to, err := net.Dial("tcp", v.server)
	if err != nil {
		c.Close()
		return
	}
	v.conns = append(v.conns, to)
	v.wg.Go(func() { io.Copy(to, c); to.Close() })
	v.wg.Go(func() { io.Copy(c, to); c.Close() })
}

const keptNode = "i-0000000000000000a"

// kept is a system whose recordings go to an S3 server behind a valve, and whose node runs
// a program in place of shells.
type kept struct {
	*sallyporttest.System
	t     *testing.T
	dir   string
	valve *valve
	key   sallyporttest.Key
}

func newKept(t *testing.T, program string, change func(*member.Config)) *kept {
	t.Helper()
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	k := &kept{t: t, dir: t.TempDir(), valve: newValve(t, awstest.NewS3(t, "recordings").URL)}
	credentials := filepath.Join(k.dir, "credentials")
	if program == flood {
		// What lies there counts: so much less need be shown to fill the spool.
		ballast := filepath.Join(k.dir, "spool-a", "ballast")
		if err := os.MkdirAll(filepath.Dir(ballast), 0o700); err != nil {
			t.Fatal(err)
		}
		k.write(ballast, strings.Repeat("x", 14<<20), 0o600)
	}
	k.write(credentials, fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", awstest.AccessKey, awstest.SecretKey), 0o600)
	k.System = sallyporttest.Start(t, "a", sallyporttest.Options{Dir: k.dir, Configure: func(c *member.Config) {
		c.ListenAdmin = "127.0.0.1:0"
		c.Recordings.Store = "s3://recordings/all?region=us-east-1&path_style=true&endpoint=http://" + k.valve.addr
		c.Recordings.CredentialsFile = credentials
		c.Recordings.ChunkInterval = "1s"
		c.Recordings.SpoolLimit = "16MiB"
		change(c)
	}})
	k.key = k.User("admin", nil, sallyporttest.Everything)
	shell := filepath.Join(k.dir, "program")
	k.write(shell, program, 0o700)
	k.NodeWith(keptNode, nil, func(c *agent.Config) { c.Shell.Program = shell })
	return k
}

func (k *kept) write(path, text string, mode os.FileMode) {
	k.t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		k.t.Fatal(err)
	}
}

// whole returns what the recording of a session shows, once the store has all of it.
func (k *kept) whole(id string) (text string, end *recording.End) {
	k.t.Helper()
	k.Eventually(func() bool {
		rows, err := k.Store.Recordings(k.t.Context(), archive.RowFilter{Session: id, Limit: 1})
		return err == nil && len(rows) == 1 && rows[0].State == archive.Stored
	}, "the recording of %s is stored", id)
	return play(k.t, k.API(k.key), id)
}

// play reads a recording whole.
func play(t *testing.T, api *client.API, id string) (string, *recording.End) {
	t.Helper()
	var cast []byte
	for done := false; !done; {
		out, err := api.GetRecording(t.Context(), client.GetRecordingInput{SessionID: id, Offset: int64(len(cast))})
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		cast, done = append(cast, out.Data...), out.Done
	}
	r, err := recording.NewReader(bytes.NewReader(cast))
	if err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	var text strings.Builder
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return text.String(), r.End()
		}
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if e.Kind == recording.KindOutput {
			text.WriteString(e.Data)
		}
	}
}

// wantShown wants a recording to hold all that its terminal showed.
func (k *kept) wantShown(term *sallyporttest.Terminal) (text string) {
	k.t.Helper()
	text, _ = k.whole(term.SessionID)
	if shown := term.Shown(); shown == "" || !strings.HasPrefix(text, shown) {
		k.t.Errorf("%s: the terminal showed %d bytes, which are not what the recording begins with: %d bytes", term.SessionID, len(shown), len(text))
	}
	return text
}

// terminals opens n, ten at a time.
func (k *kept) terminals(n int) []*sallyporttest.Terminal {
	k.t.Helper()
	terms, errs := make([]*sallyporttest.Terminal, n), make([]error, n)
	api, places := k.API(k.key), make(chan struct{}, 10)
	var wg sync.WaitGroup
	for i := range n {
		places <- struct{}{}
		wg.Go(func() {
			terms[i], errs[i] = sallyporttest.OpenTerminal(k.t.Context(), k.t, api, keptNode)
			<-places
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		k.t.Fatal(err)
	}
	return terms
}

// The store refuses connections for a while, and then takes them and says nothing, while a
// hundred sessions go on, begin and end: nobody notices, and nothing is missing.
func TestStoreAway(t *testing.T) {
	k := newKept(t, "#!/bin/sh\nn=0\nwhile [ $n -lt 40 ]; do n=$((n+1)); echo \"LINE-$n.\"; sleep 0.2; done\n", func(*member.Config) {})
	var want strings.Builder
	for n := range 40 {
		fmt.Fprintf(&want, "LINE-%d.\r\n", n+1)
	}
	terms := k.terminals(40)
	k.valve.refuse()
	terms = append(terms, k.terminals(30)...)
	time.Sleep(1500 * time.Millisecond) // a chunk of everyone's is due
	k.valve.hang()
	terms = append(terms, k.terminals(30)...)
	k.Eventually(func() bool { return k.valve.hung.Load() > 0 }, "the store is asked")
	for _, term := range terms {
		if said := term.End(); said != "" {
			t.Errorf("%s: the person was told %q", term.SessionID, said)
		}
		if term.Shown() != want.String() {
			t.Errorf("%s: the terminal showed %q", term.SessionID, term.Shown())
		}
	}
	k.valve.pass()
	for _, term := range terms {
		if text := k.wantShown(term); text != want.String() {
			t.Errorf("%s: recorded is %q", term.SessionID, text)
		}
	}
}

// flood prints a megabyte for each line that it reads.
const flood = "#!/bin/sh\nstty -echo\necho READY\nwhile read n; do head -c 750000 /dev/urandom | base64 -w 0; echo; echo \"DONE-$n.\"; done\n"

// A store that stays away for longer than the spool has room lets live sessions go on, and
// no new ones begin that would be recorded: the person, the server's neighbours and the
// operator each learn what concerns them. Then all goes on.
func TestStoreAwayForLong(t *testing.T) {
	k := newKept(t, flood, func(*member.Config) {})
	k.valve.refuse()
	term := k.Terminal(k.key, keptNode)
	term.WantShown("READY")
	api := k.API(k.key)
	var refusal error
	for n := 0; refusal == nil; n++ {
		term.Type(fmt.Sprintf("%d\n", n))
		term.WantShown(fmt.Sprintf("DONE-%d.", n))
		refusal = k.begin(api)
		if n > 40 {
			t.Fatal("the spool is never full")
		}
	}
	k.wantTold(refusal.Error())
	cmd := exec.Command(needs.Program(t, "aws"), "ssm", "start-session", "--target", keptNode)
	cmd.Env = slices.DeleteFunc(k.Env(k.key), func(kv string) bool { return strings.HasPrefix(kv, "AWS_PROFILE=") })
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Error("aws ssm start-session: want a refusal")
	}
	k.wantTold(string(out))
	out2, _ := sallyport(t, k.System, k.key, "doctor", keptNode)
	k.wantTold(out2)
	if text := k.ready(k.PlainURL()); text != "503 not ready\n" {
		t.Errorf("readyz: got %q", text)
	}
	if text := k.ready(k.AdminURL()); !strings.Contains(text, k.dir) || !strings.Contains(text, "connection refused") {
		t.Errorf("readyz for operators: got %q, want the folder and the error", text)
	}
	term.Type("on\n")
	term.WantShown("DONE-on.")
	k.valve.pass()
	k.Eventually(func() bool { return k.ready(k.PlainURL()) == "200 ok\n" }, "ready again")
	k.wantWorking()
	leave(term)
	k.wantShown(term)
}

// begin tries to begin a session, which is ended again.
func (k *kept) begin(api *client.API) error {
	k.t.Helper()
	began, err := api.Start(k.t.Context(), client.StartInput{Target: keptNode})
	if err != nil {
		return err
	}
	if _, err := api.SSM.TerminateSession(k.t.Context(), &ssm.TerminateSessionInput{SessionId: &began.SessionID}); err != nil {
		k.t.Error(err)
	}
	return nil
}

// wantTold wants a refusal that says why, and neither where nor how.
func (k *kept) wantTold(text string) {
	k.t.Helper()
	if !strings.Contains(text, "recordings cannot be kept now: the store has not taken any for ") {
		k.t.Errorf("told %q, want why", text)
	}
	if strings.Contains(text, k.dir) || strings.Contains(text, k.valve.addr) || strings.Contains(text, "refused:") {
		k.t.Errorf("told %q, want no folder, no address", text)
	}
}

func (k *kept) ready(url string) string {
	k.t.Helper()
	resp, err := http.Get(url + "/readyz")
	if err != nil {
		k.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", string(text))
}

// With when_full = "end", live sessions end, and the terminal says why.
func TestStoreAwayEnds(t *testing.T) {
	k := newKept(t, flood, func(c *member.Config) { c.Recordings.WhenFull = "end" })
	k.valve.refuse()
	term, idle := k.Terminal(k.key, keptNode), k.Terminal(k.key, keptNode)
	k.floodUntilOver(term)
	for _, term := range []*sallyporttest.Terminal{term, idle} {
		if said := term.End(); !strings.Contains(said, "because the store of recordings does not take them") {
			t.Errorf("the terminal said %q", said)
		}
	}
	k.valve.pass()
	for _, term := range []*sallyporttest.Terminal{term, idle} {
		k.wantShown(term)
		if _, end := k.whole(term.SessionID); end == nil || !strings.HasPrefix(end.Reason, "recording-lost: the store has not taken any for ") {
			t.Errorf("%s: the recording ends with %+v", term.SessionID, end)
		}
	}
}

func (k *kept) floodUntilOver(term *sallyporttest.Terminal) {
	k.t.Helper()
	term.WantShown("READY")
	for n := 0; !term.IsOver(); n++ {
		if n > 40 {
			k.t.Fatal("there is room for ever")
		}
		term.Type(fmt.Sprintf("%d\n", n))
		k.Eventually(func() bool {
			return term.IsOver() || strings.Contains(term.Shown(), fmt.Sprintf("DONE-%d.", n))
		}, "a megabyte")
	}
}

// On a disk that is really full, by recordings that the store does not take or by
// something else, sessions end and none begin; nothing was shown that is not recorded, and
// all goes on when there is room.
func TestSpoolDiskFull(t *testing.T) {
	disk := tmpfs(t)
	k := newKept(t, flood, func(c *member.Config) { c.Recordings.Spool = filepath.Join(disk, "spool") })
	k.valve.refuse()
	flooded := k.Terminal(k.key, keptNode)
	k.floodUntilOver(flooded)
	k.wantEnded(flooded)
	k.wantNone(disk)
	k.valve.pass()
	k.Eventually(func() bool { return k.ready(k.PlainURL()) == "200 ok\n" }, "ready again")
	k.wantShown(flooded)

	live := k.Terminal(k.key, keptNode)
	live.WantShown("READY")
	ballast := filepath.Join(disk, "ballast")
	if err := fill(ballast); err != nil {
		t.Fatal(err)
	}
	k.floodUntilOver(live)
	k.wantEnded(live)
	k.wantNone(disk)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	k.Eventually(func() bool { return k.ready(k.PlainURL()) == "200 ok\n" }, "ready again")
	k.wantShown(live)
	k.wantWorking()
}

// wantWorking wants a session to begin, to be recorded and to end.
func (k *kept) wantWorking() {
	k.t.Helper()
	term := k.Terminal(k.key, keptNode)
	term.WantShown("READY")
	leave(term)
	k.wantShown(term)
}

// leave ends the program of a terminal.
func leave(term *sallyporttest.Terminal) {
	term.Type("\x04")
	term.End()
}

func (k *kept) wantEnded(term *sallyporttest.Terminal) {
	k.t.Helper()
	if said := term.End(); !strings.Contains(said, "cannot be recorded any more") {
		k.t.Errorf("the terminal said %q", said)
	}
	k.Eventually(func() bool {
		row, err := k.Store.Session(k.t.Context(), term.SessionID)
		return err == nil && row.EndReason == "recording-lost: no space left on device"
	}, "the session's row tells why it ended")
}

// wantNone wants no more sessions to begin, once some have used what little there was left;
// and their person not to learn where.
func (k *kept) wantNone(disk string) {
	k.t.Helper()
	api := k.API(k.key)
	var err error
	for n := 0; err == nil && n < 50; n++ {
		err = k.begin(api)
	}
	if err == nil || !strings.Contains(err.Error(), "cannot be recorded") || strings.Contains(err.Error(), disk) {
		k.t.Errorf("got %v, want a refusal without the folder", err)
	}
}
