package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"sallyport.dev/client"
)

var profilePrefix = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// maxAWSConfig bounds the AWS configuration file that is edited, in bytes.
const maxAWSConfig = 4 << 20

// profileText is one profile to write.
type profileText struct {
	name  string
	lines []string
}

// writeProfiles writes profiles for a person and the roles that they may assume, and
// returns their names. Profiles of others are left alone, also where a name is the same.
func (p *program) writeProfiles(ctx context.Context, api *client.API, prefix, file string, in *signedIn) ([]string, error) {
	roles, err := api.ListAssumableRoles(ctx)
	if err != nil {
		return nil, fmt.Errorf("finding the roles to write profiles for: %w", err)
	}
	self, err := selfPath(p.name)
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	wanted, err := profilesFor(prefix, self, file, in, roles)
	if err != nil {
		return nil, err
	}
	path, err := p.awsConfigFile()
	if err != nil {
		return nil, err
	}
	text, err := readSmall(path, maxAWSConfig)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the AWS configuration: %w", err)
	}
	changed, written, foreign := editProfiles(string(text), in.Endpoint, wanted)
	for _, name := range foreign {
		p.say("profile %s is there already and not ours; it was left as it is (--prefix chooses other names)", client.CleanLine(name))
	}
	if len(written) == 0 {
		return nil, errors.New("no profile was written")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	mode := os.FileMode(0o600)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	_, err = replaceFile(path, []byte(changed), mode)
	return written, err
}

// awsConfigFile is the AWS configuration file itself, where it is a link.
func (p *program) awsConfigFile() (string, error) {
	path := p.getenv("AWS_CONFIG_FILE")
	if path == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("finding the home directory: %w", err)
		}
		path = filepath.Join(home, ".aws", "config")
	}
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	return real, err
}

// profilesFor are the profiles of a person. What the server says goes into a file that
// other programs obey, so that nothing goes there that is not what it should be.
func profilesFor(prefix, self, file string, in *signedIn, roles []client.AssumableRole) ([]profileText, error) {
	if !plainValue(in.Region, in.Endpoint, in.CABundle, in.User, self, file) {
		return nil, errors.New("writing profiles: the server's region, its URL, the user's name or a path holds characters that profiles cannot")
	}
	common := []string{"region = " + in.Region, "endpoint_url = " + in.Endpoint}
	if in.CABundle != "" {
		common = append(common, "ca_bundle = "+in.CABundle)
	}
	process := processWord(self) + " credentials --sign-in " + processWord(file)
	all := []profileText{{prefix, append(slices.Clone(common), "credential_process = "+process)}}
	for _, r := range roles {
		name := prefix + "-" + r.RoleName
		if !profileRole.MatchString(r.RoleName) || !roleARN.MatchString(r.RoleARN) {
			continue
		}
		all = append(all, profileText{name, append(slices.Clone(common),
			"role_arn = "+r.RoleARN, "source_profile = "+prefix, "role_session_name = "+in.User)})
	}
	return all, nil
}

var (
	profileRole = regexp.MustCompile(`^[\w+=,.@-]{1,64}$`)
	roleARN     = regexp.MustCompile(`^arn:aws:iam::[0-9]{12}:role/[!-~]{1,512}$`)
)

func plainValue(all ...string) bool {
	return !slices.ContainsFunc(all, func(v string) bool {
		return strings.ContainsFunc(v, func(c rune) bool { return c < ' ' || c == 0x7f || c == '"' })
	})
}

// processWord quotes a word of credential_process where that must be.
func processWord(word string) string {
	if strings.ContainsAny(word, " '\\") {
		return `"` + word + `"`
	}
	return word
}

func beginMark(endpoint string) string {
	return "# >>> sallyport " + endpoint + " (written by sallyport login --write-profiles; changes here are lost)"
}

func endMark(endpoint string) string { return "# <<< sallyport " + endpoint }

// editProfiles puts profiles into the text of a configuration file, in the place of those
// that were written for the endpoint before. It returns the names that it wrote, and
// those that somebody else has.
func editProfiles(text, endpoint string, wanted []profileText) (changed string, written, foreign []string) {
	rest := withoutMarked(text, endpoint)
	var block strings.Builder
	block.WriteString(beginMark(endpoint) + "\n")
	for _, p := range wanted {
		if hasProfile(rest, p.name) {
			foreign = append(foreign, p.name)
			continue
		}
		written = append(written, p.name)
		block.WriteString("[profile " + p.name + "]\n" + strings.Join(p.lines, "\n") + "\n\n")
	}
	if len(foreign) > 0 && slices.Contains(foreign, wanted[0].name) {
		return text, nil, foreign // the others stand on the first
	}
	if rest != "" && !strings.HasSuffix(rest, "\n") {
		rest += "\n"
	}
	if rest != "" && !strings.HasSuffix(rest, "\n\n") {
		rest += "\n"
	}
	return rest + strings.TrimSuffix(block.String(), "\n") + endMark(endpoint) + "\n", written, foreign
}

// withoutMarked leaves out what was written for an endpoint before. A beginning without
// its end was edited by somebody, and stays.
func withoutMarked(text, endpoint string) string {
	begin := "# >>> sallyport " + endpoint + " "
	for from := 0; ; {
		i := strings.Index(text[from:], begin)
		if i < 0 {
			return text
		}
		i += from
		if i > 0 && text[i-1] != '\n' {
			from = i + len(begin)
			continue
		}
		end := endMark(endpoint) + "\n"
		j := strings.Index(text[i:], end)
		if j < 0 {
			return text
		}
		text = text[:i] + text[i+j+len(end):]
		from = i
	}
}

var profileHead = regexp.MustCompile(`(?m)^[ \t]*\[[ \t]*(?:profile[ \t]+)?["']?([^\]"']*?)["']?[ \t]*\]`)

// hasProfile reports whether a configuration file has a profile.
func hasProfile(text, name string) bool {
	return slices.ContainsFunc(profileHead.FindAllStringSubmatch(text, -1), func(m []string) bool { return m[1] == name })
}
