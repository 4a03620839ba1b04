files = ["break-glass.sallyport.hcl"]

person "ann" { groups = ["engineering"] }
person "cho" { groups = ["engineering"] }
person "sam" { groups = ["security"] }

test "in at once, and reviewed" {
  flow = "break-glass"
  ask "ann" {
    reason        = "the payment database is down"
    second_factor = true
  }
  expect {
    outcome  = "approved"
    rule     = "break-glass"
    duration = "30m"
    review   = true
  }
}

test "not without a second factor" {
  flow = "break-glass"
  ask "ann" { reason = "the payment database is down" }
  expect {
    outcome = "refused"
    because = "second factor"
  }
}

test "not without saying what is on fire" {
  flow = "break-glass"
  ask "ann" {
    reason        = "fire"
    second_factor = true
  }
  expect {
    outcome = "refused"
    field   = "reason"
  }
}

test "not for long" {
  flow = "break-glass"
  ask "ann" {
    reason        = "the payment database is down"
    duration      = "2h"
    second_factor = true
  }
  expect {
    outcome = "refused"
    field   = "duration"
    because = "1h"
  }
}

test "not for who is not named" {
  flow = "break-glass"
  ask "cho" {
    reason        = "the payment database is down"
    second_factor = true
  }
  expect { may_ask = false }
}
