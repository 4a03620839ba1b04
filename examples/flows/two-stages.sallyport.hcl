# Two stages: the owner of the data first, then two of security, with a second factor.
# Cedar rules prohibit what no approval could mend.

target "nodes" "databases" {
  label     = "Customer databases"
  names     = ["db-*"]
  tags      = { Data = "customer" }
  documents = ["SSM-SessionManagerRunShell", "AWS-StartPortForwardingSession"]
  login     = "dba"
}

flow "customer-data" {
  label    = "Customer databases"
  channels = ["cli", "web", "slack"]

  ask { groups = ["dba"] }

  field "case" {
    label    = "Support case"
    type     = "int"
    required = true
  }
  field "access" {
    label   = "Read or write"
    allowed = ["read", "write"]
    default = "read"
  }
  field "reason" {
    label    = "Why, so that an auditor understands it"
    pattern  = ".{20,}"
    message  = "at least 20 characters"
    required = true
  }

  targets = ["databases"]

  stage "owner" {
    of { tags = { Owns = "customer-data" } }
    within   = "4h"
    delegate = true
    fallback {
      after = "1h"
      of { groups = ["data-leads"] }
    }
  }

  stage "security" {
    approvals     = 2
    of { groups = ["security"] }
    comment       = "required"
    second_factor = true
  }

  cedar = <<-CEDAR
    @id("no-frozen-nodes")
    forbid (principal, action, resource)
    when { resource.hasTag("Frozen") && resource.getTag("Frozen") == "true" };

    @id("no-long-writing")
    forbid (principal, action, resource)
    when { context.values.access == "write" && context.duration > 1800 };

    @id("weekends-are-for-people-on-duty")
    forbid (principal, action, resource)
    when { ["sat", "sun"].contains(context.time.weekday) }
    unless { principal in Sallyport::Group::"duty" };
  CEDAR

  clocks {
    pending     = "1d"
    activate_by = "8h"
    default     = "30m"
    longest     = "2h"
  }
}
