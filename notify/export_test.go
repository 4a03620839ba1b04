package notify

import "time"

// Quicken makes a service look every so often, and try again after so long.
func (c *Config) Quicken(every, wait time.Duration) {
	c.every = every
	c.backoff = func(int) time.Duration { return wait }
}

// Waits is how long a delivery waits after so many tries.
func Waits(tries int) time.Duration { return backoff(tries) }

// Line, SlackInline, SlackClip, Markdown and Words are what texts go through.
var (
	Line        = line
	SlackInline = slackInline
	SlackClip   = slackClip
	Markdown    = markdown
	Words       = words
	NewMessage  = newMessage
	SlackBlocks = slackBlocks
)

// MaxTries is how often a delivery is tried.
const MaxTries = maxTries

// LastStep is the step in which all who decide are told.
const LastStep = lastStep
