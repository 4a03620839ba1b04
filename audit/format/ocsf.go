package format

import (
	"path"
	"strings"

	"sallyport.dev/audit"
)

// OCSFVersion is the version of the schema.
const OCSFVersion = "1.3.0"

// Classes of events that are used (https://schema.ocsf.io/1.3.0/classes/NAME).
const (
	classBase           = 0    // base_event: what has no class of its own
	classAuthentication = 3002 // authentication
	classLifecycle      = 6002 // application_lifecycle
	classAPI            = 6003 // api_activity
	classFileHosting    = 6006 // file_hosting
)

var classNames = map[int]string{
	classBase: "Base Event", classAuthentication: "Authentication", classLifecycle: "Application Lifecycle",
	classAPI: "API Activity", classFileHosting: "File Hosting Activity",
}

var categoryNames = map[int]string{0: "Uncategorized", 3: "Identity & Access Management", 6: "Application Activity"}

// activityOther is the activity whose name is the source's own.
const activityOther = 99

// activity is what happened, in the words of a class.
type activity struct {
	class, id int
	name      string
}

// activityOf classifies a record.
func activityOf(r audit.Record) activity {
	switch r.Event {
	case audit.EventLogin:
		return activity{classAuthentication, 1, "Logon"}
	case audit.EventSessionStart:
		return activity{classAuthentication, 1, "Logon"}
	case audit.EventSessionEnd:
		return activity{classAuthentication, 2, "Logoff"}
	case audit.EventSignIn:
		return signInActivity(r)
	case audit.EventTransfer:
		return fileActivity(r)
	case audit.EventServer:
		if id, known := map[string]int{"start": 3, "stop": 4}[r.Action]; known {
			return activity{classLifecycle, id, strings.ToUpper(r.Action[:1]) + r.Action[1:]}
		}
	case audit.EventDecision, audit.EventChange, audit.EventAccess, audit.EventRequest:
		if r.Action != "" {
			return apiActivity(r)
		}
	}
	return activity{classBase, activityOther, r.Event}
}

func signInActivity(r audit.Record) activity {
	_, step, _ := strings.Cut(r.Action, ":")
	switch step {
	case "Begin", "Confirm":
		return activity{classAuthentication, 1, "Logon"}
	case "End":
		return activity{classAuthentication, 2, "Logoff"}
	case "":
		step = r.Event
	}
	return activity{classAuthentication, activityOther, step}
}

func fileActivity(r audit.Record) activity {
	known := map[string]activity{
		"upload": {id: 1, name: "Upload"}, "download": {id: 2, name: "Download"}, "setattr": {id: 3, name: "Update"},
		"remove": {id: 4, name: "Delete"}, "rmdir": {id: 4, name: "Delete"}, "rename": {id: 5, name: "Rename"}, "copy": {id: 6, name: "Copy"},
	}
	a, found := known[r.Action]
	if !found {
		a = activity{id: activityOther, name: r.Action}
	}
	a.class = classFileHosting
	return a
}

func apiActivity(r audit.Record) activity {
	a := activity{class: classAPI}
	switch verbOf(r.Action) {
	case creates:
		a.id, a.name = 1, "Create"
	case reads:
		a.id, a.name = 2, "Read"
	case updates:
		a.id, a.name = 3, "Update"
	case deletes:
		a.id, a.name = 4, "Delete"
	default:
		a.id, a.name = activityOther, r.Action
	}
	return a
}

// ocsf is a record as an event of OCSF.
func ocsf(r audit.Record) object {
	a := activityOf(r)
	o := object{
		"activity_id": a.id, "activity_name": a.name,
		"class_uid": a.class, "class_name": classNames[a.class],
		"category_uid": a.class / 1000, "category_name": categoryNames[a.class/1000],
		"type_uid": a.class*100 + a.id, "type_name": classNames[a.class] + ": " + a.name,
		"time": r.Time.UnixMilli(),
		"metadata": object{
			"version":  OCSFVersion,
			"product":  object{"name": "Sallyport", "vendor_name": "Sallyport"},
			"uid":      r.Hash,
			"sequence": r.Seq, "log_name": r.Member, "event_code": r.Event,
			"original_time": r.Time.UTC().Format("2006-01-02T15:04:05.999999Z07:00"),
		},
	}
	o.severity(r)
	o.put("message", r.Reason)
	left := object{"prev": r.Prev, "hash": r.Hash}
	left.put("details", r.Details)
	o.class(a.class, r, left)
	o["unmapped"] = left
	return o
}

