provider "aws" {
  region = var.region

  default_tags {
    tags = local.tags
  }
}

locals {
  # default_tags do not reach what a launch template makes; that names local.tags itself.
  tags = merge(var.tags, { Project = var.name, Component = "cluster" })

  # The agent's role by name, without the path that an ARN may have before it.
  agent_role = element(split("/", var.agent_role_arn), length(split("/", var.agent_role_arn)) - 1)
  deployers  = "${var.name}-deployers"
  policies   = "arn:${data.aws_partition.this.partition}:iam::aws:policy"
}

data "aws_partition" "this" {}

# --- The control plane

data "aws_iam_policy_document" "assume" {
  for_each = toset(["eks", "ec2"])

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["${each.key}.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "cluster" {
  name               = "${var.name}-cluster"
  description        = "The EKS control plane"
  assume_role_policy = data.aws_iam_policy_document.assume["eks"].json
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "${local.policies}/AmazonEKSClusterPolicy"
}

# Kubernetes Secrets (tokens, TLS keys) are encrypted with a key that can be revoked and audited.
resource "aws_kms_key" "secrets" {
  #checkov:skip=CKV2_AWS_64:the default policy leaves it to the IAM policies of this account
  description             = "Kubernetes Secrets of the cluster ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 7
}

# Made here, so that EKS does not make it without an end to keeping.
resource "aws_cloudwatch_log_group" "cluster" {
  #checkov:skip=CKV_AWS_158:CloudWatch encrypts with its own key; the log holds no Secrets
  #checkov:skip=CKV_AWS_338:how long is for the variable log_days; a year costs
  name              = "/aws/eks/${var.name}/cluster"
  retention_in_days = var.log_days
}

resource "aws_security_group" "api" {
  name        = "${var.name}-api"
  description = "The cluster API, for the Jenkins agent"
  vpc_id      = var.vpc_id

  tags = { Name = "${var.name}-api" }
}

resource "aws_security_group_rule" "agent" {
  security_group_id        = aws_security_group.api.id
  description              = "helm and kubectl on the Jenkins agent"
  type                     = "ingress"
  protocol                 = "tcp"
  from_port                = 443
  to_port                  = 443
  source_security_group_id = var.agent_security_group_id
}

resource "aws_eks_cluster" "this" {
  #checkov:skip=CKV_AWS_339:its list of supported versions ends with 1.35, which EKS supports until March 2027
  name                      = var.name
  version                   = var.kubernetes_version
  role_arn                  = aws_iam_role.cluster.arn
  enabled_cluster_log_types = ["api", "audit", "authenticator", "controllerManager", "scheduler"]

  vpc_config {
    subnet_ids              = var.private_subnet_ids
    security_group_ids      = [aws_security_group.api.id]
    endpoint_private_access = true
    endpoint_public_access  = length(var.api_cidrs) > 0
    public_access_cidrs     = length(var.api_cidrs) > 0 ? var.api_cidrs : null
  }

  encryption_config {
    resources = ["secrets"]

    provider {
      key_arn = aws_kms_key.secrets.arn
    }
  }

  # Access entries instead of the aws-auth map: rights are in this file, and a typing error in a map
  # inside the cluster cannot lock everybody out. Whoever applies this becomes administrator.
  access_config {
    authentication_mode                         = "API"
    bootstrap_cluster_creator_admin_permissions = true
  }

  depends_on = [aws_iam_role_policy_attachment.cluster, aws_cloudwatch_log_group.cluster]
}

# --- The nodes

resource "aws_iam_role" "node" {
  name               = "${var.name}-node"
  description        = "The nodes of the EKS cluster"
  assume_role_policy = data.aws_iam_policy_document.assume["ec2"].json
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset(["AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryPullOnly"])

  role       = aws_iam_role.node.name
  policy_arn = "${local.policies}/${each.key}"
}

# Neither image nor instance type: those are the node group's, which keeps them up to date.
resource "aws_launch_template" "node" {
  name                   = "${var.name}-node"
  description            = "Nodes of the EKS cluster ${var.name}"
  update_default_version = true

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # pods are one hop further: they get no credentials of the node
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = var.node_disk_size
      encrypted             = true
      delete_on_termination = true
    }
  }

  dynamic "tag_specifications" {
    for_each = ["instance", "volume"]

    content {
      resource_type = tag_specifications.value
      tags          = merge(local.tags, { Name = "${var.name}-node" })
    }
  }
}

# One group a zone: a volume stays in its zone, and an autoscaler cannot ask a group of several for a
# node in a certain one.
resource "aws_eks_node_group" "this" {
  for_each = { for index, subnet in var.private_subnet_ids : tostring(index) => subnet }

  cluster_name    = aws_eks_cluster.this.name
  node_group_name = "${var.name}-nodes-${each.key}"
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = [each.value]
  instance_types  = var.node_instance_types

  launch_template {
    id      = aws_launch_template.node.id
    version = aws_launch_template.node.latest_version
  }

  scaling_config {
    min_size     = var.nodes.min
    desired_size = var.nodes.desired
    max_size     = var.nodes.max
  }

  lifecycle {
    # The cluster autoscaler moves it.
    ignore_changes = [scaling_config[0].desired_size]
  }

  depends_on = [aws_iam_role_policy_attachment.node]
}

# --- What the Jenkins agent may do: find the cluster, and change what runs in its namespaces

data "aws_iam_policy_document" "agent" {
  statement {
    actions   = ["eks:DescribeCluster"]
    resources = [aws_eks_cluster.this.arn]
  }
}

resource "aws_iam_role_policy" "agent" {
  name   = "${var.name}-cluster"
  role   = local.agent_role
  policy = data.aws_iam_policy_document.agent.json
}

resource "aws_eks_access_entry" "agent" {
  cluster_name  = aws_eks_cluster.this.name
  principal_arn = var.agent_role_arn

  # No right by itself: deploy/cluster/namespace.yaml gives this group, inside the namespaces, what
  # no policy of AWS's has (routes of a gateway, monitors).
  kubernetes_groups = [local.deployers]
}

resource "aws_eks_access_policy_association" "agent" {
  cluster_name  = aws_eks_cluster.this.name
  principal_arn = aws_eks_access_entry.agent.principal_arn
  policy_arn    = "arn:${data.aws_partition.this.partition}:eks::aws:cluster-access-policy/AmazonEKSEditPolicy"

  access_scope {
    type       = "namespace"
    namespaces = var.deploy_namespaces
  }
}
