files = ["peer.sallyport.hcl"]

person "carol" { groups = ["frontend"] }
person "bob" { groups = ["frontend"] }
person "dave" { groups = ["backend"] }

node "i-060ee0879f3ec4eb7" {
  name = "frontend-1"
  tags = { Role = "frontend" }
}
node "i-0a1b2c3d4e5f60718" {
  name = "backend-1"
  tags = { Role = "backend" }
}

test "a colleague approves" {
  flow = "frontend-shell"
  ask "carol" { reason = "the queue is stuck" }
  expect {
    outcome  = "pending"
    stage    = "colleague"
    duration = "30m"
    deciders = ["bob"]
    targets  = ["frontends", "tools"]
  }
  approve "bob" {}
  expect { outcome = "approved" }
}

test "nobody approves themselves" {
  flow = "frontend-shell"
  ask "carol" { reason = "the queue is stuck" }
  approve "carol" { refused = "nobody decides on what they ask for themselves" }
  expect { outcome = "pending" }
}

test "others may neither ask nor decide" {
  flow = "frontend-shell"
  ask "dave" { reason = "curious" }
  expect {
    may_ask = false
    outcome = "refused"
  }
  ask "carol" { reason = "the queue is stuck" }
  approve "dave" { refused = "not among those who decide" }
}

test "no is no, and says why" {
  flow = "frontend-shell"
  ask "carol" { reason = "the queue is stuck" }
  deny "bob" { refused = "comment" }
  deny "bob" { comment = "not during the sale" }
  expect {
    outcome = "denied"
    because = "not during the sale"
  }
  approve "bob" { refused = "the request is denied" }
}

test "a node alone" {
  flow = "frontend-shell"
  ask "carol" {
    reason = "the queue is stuck"
    nodes  = ["i-060ee0879f3ec4eb7"]
  }
  expect {
    outcome = "pending"
    targets = ["frontends"]
  }
  ask "carol" {
    reason = "the queue is stuck"
    nodes  = ["i-0a1b2c3d4e5f60718"]
  }
  expect {
    outcome = "refused"
    field   = "nodes"
  }
}

test "the form" {
  flow = "frontend-shell"
  ask "carol" {}
  expect {
    outcome = "refused"
    field   = "reason"
  }
  ask "carol" {
    reason = "the queue is stuck"
    values = { ticket = "whatever" }
  }
  expect {
    outcome = "refused"
    field   = "ticket"
    because = "a ticket such as WEB-123"
  }
  ask "carol" {
    reason   = "the queue is stuck"
    duration = "2h"
  }
  expect {
    outcome = "refused"
    field   = "duration"
    because = "30m or 1h"
  }
  ask "carol" {
    reason   = "the queue is stuck"
    duration = "60m"
    values   = { ticket = "WEB-7" }
  }
  expect {
    outcome  = "pending"
    duration = "1h"
    values   = { ticket = "WEB-7" }
    options  = { duration = ["30m", "1h"] }
  }
}

test "nobody answers" {
  flow = "frontend-shell"
  ask "carol" { reason = "the queue is stuck" }
  wait "2h" {}
  expect { outcome = "expired" }
}
