# Run with: terraform init -backend=false && terraform test
# Nothing is built and no account is needed: what AWS would answer is made up here.

mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }

  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }

  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
  }

  mock_data "aws_ssm_parameter" {
    defaults = { value = "ami-0123456789abcdef0" }
  }

  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }

  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/keyrack" }
  }

  mock_resource "aws_ebs_volume" {
    defaults = { arn = "arn:aws:ec2:eu-central-1:123456789012:volume/vol-0123456789abcdef0", id = "vol-0123456789abcdef0" }
  }

  mock_resource "aws_eip" {
    defaults = { public_ip = "203.0.113.99" }
  }

  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 1 }
  }
}

variables {
  allowed_cidrs = ["203.0.113.7/32"]
}

run "two_zones_are_taken" {
  assert {
    condition     = [for subnet in aws_subnet.private : subnet.availability_zone] == ["eu-central-1a", "eu-central-1b"]
    error_message = "the private subnets are not in two zones"
  }
}

run "a_region_with_one_zone_is_refused" {
  command = plan

  override_data {
    target = data.aws_availability_zones.here
    values = { names = ["eu-central-1a"] }
  }

  expect_failures = [data.aws_availability_zones.here]
}

run "the_home_outlives_its_instance" {
  assert {
    condition     = aws_ebs_volume.home.encrypted && aws_volume_attachment.home.volume_id == aws_ebs_volume.home.id && aws_volume_attachment.home.stop_instance_before_detaching
    error_message = "the home is not an encrypted volume of its own that lets go of its instance"
  }
}

run "metadata_stay_out_of_containers" {
  assert {
    condition = alltrue([for options in [one(aws_instance.controller.metadata_options), one(aws_launch_template.agent.metadata_options)] :
      options.http_tokens == "required" && options.http_put_response_hop_limit == 1
    ])
    error_message = "a container could take the credentials of its instance"
  }
}

run "the_agent_is_one_instance" {
  assert {
    condition     = aws_autoscaling_group.agent.min_size == 1 && aws_autoscaling_group.agent.max_size == 1
    error_message = "there is more than one agent, and the controller knows one"
  }
}

run "the_whole_internet_is_refused" {
  command = plan

  variables {
    allowed_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.allowed_cidrs]
}
