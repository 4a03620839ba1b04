files = ["ci-job.sallyport.hcl"]
now   = "2026-11-19T10:00:00Z" # a Thursday

person "ci-shop" { tags = { Kind = "ci", Environments = ["staging", "production"] } }
person "rita" { groups = ["release"] }

http "https://ci.example.com/api/pipelines/1" {
  body = "{\"id\": 1, \"user\": \"ci-shop\", \"status\": \"running\", \"protected\": true, \"ref\": \"main\"}"
}
http "https://ci.example.com/api/pipelines/2" {
  body = "{\"id\": 2, \"user\": \"ci-shop\", \"status\": \"running\", \"protected\": false, \"ref\": \"try\"}"
}
http "https://ci.example.com/api/pipelines/3" {
  body = "{\"id\": 3, \"user\": \"ci-blog\", \"status\": \"running\", \"protected\": true, \"ref\": \"main\"}"
}
http "https://ci.example.com/api/pipelines/4" { status = 503 }
http "https://ci.example.com/api/pipelines/5" { error = "connection refused" }

test "a protected branch" {
  flow = "deploy"
  ask "ci-shop" {
    channel = "api"
    reason  = "release 1.2"
    values  = { pipeline = "1", environment = "production" }
  }
  expect {
    outcome  = "approved"
    rule     = "code"
    because  = "pipeline 1 of main"
    duration = "15m"
    options  = { environment = ["staging", "production"] }
  }
}

test "no production on Fridays" {
  flow = "deploy"
  now  = "2026-11-20T10:00:00Z"
  ask "ci-shop" {
    reason = "release 1.2"
    values = { pipeline = "1", environment = "production" }
  }
  expect {
    outcome  = "pending"
    deciders = ["rita"]
  }
  ask "ci-shop" {
    reason = "release 1.2"
    values = { pipeline = "1", environment = "staging" }
  }
  expect { outcome = "approved" }
}

test "any other branch is for people" {
  flow = "deploy"
  ask "ci-shop" {
    reason = "a try"
    values = { pipeline = "2", environment = "staging" }
  }
  expect { outcome = "pending" }
  approve "rita" { comment = "with Anna" }
  expect { outcome = "approved" }
}

test "somebody else's pipeline" {
  flow = "deploy"
  ask "ci-shop" {
    reason = "release 1.2"
    values = { pipeline = "3", environment = "staging" }
  }
  expect {
    outcome = "denied"
    rule    = "code"
    because = "pipeline 3 is not yours"
  }
}

test "when CI cannot be asked people decide, and see why" {
  flow = "deploy"
  ask "ci-shop" {
    reason = "release 1.2"
    values = { pipeline = "4", environment = "staging" }
  }
  expect {
    outcome  = "pending"
    deciders = ["rita"]
    warnings = ["fail: CI answered 503"]
  }
  ask "ci-shop" {
    reason = "release 1.2"
    values = { pipeline = "5", environment = "staging" }
  }
  expect {
    outcome  = "pending"
    warnings = ["connection refused"]
  }
}

test "an environment that is not the job's" {
  flow = "deploy"
  ask "ci-shop" {
    reason = "release 1.2"
    values = { pipeline = "1", environment = "billing" }
  }
  expect {
    outcome = "refused"
    field   = "environment"
    because = "staging or production"
  }
}

test "machines do not ask by Slack" {
  flow = "deploy"
  ask "ci-shop" {
    channel = "slack"
    reason  = "release 1.2"
    values  = { pipeline = "1", environment = "staging" }
  }
  expect {
    outcome = "refused"
    because = "api, cli only"
  }
}

test "people may not" {
  flow = "deploy"
  ask "rita" { reason = "by hand" }
  expect { may_ask = false }
}
