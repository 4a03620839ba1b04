# Peer approval: somebody of the team lets somebody else of the team in.

flow "frontend-shell" {
  label       = "Shell on the front ends"
  description = "For looking at a front end that misbehaves. A colleague approves."

  ask { groups = ["frontend"] }

  field "ticket" {
    label   = "Ticket"
    pattern = "[A-Z]+-[0-9]+"
    message = "a ticket such as WEB-123"
  }

  field "duration" {
    allowed = ["30m", "1h"]
    default = "30m"
  }

  target "nodes" "frontends" {
    label = "Front ends"
    tags  = { Role = "frontend" }
  }

  target "role" "tools" {
    label = "What the shell needs in AWS"
    role  = "FrontEndSSHAccess"
  }

  stage "colleague" {
    of { groups = ["frontend"] }
    comment = "on_deny"
    remind  = "10m"
  }

  clocks {
    pending = "2h"
    longest = "1h"
  }

  announce {
    on    = ["granted", "denied", "revoked", "ended"]
    slack = ["#frontend"]
  }
}
