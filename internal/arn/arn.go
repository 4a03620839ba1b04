// Package arn builds the Amazon resource names that Sallyport's resources go by.
package arn

import "strings"

// Realm is the account and region that a deployment stands for.
type Realm struct {
	Account string // twelve digits
	Region  string
}

// Node returns the ARN of a node: an EC2 instance for i-…, a managed instance for mi-….
func (r Realm) Node(id string) string {
	if strings.HasPrefix(id, "i-") {
		return "arn:aws:ec2:" + r.Region + ":" + r.Account + ":instance/" + id
	}
	return "arn:aws:ssm:" + r.Region + ":" + r.Account + ":managed-instance/" + id
}

// Document returns the ARN of a document; AWS-owned ones (AWS-…) have an empty account.
func (r Realm) Document(name string) string {
	account := r.Account
	if strings.HasPrefix(name, "AWS-") {
		account = ""
	}
	return "arn:aws:ssm:" + r.Region + ":" + account + ":document/" + name
}

// Session returns the ARN of a session.
func (r Realm) Session(id string) string {
	return "arn:aws:ssm:" + r.Region + ":" + r.Account + ":session/" + id
}

// IAM returns the ARN of an IAM resource: kind is user, group, role, policy or
// mfa; path begins and ends with a slash.
func (r Realm) IAM(kind, path, name string) string {
	if path == "" {
		path = "/"
	}
	return "arn:aws:iam::" + r.Account + ":" + kind + path + name
}

// Own returns the ARN of a resource that AWS does not have: kind is request or flow.
func (r Realm) Own(kind, name string) string {
	return "arn:aws:sallyport:" + r.Region + ":" + r.Account + ":" + kind + "/" + name
}

// AssumedRole returns the ARN of a role session.
func (r Realm) AssumedRole(role, session string) string {
	return "arn:aws:sts::" + r.Account + ":assumed-role/" + role + "/" + session
}

// Key returns the ARN of a key of the key service.
func (r Realm) Key(id string) string { return r.kms() + "key/" + id }

// Alias returns the ARN of an alias, whose name begins with alias/.
func (r Realm) Alias(name string) string { return r.kms() + name }

func (r Realm) kms() string { return "arn:aws:kms:" + r.Region + ":" + r.Account + ":" }