// severity adds how serious a record is, and how it went.
func (o object) severity(r audit.Record) {
	o["severity_id"], o["severity"] = 1, "Informational"
	switch outcomeOf(r) {
	case success:
		o["status_id"], o["status"] = 1, "Success"
	case failure:
		o["status_id"], o["status"] = 2, "Failure"
		o["severity_id"], o["severity"] = 2, "Low"
	default:
		o["status_id"], o["status"] = 0, "Unknown"
	}
	o.put("status_code", r.Error)
	if r.Event == audit.EventLogin || r.Error != "" {
		o.put("status_detail", r.Reason)
	}
}

// class adds the attributes of the record's class, and to left what that has no place
// for.
func (o object) class(class int, r audit.Record, left object) {
	switch class {
	case classAPI:
		o.api(r, left)
	case classAuthentication:
		o.authentication(r, left)
	case classFileHosting:
		o.file(r, left)
	case classLifecycle:
		o["app"] = object{"name": "Sallyport", "vendor_name": "Sallyport"}
		fallthrough
	default:
		left.decided(r)
		left.rest(r)
	}
}

// decided adds what only API activity has a place for.
func (o object) decided(r audit.Record) {
	o.put("action", r.Action)
	o.put("resources", r.Resources)
	o.put("decision", r.Decision)
	o.put("document", r.Document)
}

// rest adds what the classes above have a place for.
func (o object) rest(r audit.Record) {
	o.put("principal", r.Principal)
	o.put("source_ip", r.SourceIP)
	o.put("user_agent", r.UserAgent)
	o.put("request_id", r.RequestID)
	o.put("session", r.Session)
	o.put("node", r.Node)
}

func (o object) api(r audit.Record, left object) {
	service, _, found := strings.Cut(r.Action, ":")
	api := object{"operation": r.Action}
	if found {
		api["service"] = object{"name": service}
	}
	if r.RequestID != "" {
		api["request"] = object{"uid": r.RequestID}
	}
	o["api"] = api
	o["actor"] = actor(r, true)
	o["src_endpoint"] = source(r, left)
	o.request(r)
	var resources []object
	for _, uid := range r.Resources {
		resources = append(resources, object{"uid": uid})
	}
	if len(resources) > 0 {
		o["resources"] = resources
	}
	if r.Node != "" {
		o["dst_endpoint"] = object{"uid": r.Node}
	}
	left.put("document", r.Document)
}

// request adds how the caller called.
func (o object) request(r audit.Record) {
	request := object{}
	request.put("user_agent", r.UserAgent)
	request.put("uid", r.RequestID)
	o.put("http_request", request)
}

// actor is who acted: the principal, or the server itself.
func actor(r audit.Record, whole bool) object {
	a := object{}
	if r.Principal == "" {
		a["app_name"] = "Sallyport"
	} else {
		a["user"] = object{"uid": r.Principal, "name": nameOf(r.Principal)}
	}
	if r.Session != "" {
		a["session"] = object{"uid": r.Session}
	}
	if whole && r.Decision != "" {
		a["authorizations"] = []object{{"decision": r.Decision}}
	}
	return a
}

// source is where it came from: an address, or the member that wrote the record where
// none is known. What is no address is left.
func source(r audit.Record, left object) object {
	if ip := address(r.SourceIP); ip != "" {
		return object{"ip": ip}
	}
	left.put("source_ip", r.SourceIP)
	return object{"name": r.Member}
}

func (o object) authentication(r audit.Record, left object) {
	user := object{}
	switch key := r.Details["access_key_id"]; {
	case r.Principal != "":
		user["uid"], user["name"] = r.Principal, nameOf(r.Principal)
	case key != "":
		user["credential_uid"], user["name"] = key, "Unknown"
	default:
		user["name"] = "Unknown" // who signs in is not known before; the class demands somebody
	}
	o["user"] = user
	if ip := address(r.SourceIP); ip != "" {
		o["src_endpoint"] = object{"ip": ip}
	} else {
		left.put("source_ip", r.SourceIP)
	}
	if r.Session != "" {
		o["session"] = object{"uid": r.Session}
		o["is_remote"] = true
	}
	if r.Node != "" {
		o["dst_endpoint"] = object{"uid": r.Node}
	}
	o.request(r)
	left.decided(r)
}

func (o object) file(r audit.Record, left object) {
	name := r.Details["path"]
	file := object{"name": path.Base(name), "type_id": 0}
	file.put("path", name)
	if sum := r.Details["sha256"]; sum != "" {
		file["hashes"] = []object{{"algorithm_id": 3, "algorithm": "SHA-256", "value": sum}}
	}
	o["file"] = file
	if target := r.Details["target"]; target != "" && (r.Action == "rename" || r.Action == "copy") {
		o["file_result"] = object{"name": path.Base(target), "path": target, "type_id": 0}
	}
	o["actor"] = actor(r, false)
	o["src_endpoint"] = source(r, left)
	if r.Node != "" {
		o["dst_endpoint"] = object{"uid": r.Node}
	}
	o.request(r)
	left.decided(r)
}
