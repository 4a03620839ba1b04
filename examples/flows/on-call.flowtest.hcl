files = ["on-call.sallyport.hcl"]
now   = "2026-11-20T12:00:00Z"

person "ann" { groups = ["engineering"] }
person "ben" { groups = ["engineering"] }
person "lea" { groups = ["engineering", "engineering-leads"] }

on_call "primary" { users = ["ann"] }

test "who is on call gets in at once" {
  flow = "production"
  ask "ann" { reason = "paged: 5xx" }
  expect {
    outcome = "approved"
    rule    = "code"
    because = "on call for primary"
  }
}

test "others ask who is on call" {
  flow = "production"
  ask "ben" { reason = "helping ann" }
  expect {
    outcome       = "pending"
    deciders      = ["ann"]
    notifications = ["slack #production, on call for primary, for 10m", "group engineering-leads"]
  }
  approve "ann" {}
  expect { outcome = "approved" }
}

test "after a quarter of an hour the leads may, too" {
  flow = "production"
  ask "ben" { reason = "helping ann" }
  wait "14m" {}
  expect { deciders = ["ann"] }
  wait "1m" {}
  expect { deciders = ["ann", "lea"] }
}

test "at night the leads may at once" {
  flow = "production"
  now  = "2026-11-20T21:00:00Z"
  ask "ben" { reason = "helping ann" }
  expect { deciders = ["ann", "lea"] }
}

test "without the source people decide" {
  flow = "production"
  on_call "primary" { error = "the calendar cannot be read" }
  ask "ann" { reason = "paged: 5xx" }
  expect {
    outcome  = "pending"
    warnings = ["on-call.star:8: schedule \"primary\": the calendar cannot be read"]
  }
  wait "15m" {}
  expect {
    deciders = ["lea"]
    warnings = ["on_request", "people"]
  }
}

test "a shift that is over decides nothing" {
  flow = "production"
  on_call "primary" { users = ["ben"] }
  ask "lea" { reason = "a look" }
  approve "ann" { refused = "not among those who decide" }
  expect { deciders = ["ben"] }
}
