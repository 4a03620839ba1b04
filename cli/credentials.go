package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

type credentialsFlags struct {
	file  string
	env   bool
	fresh bool
}

func (p *program) newCredentialsCommand() *cobra.Command {
	var f credentialsFlags
	cmd := &cobra.Command{
		Use:   "credentials",
		Short: "Print temporary AWS credentials of a sign-in",
		Long: `Print temporary AWS credentials of a sign-in, as credential_process of the AWS
configuration wants them. "sallyport login --write-profiles" writes profiles that do.

They last for an hour, or as long as the sign-in if that is less. Those that are still
good for a while are printed again.`,
		Example: `  sallyport credentials
  sallyport credentials --endpoint-url https://sallyport.example.com
  eval "$(sallyport credentials --env)"`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, err := p.signInOf(cmd, f.file)
			if err != nil {
				return err
			}
			in, err := p.credentialsOf(cmd.Context(), file, f.fresh)
			if err != nil {
				return err
			}
			if f.env {
				return writeEnv(p.stdout, in)
			}
			c := in.Credentials
			c.Version = 1
			return p.writeJSON(c)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.file, "sign-in", "", "`FILE` of the sign-in, as written into profiles")
	fs.BoolVar(&f.env, "env", false, "print them as variables for a shell")
	fs.BoolVar(&f.fresh, "fresh", false, "get new ones, also where there are some")
	return cmd
}

// signInOf is the file of the sign-in that a command is about: the one that was named,
// that of the endpoint, or the only one.
func (p *program) signInOf(cmd *cobra.Command, file string) (string, error) {
	if file != "" {
		return file, nil
	}
	if endpoint := client.EndpointOf(cmd.Context(), client.Options{Profile: p.flags.profile, Endpoint: p.flags.endpoint}); endpoint != "" {
		return p.signInFile(endpoint)
	}
	if file = p.onlySignIn(); file == "" {
		return "", fmt.Errorf("%w, or at several servers", errNotSignedIn)
	}
	return file, nil
}

// writeEnv writes variables for a POSIX shell.
func writeEnv(w io.Writer, in *signedIn) error {
	var b strings.Builder
	for _, v := range [][2]string{
		{"AWS_ACCESS_KEY_ID", in.Credentials.AccessKeyID},
		{"AWS_SECRET_ACCESS_KEY", in.Credentials.SecretAccessKey},
		{"AWS_SESSION_TOKEN", in.Credentials.SessionToken},
		{"AWS_CREDENTIAL_EXPIRATION", in.Credentials.Expiration.Format(time.RFC3339)},
		{"AWS_ENDPOINT_URL", in.Endpoint},
		{"AWS_REGION", in.Region},
		{"AWS_DEFAULT_REGION", in.Region},
	} {
		fmt.Fprintf(&b, "export %s=%s\n", v[0], shellQuote(v[1]))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
