// Package awslog writes the text of sessions to where AWS's users expect it: an object in
// S3 for each session, and a stream of events in CloudWatch Logs, as the inputs of their
// document say (s3BucketName, cloudWatchLogGroupName and their like). It is made from the
// recordings by the server, for every kind of agent.
//
// Each output of a session is a job in the database, made before the session begins, so
// that neither a crash nor an outage loses it: whatever member is alive goes on with it,
// from the recording. A job holds names and a position, nothing that was shown. There is one
// object of a session in the end. Events are delivered at least once: those of the last
// seconds before a crash may come twice.
package awslog
