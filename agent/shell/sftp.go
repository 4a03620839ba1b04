package shell

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"
)

// serveFiles is the main of the file server: SFTP, version 3, on standard input and
// output, with the rights of the user that it runs as, from the directory it is
// started in. It returns the exit status.
func serveFiles() int {
	err := shutMemory()
	if err == nil {
		err = serveSFTP()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "sallyport: serving files:", err)
		return 1
	}
	return 0
}

func serveSFTP() error {
	server, err := sftp.NewServer(standardStreams{})
	if err != nil {
		return err
	}
	return server.Serve()
}

// withoutAddressSpace leaves out the one limit under which no Go program starts: it
// reserves addresses by the gigabyte.
func withoutAddressSpace(limits []limit) []limit {
	return slices.DeleteFunc(limits, func(l limit) bool { return l.Resource == unix.RLIMIT_AS })
}

type standardStreams struct{}

func (standardStreams) Read(b []byte) (int, error)  { return os.Stdin.Read(b) }
func (standardStreams) Write(b []byte) (int, error) { return os.Stdout.Write(b) }
func (standardStreams) Close() error                { return os.Stdin.Close() }
