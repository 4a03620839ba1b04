# On-call: who is on duty gets in at once; others ask who is on duty.

schedule "primary" {
  rota {
    start = "2026-01-05T09:00"
    shift = "7d"
    users = ["ann", "ben"]
    zone  = "Europe/Berlin"
  }
}

flow "production" {
  label       = "Production nodes"
  description = "Who is on call is let in by themselves; who is not asks them."

  ask { groups = ["engineering"] }

  target "nodes" "production" {
    label = "All of production"
    tags  = { Environment = "production" }
  }

  stage "on-call" {
    of { on_call = ["primary"] }
    remind = "5m"
    fallback {
      after = "15m"
      of { groups = ["engineering-leads"] }
    }
  }

  # If the source cannot be asked the code fails. Nobody is let in by that: the request
  # waits, whoever looks at it sees why, and the leads of the fallback decide.
  code = "on-call.star"

  clocks {
    pending    = "1h"
    default    = "1h"
    longest    = "4h"
    extension  = "1h"
    extensions = 3
  }
}
