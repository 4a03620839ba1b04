// Package provision gives and takes what grants are for outside of Sallyport, in AWS: an
// assignment of a permission set of IAM Identity Center, or membership of an IAM group.
//
// All of it is idempotent: package grant writes down what it is about to do and tries until
// it is done. What somebody had before is theirs and is not taken from them.
package provision
