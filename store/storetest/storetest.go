// Package storetest is the suite that every kind of store must pass, so that the
// others may rely on SQLite and PostgreSQL behaving alike.
package storetest

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport.dev/store"
)

// Fresh returns the URL of an empty database for one test.
type Fresh func(t testing.TB) string

// Run runs the suite.
func Run(t *testing.T, fresh Fresh) {
	for _, part := range []struct {
		name string
		test func(*testing.T, Fresh)
	}{
		{"Users", testUsers},
		{"Pages", testPages},
		{"Groups", testGroups},
		{"Roles", testRoles},
		{"AccessKeys", testAccessKeys},
		{"SSHKeys", testSSHKeys},
		{"SSHAuthorities", testSSHAuthorities},
		{"SSHAuthorityRace", testSSHAuthorityRace},
		{"GroupSSHKeys", testGroupSSHKeys},
		{"Passwords", testPasswords},
		{"Factors", testFactors},
		{"FactorRaces", testFactorRaces},
		{"Attempts", testAttempts},
		{"InlinePolicies", testInlinePolicies},
		{"ManagedPolicies", testManagedPolicies},
		{"Attachments", testAttachments},
		{"Conflicts", testConflicts},
		{"Revision", testRevision},
		{"RecordingHolds", testHolds},
		{"KnownSubjects", testKnownSubjects},
		{"CondemnRecording", testCondemn},
		{"RetentionPlans", testRetentionPlans},
		{"RecordingsWrappedBy", testWrappedBy},
		{"HoldRace", testHoldRace},
		{"HostileText", testHostileText},
		{"Activations", testActivations},
		{"Register", testRegister},
		{"RegisterRace", testRegisterRace},
		{"Nodes", testNodes},
		{"NodeKeys", testNodeKeys},
		{"Connected", testConnected},
		{"Sessions", testSessions},
		{"SessionFilters", testSessionFilters},
		{"UpdateSession", testUpdateSession},
		{"Commands", testCommands},
		{"CommandFilters", testCommandFilters},
		{"UpdateCommand", testUpdateCommand},
		{"ClaimCommands", testClaimCommands},
		{"DeleteCommands", testDeleteCommands},
		{"Requests", testRequests},
		{"RequestRace", testRequestRace},
		{"Flows", testFlows},
		{"Audit", testAudit},
		{"AuditChain", testAuditChain},
		{"AuditFilters", testAuditFilters},
		{"AuditLog", testAuditLog},
		{"AuditTampered", testAuditTampered},
		{"AuditNoted", testAuditNoted},
		{"Checkpoints", testCheckpoints},
		{"CheckpointsNotice", testCheckpointsNotice},
		{"AuditForwarding", testAuditForwarding},
		{"SignIns", testSignIns},
		{"Pairings", testPairings},
		{"RedeemRace", testRedeemRace},
		{"Accounts", testAccounts},
		{"Documents", testDocuments},
		{"Tokens", testTokens},
		{"NotifyLease", testNotifyLease},
		{"NotifyDeliveries", testNotifyDeliveries},
		{"NotifyReferences", testNotifyReferences},
		{"ChatLinks", testChatLinks},
		{"ChatCodeRace", testChatCodeRace},
		{"KMSKeys", testKMSKeys},
		{"KMSDeletion", testKMSDeletion},
		{"KMSAliases", testKMSAliases},
		{"KMSRace", testKMSRace},
		{"Recordings", testRecordings},
		{"UpdateRecording", testUpdateRecording},
		{"RecordingFilters", testRecordingFilters},
		{"Transcripts", testTranscripts},
		{"TranscriptRace", testTranscriptRace},
		{"TranscriptsCleared", testTranscriptsCleared},
		{"AWSLogs", testAWSLogs},
		{"AWSLogRace", testAWSLogRace},
		{"Meta", testMeta},
		{"Races", testRaces},
		{"Contexts", testContexts},
		{"Panics", testPanics},
		{"Reopen", testReopen},
	} {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			part.test(t, fresh)
		})
	}
}

// Open opens a store that the test's end closes.
func Open(t testing.TB, url string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), url, store.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing store: %v", err)
		}
	})
	return s
}

func open(t testing.TB, fresh Fresh) *store.Store {
	t.Helper()
	return Open(t, fresh(t))
}

// at is the nth second of a day.
func at(n int) time.Time { return time.Date(2026, 3, 1, 0, 0, n, 123456000, time.UTC) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// get returns what a store's method returned, or ends the test.
func get[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func wantSame(t testing.TB, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s: got (+), want (-):\n%s", what, diff)
	}
}

// names lists what identifies each of a list.
func names[T any](all []T, name func(T) string) string {
	var s []string
	for _, v := range all {
		s = append(s, name(v))
	}
	return strings.Join(s, " ")
}

// atOnce runs n calls at once and returns how many gave each error, nil included,
// told apart by kinds; an error of none of them ends the test.
func atOnce(t testing.TB, n int, call func(i int) error, kinds ...error) map[error]int {
	t.Helper()
	results := make(chan error, n)
	for i := range n {
		go func() { results <- call(i) }()
	}
	counts := make(map[error]int)
	for range n {
		counts[kindOf(t, <-results, kinds)]++
	}
	return counts
}

func kindOf(t testing.TB, err error, kinds []error) error {
	if err == nil {
		return nil
	}
	for _, k := range kinds {
		if errors.Is(err, k) {
			return k
		}
	}
	t.Errorf("unexpected error: %v", err)
	return fmt.Errorf("other: %w", err)
}
