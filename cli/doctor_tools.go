package cli

import (
	"bytes"
	"context"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"sallyport.dev/client"
)

const (
	toolPatience = 10 * time.Second
	maxToolWords = 4 << 10 // bytes of what a program says of itself

	// awsLeast has start-session, awsEndpoint knows AWS_ENDPOINT_URL.
	awsLeast, awsEndpoint    = "1.16.12", "1.29.0"
	awsEndpoint2, majorOfTwo = "2.13.0", "2."
)

var toolVersion = regexp.MustCompile(`[0-9]+(\.[0-9]+)+(p[0-9]+)?`)

// localTools looks at the programs of this machine. sallyport needs none of them but for
// ssh and scp; people who use the aws CLI need the others.
func (p *program) localTools(ctx context.Context) []check {
	return []check{p.lookAWS(ctx), lookPlugin(ctx), lookSSH(ctx)}
}

func (p *program) lookAWS(ctx context.Context) check {
	c := lookTool(ctx, "aws", []string{"--version"}, "only aws ssm start-session needs it")
	version := c.Text[strings.LastIndexByte(c.Text, ' ')+1:]
	if c.State == checkOK && p.endpoint() != "" && tooOld(version) {
		c = warn("add --endpoint-url to aws, or update it", "%s; it does not know AWS_ENDPOINT_URL and endpoint_url", c.Text)
	} else if c.State == checkOK && versionLess(version, awsLeast) {
		c = warn("update it", "%s; start-session needs %s", c.Text, awsLeast)
	}
	c.Name = "aws"
	return c
}

// tooOld reports whether a version of the aws CLI does not know configured endpoints.
func tooOld(version string) bool {
	if strings.HasPrefix(version, majorOfTwo) {
		return versionLess(version, awsEndpoint2)
	}
	return versionLess(version, awsEndpoint)
}

func lookPlugin(ctx context.Context) check {
	c := lookTool(ctx, namePlugin, []string{"--version"}, "only aws ssm start-session needs it; a link of that name to sallyport is one")
	if c.State == checkOK {
		whose := "AWS's"
		if strings.HasSuffix(c.Text, " "+client.Version) {
			whose = "sallyport's"
		}
		c.Text += ", " + whose
	}
	c.Name = "plugin"
	return c
}

func lookSSH(ctx context.Context) check {
	c := lookTool(ctx, "ssh", []string{"-V"}, "only sallyport ssh and scp need it")
	c.Name = "ssh"
	return c
}

// lookTool finds a program and what version it says to be.
func lookTool(ctx context.Context, name string, args []string, without string) check {
	path, err := exec.LookPath(name)
	if err != nil {
		return warn("", "%s is not installed; %s", name, without)
	}
	ctx, cancel := context.WithTimeout(ctx, toolPatience)
	defer cancel()
	var words limited
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &words, &words
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return warn("try "+path+" "+strings.Join(args, " "), "%s does not run: %v", path, err)
	}
	return ok("%s %s", path, versionIn(words.String()))
}

func versionIn(text string) string { return toolVersion.FindString(text) }

// limited keeps the beginning of what is written.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.Buffer.Write(p[:min(len(p), max(maxToolWords-l.Len(), 0))])
	return len(p), nil
}

// ReadFrom keeps io.Copy from going around Write.
func (l *limited) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{l}, r)
}
