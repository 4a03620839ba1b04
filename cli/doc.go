// Package cli is the command line: what people type as sallyport, and what the AWS
// CLI runs as session-manager-plugin.
//
// Commands write data to standard output and everything else to standard error, as
// "sallyport: …". Exit statuses: 0 done, 1 refused or failed, 2 wrong usage; connect
// passes the remote exit status through and keeps 255 for its own failures.
package cli
