# Who is in the group support has no access of their own. They may ask for that of the
# role FrontEndSSHAccess, for a while; anybody of the teams that run the machines decides.
flow "frontend" {
  label       = "Front-end access"
  description = "Shells on the machines with Department=FrontEnd"

  ask {
    groups = ["support"]
  }

  target "role" "frontend" {
    role = "FrontEndSSHAccess"
  }

  field "reason" {
    label   = "Reason"
    pattern = ".{4,}"
    message = "say in a few words what for"
  }

  field "duration" {
    label   = "For how long"
    default = "30m"
    allowed = ["1m", "30m", "1h"] # 1m to see how access ends
  }

  stage "team" {
    of {
      groups = ["frontend", "backend"]
    }
  }

  clocks {
    pending    = "1h"
    default    = "30m"
    longest    = "2h"
    extension  = "30m"
    extensions = 2
  }
}
