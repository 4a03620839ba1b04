# Break-glass: people who are named in advance get in at once, with a second factor, for a
# short time, loudly. Somebody else has to look at it afterwards.

flow "break-glass" {
  label       = "Emergency access"
  description = "When nobody can be asked. It is announced everywhere and will be reviewed."
  channels    = ["cli", "web", "ssh"]

  ask { users = ["ann", "ben"] }

  field "reason" {
    label    = "What is on fire"
    pattern  = ".{10,}"
    message  = "at least 10 characters"
    required = true
  }

  target "nodes" "everything" {
    names = ["*"]
    login = "root"
  }

  break_glass {
    review { groups = ["security"] }
    review_within = "1d"
  }

  clocks {
    default = "30m"
    longest = "1h"
  }

  announce {
    slack = ["#incidents", "#security"]
    email = ["security@example.com"]
  }
}
