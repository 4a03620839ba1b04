package format

import (
	"maps"
	"path"
	"slices"

	"sallyport.dev/audit"
)

// ECSVersion is the version of the schema.
const ECSVersion = "8.17.0"

// kind is where ECS puts an event.
type kind struct {
	category []string
	types    []string
}

// kindOf classifies a record by the categories and types that ECS allows together.
func kindOf(r audit.Record) kind {
	switch r.Event {
	case audit.EventDecision:
		types := []string{"denied"}
		if r.Decision == "Allowed" {
			types = []string{"allowed"}
		}
		return kind{[]string{"api"}, append(types, verbTypes(r.Action)...)}
	case audit.EventLogin:
		return kind{[]string{"authentication"}, []string{"start"}}
	case audit.EventSessionStart:
		return kind{[]string{"session"}, []string{"start"}}
	case audit.EventSessionEnd:
		return kind{[]string{"session"}, []string{"end"}}
	case audit.EventCommandEnd:
		return kind{[]string{"process"}, []string{"end"}}
	case audit.EventTransfer:
		return kind{[]string{"file"}, []string{fileType(r.Action)}}
	case audit.EventNode:
		return kind{[]string{"host"}, []string{"info"}}
	case audit.EventChange:
		return kind{[]string{"configuration"}, []string{"change"}}
	case audit.EventAccess:
		return kind{[]string{"api"}, []string{"access"}}
	case audit.EventServer:
		return kind{[]string{"process"}, []string{serverType(r.Action)}}
	case audit.EventRequest:
		return kind{[]string{"iam"}, []string{"info"}}
	case audit.EventRecording, audit.EventWatch:
		return kind{[]string{"session"}, []string{"info"}}
	case audit.EventSignIn:
		return kind{[]string{"authentication"}, []string{signInType(r.Action)}}
	}
	return kind{}
}

func verbTypes(action string) []string {
	switch verbOf(action) {
	case creates:
		return []string{"creation"}
	case reads:
		return []string{"access"}
	case updates:
		return []string{"change"}
	case deletes:
		return []string{"deletion"}
	}
	return nil
}

func fileType(action string) string {
	switch action {
	case "upload", "mkdir", "link", "symlink", "copy":
		return "creation"
	case "download":
		return "access"
	case "remove", "rmdir":
		return "deletion"
	case "rename", "setattr":
		return "change"
	}
	return "info"
}

func serverType(action string) string {
	switch action {
	case "start":
		return "start"
	case "stop":
		return "end"
	}
	return "info"
}

func signInType(action string) string {
	switch action {
	case "sign-in:Begin", "sign-in:Confirm":
		return "start"
	case "sign-in:End":
		return "end"
	}
	return "info"
}

// ecs is a record by the Elastic Common Schema.
func ecs(r audit.Record) object {
	k := kindOf(r)
	event := object{
		"kind": "event", "id": r.Hash, "hash": r.Hash, "sequence": r.Seq, "code": r.Event,
		"provider": "sallyport", "dataset": "sallyport.audit", "module": "sallyport",
		"outcome": [...]string{"unknown", "success", "failure"}[outcomeOf(r)],
	}
	event.put("category", k.category)
	event.put("type", k.types)
	event.put("action", r.Action)
	event.put("reason", r.Reason)
	o := object{
		"@timestamp": r.Time.UTC().Format("2006-01-02T15:04:05.999999Z07:00"),
		"ecs":        object{"version": ECSVersion}, "event": event,
		"observer": object{"vendor": "Sallyport", "product": "Sallyport", "name": r.Member},
	}
	o.put("message", r.Reason)
	if r.Error != "" {
		failed := object{"code": r.Error}
		failed.put("message", r.Reason)
		o["error"] = failed
	}
	o.ecsWho(r)
	if r.Event == audit.EventTransfer {
		o.put("file", ecsFile(r))
	}
	own := object{"member": r.Member, "prev": r.Prev, "event": r.Event}
	own.put("principal", r.Principal)
	own.put("decision", r.Decision)
	own.put("resources", r.Resources)
	own.put("request_id", r.RequestID)
	own.put("session", r.Session)
	own.put("node", r.Node)
	own.put("document", r.Document)
	if address(r.SourceIP) == "" {
		own.put("source_ip", r.SourceIP)
	}
	own.put("details", details(r.Details))
	o["sallyport"] = own
	return o
}

// ecsWho adds who acted, from where, and which machine it was about.
func (o object) ecsWho(r audit.Record) {
	related := object{}
	if r.Principal != "" {
		o["user"] = object{"id": r.Principal, "name": nameOf(r.Principal)}
		related["user"] = []string{nameOf(r.Principal)}
	}
	if ip := address(r.SourceIP); ip != "" {
		o["source"] = object{"ip": ip, "address": r.SourceIP}
		related["ip"] = []string{ip}
	}
	if r.UserAgent != "" {
		o["user_agent"] = object{"original": r.UserAgent}
	}
	if r.Node != "" {
		o["host"] = object{"id": r.Node}
		related["hosts"] = []string{r.Node}
	}
	if sum := r.Details["sha256"]; sum != "" && r.Event == audit.EventTransfer {
		related["hash"] = []string{sum}
	}
	o.put("related", related)
}

func ecsFile(r audit.Record) object {
	file := object{}
	if name := r.Details["path"]; name != "" {
		file["path"], file["name"] = name, path.Base(name)
	}
	if sum := r.Details["sha256"]; sum != "" {
		file["hash"] = object{"sha256": sum}
	}
	return file
}

// detail is one of a record's details: as a list, since their names are anybody's and an
// index is not to get a field for each.
type detail struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func details(all map[string]string) (list []detail) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, detail{name, all[name]})
	}
	return list
}
