files = ["two-stages.sallyport.hcl"]
now   = "2026-11-20T09:00:00Z" # a Friday

person "dan" { groups = ["dba"] }
person "olga" { tags = { Owns = ["billing", "customer-data"] } }
person "sam" { groups = ["security"] }
person "sue" { groups = ["security"] }
person "sid" { groups = ["security", "dba"] }
person "lin" { groups = ["data-leads"] }

node "i-0aaaaaaaaaaaaaaa1" {
  name = "db-1"
  tags = { Data = "customer" }
}
node "i-0aaaaaaaaaaaaaaa2" {
  name = "db-2"
  tags = { Data = "customer", Frozen = ["no", "true"] }
}

test "the owner, then two of security" {
  flow = "customer-data"
  ask "dan" {
    reason = "case 4711: a customer sees another's bill"
    values = { case = "4711" }
  }
  expect {
    outcome  = "pending"
    stage    = "owner"
    deciders = ["olga"]
    values   = { access = "read", case = "4711" }
  }
  approve "sam" { refused = "not among those who decide in stage owner" }
  approve "olga" {}
  expect {
    stage    = "security"
    missing  = 2
    deciders = ["sam", "sid", "sue"]
  }
  approve "sam" { refused = "second factor" }
  approve "sam" {
    second_factor = true
    refused       = "comment"
  }
  approve "sam" {
    second_factor = true
    comment       = "checked the case"
  }
  approve "sam" {
    second_factor = true
    comment       = "once more"
    refused       = "has decided already"
  }
  expect { missing = 1 }
  approve "sue" {
    second_factor = true
    comment       = "fine"
  }
  expect { outcome = "approved" }
}

test "security cannot wave through what it asks for itself" {
  flow = "customer-data"
  ask "sid" {
    reason = "case 4711: a customer sees another's bill"
    values = { case = "4711" }
  }
  approve "olga" {}
  expect { deciders = ["sam", "sue"] }
}

test "any one no ends it" {
  flow = "customer-data"
  ask "dan" {
    reason = "case 4711: a customer sees another's bill"
    values = { case = "4711" }
  }
  approve "olga" {}
  deny "sue" {
    second_factor = true
    comment       = "the case is closed"
  }
  expect {
    outcome = "denied"
    because = "the case is closed"
  }
}

test "the owner is away" {
  flow = "customer-data"
  ask "dan" {
    reason = "case 4711: a customer sees another's bill"
    values = { case = "4711" }
  }
  wait "1h" {}
  expect { deciders = ["lin", "olga"] }
  wait "3h" {}
  expect { outcome = "expired" }
}

test "rules prohibit" {
  flow = "customer-data"
  ask "dan" {
    reason = "case 4711: a customer sees another's bill"
    values = { case = "4711" }
    nodes  = ["i-0aaaaaaaaaaaaaaa1", "i-0aaaaaaaaaaaaaaa2"]
  }
  expect {
    outcome = "denied"
    rule    = "cedar no-frozen-nodes"
  }
  ask "dan" {
    reason = "case 4711: a customer sees another's bill"
    values = { case = "4711" }
    nodes  = ["i-0aaaaaaaaaaaaaaa1"]
  }
  expect { outcome = "pending" }
  ask "dan" {
    reason   = "case 4711: a customer sees another's bill"
    duration = "1h"
    values   = { case = "4711", access = "write" }
  }
  expect {
    outcome = "denied"
    rule    = "cedar no-long-writing"
  }
}

test "not at the weekend" {
  flow = "customer-data"
  now  = "2026-11-21T09:00:00Z"
  ask "dan" {
    reason = "case 4711: a customer sees another's bill"
    values = { case = "4711" }
  }
  expect {
    outcome = "denied"
    rule    = "cedar weekends-are-for-people-on-duty"
  }
}

test "a reason that an auditor understands" {
  flow = "customer-data"
  ask "dan" {
    reason = "because"
    values = { case = "4711" }
  }
  expect {
    outcome = "refused"
    field   = "reason"
    because = "at least 20 characters"
  }
  ask "dan" {
    reason = "case 4711: a customer sees another's bill"
    values = { case = "soon" }
  }
  expect {
    outcome = "refused"
    field   = "case"
    because = "whole number"
  }
}
