package shell

import "path/filepath"

// Shell integration: bash is given variables by which it marks its prompts and commands
// with OSC 133, which terminals do not show and recordings keep, so that the commands of
// a session can be listed. What the login scripts of the machine set goes before it.
const (
	// bashPrompt is run before each prompt. It tells the last command's status and that a
	// prompt begins, and has the prompt itself end with a mark.
	bashPrompt = `printf '\033]133;D;%s\007\033]133;A\007' "$?"; case $PS1 in *'133;B'*) ;; *) PS1="$PS1"'\[\e]133;B\a\]' ;; esac`
	// bashCommand is shown between a command line and what it runs.
	bashCommand = `\e]133;C\a`
)

// marked adds shell integration to a login shell that is bash.
func (o Options) marked(run program) program {
	if o.Integration && filepath.Base(run.path) == "bash" {
		run.env = append(run.env, "PROMPT_COMMAND="+bashPrompt, "PS0="+bashCommand)
	}
	return run
}
