// Package audit is the append-only record of who did what, allowed or not. Records
// form a hash chain per member; nothing is allowed before its record is durable.
package audit
