# Run with: terraform init -backend=false && terraform test
# Nothing is built and no account is needed: what AWS would answer is made up here.

mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }

  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }

  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }

  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/keyrack" }
  }

  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:123456789012:key/keyrack" }
  }

  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 1 }
  }

  mock_resource "aws_eks_cluster" {
    defaults = {
      arn                   = "arn:aws:eks:eu-central-1:123456789012:cluster/keyrack"
      endpoint              = "https://keyrack.eks.example.org"
      certificate_authority = [{ data = "Q0VSVElGSUNBVEU=" }]
      vpc_config            = { cluster_security_group_id = "sg-0123456789abcdef0" }
    }
  }

  mock_resource "aws_acm_certificate" {
    defaults = {
      arn                       = "arn:aws:acm:eu-central-1:123456789012:certificate/keyrack"
      domain_validation_options = []
    }
  }
}

variables {
  vpc_id                  = "vpc-0123456789abcdef0"
  private_subnet_ids      = ["subnet-0a", "subnet-0b"]
  agent_role_arn          = "arn:aws:iam::123456789012:role/ci/keyrack-jenkins-agent"
  agent_security_group_id = "sg-0a"
}

run "the_version_is_pinned" {
  command = plan

  assert {
    condition     = aws_eks_cluster.this.version == "1.36"
    error_message = "the cluster does not have the version that kubectl and the autoscaler follow"
  }
}

run "what_pods_need_is_installed" {
  assert {
    condition     = toset(keys(aws_eks_addon.this)) == toset(["eks-pod-identity-agent", "metrics-server", "vpc-cni"])
    error_message = "an add-on is missing"
  }

  assert {
    condition     = aws_eks_addon.volumes.addon_name == "aws-ebs-csi-driver" && one(aws_eks_addon.volumes.pod_identity_association).role_arn == aws_iam_role.pod["volumes"].arn
    error_message = "the driver for volumes has no role of its own"
  }

  assert {
    condition     = jsondecode(aws_eks_addon.volumes.configuration_values).controller.extraVolumeTags.Component == "volumes"
    error_message = "volumes do not get the tag by which their role knows them"
  }

  assert {
    condition     = { for name, each in aws_eks_pod_identity_association.pod : name => "${each.namespace}/${each.service_account}" } == { autoscaler = "kube-system/cluster-autoscaler", load-balancers = "kube-system/aws-load-balancer-controller" }
    error_message = "a controller has no role, or another one has it"
  }
}

run "load_balancers_open_the_group_of_the_nodes_and_no_other" {
  assert {
    condition     = one([for statement in data.aws_iam_policy_document.load_balancers.statement : join(" ", statement.resources) if statement.sid == "ReachNodes"]) == "arn:aws:ec2:eu-central-1:123456789012:security-group/sg-0123456789abcdef0"
    error_message = "the controller may open other security groups than that of the nodes"
  }

  assert {
    condition     = one([for statement in data.aws_iam_policy_document.load_balancers.statement : join(" ", statement.resources) if statement.sid == "GroupIn"]) == "arn:aws:ec2:eu-central-1:123456789012:vpc/vpc-0123456789abcdef0"
    error_message = "the controller may make security groups in other networks"
  }
}

run "each_zone_has_a_group_of_nodes" {
  assert {
    condition     = toset([for group in aws_eks_node_group.this : join(" ", group.subnet_ids)]) == toset(["subnet-0a", "subnet-0b"])
    error_message = "a group of nodes spans zones, and then nobody can get a node where a volume is"
  }
}

run "the_agent_edits_its_namespaces_and_nothing_else" {
  assert {
    condition     = one(aws_eks_access_policy_association.agent.access_scope).type == "namespace"
    error_message = "the agent's rights are not limited to namespaces"
  }

  assert {
    condition     = sort(one(aws_eks_access_policy_association.agent.access_scope).namespaces) == sort(["keyrack-staging", "keyrack-production"])
    error_message = "the agent's rights are not in the pipeline's namespaces"
  }

  assert {
    condition     = endswith(aws_eks_access_policy_association.agent.policy_arn, ":cluster-access-policy/AmazonEKSEditPolicy")
    error_message = "the agent has another policy than edit"
  }

  assert {
    condition     = aws_iam_role_policy.agent.role == "keyrack-jenkins-agent"
    error_message = "the path of the agent's role was taken for its name"
  }
}

run "without_hosts_there_is_no_certificate" {
  command = plan

  assert {
    condition     = length(aws_acm_certificate.this) == 0 && length(aws_acm_certificate_validation.this) == 0
    error_message = "a certificate was made that nobody asked for"
  }
}

run "hosts_get_a_certificate" {
  variables {
    hosts       = ["keyrack.example.org", "keyrack-staging.example.org"]
    dns_zone_id = "Z0123456789ABCDEFGHIJ"
  }

  override_resource {
    target = aws_acm_certificate.this
    values = {
      arn = "arn:aws:acm:eu-central-1:123456789012:certificate/keyrack"
      domain_validation_options = [
        { domain_name = "keyrack-staging.example.org", resource_record_name = "_b.example.org", resource_record_type = "CNAME", resource_record_value = "_b.acm.example" },
        { domain_name = "keyrack.example.org", resource_record_name = "_a.example.org", resource_record_type = "CNAME", resource_record_value = "_a.acm.example" },
      ]
    }
  }

  assert {
    condition     = aws_acm_certificate.this[0].domain_name == "keyrack.example.org" && aws_acm_certificate.this[0].validation_method == "DNS"
    error_message = "the certificate is not for the first host, or wants a mail"
  }

  assert {
    condition     = aws_route53_record.validation["keyrack.example.org"].name == "_a.example.org" && aws_route53_record.validation["keyrack-staging.example.org"].name == "_b.example.org"
    error_message = "a host is validated by the record of another"
  }
}

run "hosts_without_a_zone_are_refused" {
  command = plan

  variables {
    hosts = ["keyrack.example.org"]
  }

  expect_failures = [aws_acm_certificate.this]
}

run "the_whole_internet_is_refused" {
  command = plan

  variables {
    api_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.api_cidrs]
}

run "a_version_that_floats_is_refused" {
  command = plan

  variables {
    kubernetes_version = "latest"
  }

  expect_failures = [var.kubernetes_version]
}
