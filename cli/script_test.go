package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sallyport":              func() { os.Exit(Main(os.Args)) },
		"session-manager-plugin": func() { os.Exit(Main(os.Args)) },
	})
}

// TestScript runs the command line as people do. The server is one that answers from
// a table; whole systems are tested in sallyporttest.
func TestScript(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(canned))
	t.Cleanup(server.Close)
	testscript.Run(t, testscript.Params{
		Dir:  "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": exitsWith},
		Setup: func(e *testscript.Env) error {
			e.Setenv("AWS_REGION", "us-east-1")
			e.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
			e.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
			e.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			e.Setenv("AWS_ENDPOINT_URL", server.URL)
			e.Setenv("SERVER", server.URL)
			e.Setenv("STREAM", "ws"+strings.TrimPrefix(server.URL, "http")+"/stream/")
			return nil
		},
	})
}

// exitsWith runs "status N COMMAND ARG..." and wants the exit status N.
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND [ARG]...")
	}
	got, err := 0, ts.Exec(args[1], args[2:]...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got, err = exit.ExitCode(), nil
	}
	if err != nil || fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit status: got %d (%v), want %s", got, err, args[0])
	}
}

// answers are what the server says to each operation.
var answers = map[string]string{
	"Sallyport.ListNodes": `{"Nodes":[
		{"NodeId":"i-05b7516a19f826be9","Name":"backend-1","State":"connected","Tags":{"Name":"backend-1","Team":"search, payments"},"MayConnect":false,"Reason":"no"},
		{"NodeId":"i-060ee0879f3ec4eb7","Name":"frontend-1","State":"connected","Tags":{"Name":"frontend-1","Team":"payments"},"MayConnect":true},
		{"NodeId":"i-0123456789abcdef0","Name":"frontend-2","State":"notconnected","Tags":{"Name":"frontend-2","Evil":"\u001b]0;x\u0007"},"MayConnect":true},
		{"NodeId":"i-0eeeeeeeeeeeeeeee","Name":"frontend","NameReported":true,"State":"connected","Tags":{"Odd":"\u009b\u202ex"},"MayConnect":true},
		{"NodeId":"i-0fffffffffffffff0","Name":"lonely","NameReported":true,"State":"connected","MayConnect":true}]}`,
	"Sallyport.ListSessions": `{"Sessions":[{"SessionId":"alice-0a","NodeId":"i-060ee0879f3ec4eb7","NodeName":"frontend-1","Owner":"arn:aws:iam::111111111111:user/alice","State":"Terminated","Started":1795168800,"Ended":1795168860.5,"EndReason":"exit","ExitStatus":3}]}`,
	"Sallyport.SearchSessions": `{"Sessions":[{"Session":{"SessionId":"alice-0a","NodeId":"i-060ee0879f3ec4eb7","NodeName":"frontend-1","Owner":"arn:aws:iam::111111111111:user/alice","State":"Terminated","Started":1795168800},
		"Hits":[{"OffsetMillis":83999,"Kind":"shown","Line":"$ cat a\u001b]0;x\u0007 \u202egpj.exe\u009b2J","From":0,"To":5},{"OffsetMillis":3725000,"Kind":"typed","Line":"sudo id","From":0,"To":4,"Cut":true}],"MoreHits":true}]}`,
	"Sallyport.SearchSessions i-05b7516a19f826be9":                  `{"Sessions":[{"Session":{"SessionId":"bob-1","NodeName":"backend-1"},"Hits":[{"OffsetMillis":1000,"Kind":"shown","Line":"cat a"}]}],"NextToken":"more"}`,
	"Sallyport.SearchSessions i-05b7516a19f826be9 more":             `!ThrottlingException The search takes too long: narrow it by a node, a person or a time, or try again later.`,
	"Sallyport.ListTransfers":                                       `{"Transfers":[{"Time":1795168803,"Operation":"upload","Details":{"path":"/tmp/\u202ex","bytes":"5"}},{"Time":1795168804,"Operation":"rename","Details":{"path":"/tmp/x","target":"/tmp/y","error":"no"}}]}`,
	"Sallyport.GetRecording":                                        `{"Data":"eyJ2ZXJzaW9uIjoyLCJ3aWR0aCI6ODAsImhlaWdodCI6MjR9ClswLjUsIm8iLCJoaVxyXG4iXQo=","NextOffset":57,"Done":true}`,
	"Sallyport.ListRecordings":                                      `{"Recordings":[]}`,
	"Sallyport.ListRecordings arn:aws:iam::111111111111:user/alice": `{"Recordings":[{"SessionId":"alice-0a","NodeName":"frontend-1","Owner":"arn:aws:iam::111111111111:user/alice","State":"stored"}]}`,
	"Sallyport.ListRecordings i-060ee0879f3ec4eb7":                  `{"Recordings":[{"SessionId":"alice-0a","NodeName":"frontend-1","Owner":"arn:aws:iam::111111111111:user/alice","State":"stored"}]}`,
	"Sallyport.HoldRecording alice":                                 `{"HoldId":"hold-alice","Recordings":1}`,
	"Sallyport.HoldRecording arn:aws:iam::111111111111:user/alice":  `{"HoldId":"hold-arn","Recordings":2}`,
	"Sallyport.HoldRecording i-060ee0879f3ec4eb7":                   `{"HoldId":"hold-node","Recordings":2}`,
	"Sallyport.GetRecordingInfo alice-0a":                           `{"Recording":{"SessionId":"alice-0a","Recording":"2026/alice-0a","State":"deleted","DeletedAt":1795168800,"DeletedBy":"arn:aws:iam::111111111111:user/admin","DeleteReason":"case 7 is closed"},"OwnerTags":{"Team":"payments"}}`,
	"Sallyport.GetStatus":                                           `{"Version":"v1","Member":"m1","Account":"111111111111","Region":"us-east-1","Principal":"arn:aws:iam::111111111111:user/alice","UserId":"AIDA","Started":1795168800,"Nodes":3,"NodesConnected":2,"ActiveSessions":1}`,
	"Sallyport.QueryAudit": `{"Records":[{"time":"2026-11-20T09:00:00Z","event":"decision","principal":"arn:aws:iam::111111111111:user/alice","action":"ssm:StartSession","decision":"ImplicitlyDenied","reason":"no policy\u001b[2J allows it","node":"i-05b7516a19f826be9"},
		{"time":"2026-11-20T09:00:00Z","event":"login","decision":"Refused","reason":"region x\n2026-11-20 11:10:00  Allowed  iam:AttachUserPolicy  admin\u202e","node":"n\n2026-11-20 11:10:00  Allowed  forged"}],"NextToken":"t"}`,
	"Sallyport.ExplainAccess": `{"Principal":"arn:aws:iam::111111111111:user/alice","Action":"ssm:StartSession","Decision":"ImplicitlyDenied","Message":"User: alice is not authorized","Resources":[
		{"Resource":"arn:aws:ec2:us-east-1:111111111111:instance/i-05b7516a19f826be9","Decision":"ImplicitlyDenied","Sources":["inline policy team of group frontend","managed policy quiet"],"Statements":[
		{"Source":"inline policy team of group frontend","Kind":"identity-based policy","Sid":"Team","Statement":1,"Effect":"Allow","Hint":"the resource's tag \"Team\" would have to be \"payments\"","Checks":[
			{"Element":"Action","Policy":["ssm:*"],"Request":["ssm:StartSession"],"Held":true},
			{"Element":"Condition","Operator":"StringEquals","Key":"ssm:resourceTag/Team","Policy":["payments"],"Request":["search"]}]},
		{"Source":"inline policy team of group frontend","Kind":"identity-based policy","Statement":2,"Effect":"Allow","Checks":[{"Element":"Action","Policy":["iam:*"],"Request":["ssm:StartSession"]}]}]}]}`,
	"AmazonSSM.CreateActivation": `{"ActivationId":"0a1b2c3d-4e5f-6789-abcd-ef0123456789","ActivationCode":"01234567890123456789"}`,
	"AmazonSSM.TerminateSession": `{"SessionId":"alice-0a"}`,

	"Sallyport.DisableUser refused":      `!AccessDeniedException User: alice is not authorized to perform: sallyport:DisableUser on resource: arn:aws:iam::111111111111:user/refused because no identity-based policy allows it`,
	"AmazonSSM.DeleteActivation refused": `!AccessDeniedException User: alice is not authorized to perform: ssm:DeleteActivation on resource: * because no identity-based policy allows it`,
	"Sallyport.GetSession alice-0a":      `{"Session":{"SessionId":"alice-0a","NodeId":"i-060ee0879f3ec4eb7","State":"Connected","Started":1795168800}}`,
	"Sallyport.GetSession past-0b":       `{"Session":{"SessionId":"past-0b","NodeId":"i-060ee0879f3ec4eb7","State":"Terminated","Started":1795168800,"Ended":1795168860}}`,
	"Sallyport.GetSession nope-1":        `!DoesNotExistException There is no session "nope-1".`,

	"Sallyport.ListSessions arn:aws:iam::111111111111:user/bob":                                   `{"Sessions":[]}`,
	"Sallyport.ListSessions arn:aws:iam::111111111111:user/alice":                                 `{"Sessions":[{"SessionId":"alice-0a","Recorded":true,"Owner":"arn:aws:iam::111111111111:user/alice"}]}`,
	"Sallyport.ListSessions arn:aws:sts::111111111111:assumed-role/Ops/alice i-060ee0879f3ec4eb7": `{"Sessions":[{"SessionId":"Ops-0c","NodeId":"i-060ee0879f3ec4eb7"}]}`,
	"Sallyport.QueryAudit i-060ee0879f3ec4eb7": `{"Records":[
		{"time":"2026-11-20T09:00:00Z","event":"session.end","principal":"arn:aws:iam::111111111111:user/alice","node":"i-060ee0879f3ec4eb7","session":"alice-0a","reason":"exit","details":{"exit_status":"3"}},
		{"time":"2026-11-20T09:01:00Z","event":"login","decision":"Refused","error":"InvalidSignatureException","source_ip":"192.0.2.7","details":{"access_key_id":"AKIDEXAMPLE"}}],"NextToken":"t"}`,
	"Sallyport.ExplainAccess assumed-role/Ops/alice": `{"Principal":"arn:aws:sts::111111111111:assumed-role/Ops/alice","Action":"sallyport:QueryAudit","Decision":"Allowed","Resources":[]}`,
	"AmazonSSM.DeleteActivation":                     `{}`,
	"Sallyport.DisableUser":                          `{}`,
	"Sallyport.EnableUser":                           `{}`,
	"AmazonSSM.DescribeActivations":                  `{"ActivationList":[{"ActivationId":"0a1b2c3d-4e5f-6789-abcd-ef0123456789","DefaultInstanceName":"web","RegistrationLimit":10,"RegistrationsCount":2,"Expired":true,"Tags":[{"Key":"Team","Value":"payments"}]}]}`,
}

