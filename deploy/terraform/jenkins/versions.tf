terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # Written for 6.x. 3.39 is the oldest that knows everything used here but what README.md
      # lists under "Provider versions"; the tests plan and apply with it.
      version = ">= 3.39, < 7.0"
    }
  }
}
