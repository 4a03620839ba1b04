// Package forward sends the audit log to where the organisation keeps its logs, as it
// grows: to syslog, to a webhook, into objects of a bucket.
//
// Every record is delivered at least once, those of one member in order. For each
// destination one member of the cluster at a time, the one that holds its lease, sends
// the chains of all members; so the tail of a member that died is sent by another, or by
// its own next start. How far each chain was delivered is kept in the database and moves
// only after the destination took a batch. A destination that is slow or away holds up
// neither the log, which it only reads, nor any other destination.
package forward