// canned answers from the table, and refuses the rest; nothing without a signature.
func canned(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/stream/") {
		stream(w, r)
		return
	}
	target := r.Header.Get("X-Amz-Target")
	service := map[bool]string{true: "sallyport", false: "ssm"}[strings.HasPrefix(target, "Sallyport.")]
	if !strings.Contains(r.Header.Get("Authorization"), "/us-east-1/"+service+"/aws4_request") {
		refuse(w, "MissingAuthenticationTokenException", "no signature")
		return
	}
	body, _ := io.ReadAll(r.Body)
	if target == "AmazonSSM.StartSession" && bytes.Contains(body, []byte("i-060ee0879f3ec4eb7")) {
		name := "exit"
		if bytes.Contains(body, []byte("terminated")) {
			name = "terminated"
		}
		fmt.Fprintf(w, `{"SessionId":"alice-0a","TokenValue":"t","StreamUrl":"ws://%s/stream/%s"}`, r.Host, name)
		return
	}
	answer, ok := answers[target+" "+about(body)]
	if !ok {
		answer, ok = answers[target]
	}
	if strings.HasPrefix(answer, "!") {
		code, message, _ := strings.Cut(answer[1:], " ")
		refuse(w, code, message)
		return
	}
	if !ok {
		refuse(w, "AccessDeniedException", "User: alice is not authorized to perform: "+target+"\x1b[2J\nbecause no policy allows it")
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Write([]byte(answer))
}

