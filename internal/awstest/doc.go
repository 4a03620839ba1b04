// Package awstest has stand-ins for services of AWS, for tests: an S3 server, and
// CloudWatch Logs, which checks what it is sent as AWS does.
package awstest
