terraform {
  # 1.10 brought locks of the state in S3 without a table; tests with mocks are older.
  required_version = ">= 1.10"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0, < 7.0"
    }
  }
}
