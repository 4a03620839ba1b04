# CI job: a machine asks by the API, and is approved if the pipeline that it names is what
# it says it is. What cannot be checked is for people.

flow "deploy" {
  label       = "Deploy from CI"
  description = "Jobs of a protected branch deploy without asking anybody; others wait for a release manager."
  channels    = ["api", "cli"]

  ask { tags = { Kind = "ci" } }

  field "pipeline" {
    label    = "Pipeline"
    type     = "int"
    required = true
  }
  field "environment" {
    label    = "Environment"
    options  = "environments"
    required = true
  }
  field "duration" {
    allowed = ["5m", "15m"]
    default = "15m"
  }

  target "role" "deploy" { role = "Deploy" }

  target "nodes" "app" {
    tags      = { App = "shop" }
    documents = ["AWS-RunShellScript"]
    commands  = true
  }

  stage "release-manager" {
    of { groups = ["release"] }
    comment = "required"
  }

  code = "ci-job.star"
  http {
    allow_hosts = ["ci.example.com"]
    timeout     = "3s"
  }

  clocks {
    pending = "30m"
    default = "15m"
    longest = "15m"
  }
}
