// Package document reads SSM documents: it parses and validates them, checks and
// fills parameters, and ships the AWS-owned ones that sessions use.
package document
