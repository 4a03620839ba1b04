package store_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"sallyport.dev/audit"
	"sallyport.dev/store"
	"sallyport.dev/store/storetest"
)

// childURL, set, makes this test program append audit records to the store at that
// URL until it is killed.
const childURL = "SALLYPORT_TEST_APPEND_TO"

// appendForEver prints each record's number once the log says that it is durable.
func appendForEver() int {
	ctx := context.Background()
	logger := slog.New(slog.DiscardHandler)
	s, err := store.Open(ctx, os.Getenv(childURL), store.Options{Logger: logger})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	l, err := audit.New(ctx, s, "child", time.Now, logger)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for range 20 {
		go func() {
			for {
				r, err := l.Append(ctx, audit.Record{Event: audit.EventChange})
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				fmt.Printf("%d\n", r.Seq) // one write
			}
		}()
	}
	time.Sleep(time.Minute) // the parent kills it long before
	return 1
}

// testKilled kills a writing process several times: what it was told is stored is
// there, the chain is whole, and the next process goes on with it.
func testKilled(t *testing.T, fresh storetest.Fresh) {
	url := fresh(t)
	storetest.Open(t, url).Close()
	for round := range 3 {
		told := runAndKill(t, url, 200)
		s := storetest.Open(t, url)
		last, _, err := s.LastAudit(t.Context(), "child")
		if err != nil {
			t.Fatal(err)
		}
		if last.Seq < told {
			t.Errorf("round %d: the log ends with record %d, but %d was said to be durable", round, last.Seq, told)
		}
		if err := audit.Verify(audit.All(t.Context(), s, audit.Filter{})); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		s.Close()
	}
}

// runAndKill starts a child, kills it once it has stored some records, and returns
// the highest number that it had printed.
func runAndKill(t *testing.T, url string, records int) (highest int64) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), childURL+"="+url)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		seq, err := strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			break // the line that the kill cut short
		}
		highest = max(highest, seq)
		if n == records {
			cmd.Process.Kill() // SIGKILL: no chance to tidy up
		}
	}
	cmd.Wait() // killed, so an error
	if highest == 0 {
		t.Fatal("the child stored nothing")
	}
	return highest
}