// about is what a request selects by: one string that tells requests apart for which
// there are several answers.
func about(body []byte) string {
	var in struct{ SessionID, Owner, NodeID, Principal, UserName, ActivationID, NextToken string }
	json.Unmarshal(body, &in)
	all := strings.Join([]string{in.SessionID, in.Owner, in.NodeID, in.Principal, in.UserName, in.ActivationID, in.NextToken}, " ")
	return strings.Join(strings.Fields(all), " ")
}

func refuse(w http.ResponseWriter, code, message string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(http.StatusBadRequest)
	json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
}

// stream is the data channel of a session that says hello and ends: by its program,
// with status 3, or by the server's words.
func stream(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Upgrade(w, r, websocket.Options{})
	if err != nil {
		return
	}
	defer conn.Close()
	conn.Read() // the opening message
	send := func(m *wire.Message) { conn.Write(websocket.Binary, m.Encode()) }
	send(wire.NewStream(wire.TypeOutputStreamData, 0, wire.PayloadOutput, time.Now(), []byte("hello\n")))
	for {
		_, p, err := conn.Read()
		if err != nil {
			return
		}
		m, err := wire.Decode(p)
		if err == nil && m.Type == wire.TypeAcknowledge {
			break
		}
	}
	end := wire.ChannelClosed{SchemaVersion: 1, CreatedDate: "now"}
	if strings.HasSuffix(r.URL.Path, "terminated") {
		end.Output = "terminated by \x1b[31mbob"
	} else {
		end.ExitStatus = new(int)
		*end.ExitStatus = 3
	}
	send(wire.NewJSON(wire.TypeChannelClosed, time.Now(), end))
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	for err == nil {
		_, _, err = conn.Read()
	}
}
