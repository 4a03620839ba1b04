// Package grant is access just in time: requests, the decisions on them, and the grants
// that they become. A grant is a source of policy with a clock.
//
// Every step of a request's life is a row that is compared and set, an event beside it in
// the same transaction, and an audit record. Notifications hang off the events and never
// hold a step up.
package grant
