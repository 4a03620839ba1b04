// Package access decides whether a principal may do something, and says why. Check
// gathers the policies that apply, asks package policy, writes the audit record, and
// only then allows.
package access
