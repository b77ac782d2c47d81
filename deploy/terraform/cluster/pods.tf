# What the cluster lacks for volumes, load balancers and a changing number of nodes. Each of the three
# calls AWS with a role of its own, which only its service account in this cluster can take on.

locals {
  # By role: the service account in kube-system, and what it may do.
  pods = {
    volumes        = { account = "ebs-csi-controller-sa", policy = data.aws_iam_policy_document.volumes.json }
    load-balancers = { account = "aws-load-balancer-controller", policy = data.aws_iam_policy_document.load_balancers.json }
    autoscaler     = { account = "cluster-autoscaler", policy = data.aws_iam_policy_document.autoscaler.json }
  }

  here = "${var.region}:${data.aws_caller_identity.this.account_id}"
  ec2  = "arn:${data.aws_partition.this.partition}:ec2:${local.here}"
  elb  = "arn:${data.aws_partition.this.partition}:elasticloadbalancing:${local.here}"

  # The driver gives these to each volume; its role touches no other.
  volume_tags = merge(local.tags, { Component = "volumes" })

  # The controller gives this to each load balancer, target group and security group.
  balancer_tag = "elbv2.k8s.aws/cluster"

  # It names its load balancers so, and their listeners and rules after them.
  listeners = [for kind in ["listener/app", "listener/net", "listener-rule/app", "listener-rule/net"] : "${local.elb}:${kind}/k8s-*"]
}

data "aws_caller_identity" "this" {}

data "aws_iam_policy_document" "assume_pod" {
  for_each = local.pods

  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }

    dynamic "condition" {
      for_each = {
        eks-cluster-arn            = aws_eks_cluster.this.arn
        kubernetes-namespace       = "kube-system"
        kubernetes-service-account = each.value.account
      }

      content {
        test     = "StringEquals"
        variable = "aws:RequestTag/${condition.key}"
        values   = [condition.value]
      }
    }
  }
}

resource "aws_iam_role" "pod" {
  for_each = local.pods

  name               = "${var.name}-pod-${each.key}"
  description        = "The service account kube-system/${each.value.account} of the EKS cluster ${var.name}"
  assume_role_policy = data.aws_iam_policy_document.assume_pod[each.key].json
}

resource "aws_iam_role_policy" "pod" {
  for_each = local.pods

  name   = each.key
  role   = aws_iam_role.pod[each.key].id
  policy = each.value.policy
}

# The driver's association is its add-on's. These two are installed by deploy/bootstrap.sh.
resource "aws_eks_pod_identity_association" "pod" {
  for_each = { for name, pod in local.pods : name => pod if name != "volumes" }

  cluster_name    = aws_eks_cluster.this.name
  namespace       = "kube-system"
  service_account = each.value.account
  role_arn        = aws_iam_role.pod[each.key].arn
}

# --- Add-ons

# EKS installs network plugin, DNS and proxy by itself. Without this setting the chart's NetworkPolicy
# would be accepted and ignored; without metrics-server its autoscaler is blind.
resource "aws_eks_addon" "this" {
  for_each = {
    vpc-cni                = jsonencode({ enableNetworkPolicy = "true" })
    eks-pod-identity-agent = null
    metrics-server         = null
  }

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  configuration_values        = each.value
  resolve_conflicts_on_create = "OVERWRITE"

  depends_on = [aws_eks_node_group.this]
}

# Without it a PersistentVolumeClaim waits for ever. deploy/cluster/storage-class.yaml is the class.
resource "aws_eks_addon" "volumes" {
  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = "aws-ebs-csi-driver"
  configuration_values        = jsonencode({ controller = { extraVolumeTags = local.volume_tags } })
  resolve_conflicts_on_create = "OVERWRITE"

  pod_identity_association {
    role_arn        = aws_iam_role.pod["volumes"].arn
    service_account = local.pods.volumes.account
  }

  depends_on = [aws_eks_addon.this, aws_iam_role_policy.pod]
}

# --- Volumes: make them with our tags; attach, grow and delete those that have them. No snapshots.

data "aws_iam_policy_document" "volumes" {
  #checkov:skip=CKV_AWS_356:actions that only look know no resources
  statement {
    sid = "Look"
    actions = [
      "ec2:DescribeAvailabilityZones",
      "ec2:DescribeInstances",
      "ec2:DescribeInstanceTypes",
      "ec2:DescribeSnapshots",
      "ec2:DescribeTags",
      "ec2:DescribeVolumeStatus",
      "ec2:DescribeVolumes",
      "ec2:DescribeVolumesModifications",
    ]
    resources = ["*"]
  }

  statement {
    sid       = "Make"
    actions   = ["ec2:CreateVolume"]
    resources = ["${local.ec2}:volume/*"]

    dynamic "condition" {
      for_each = { for key in ["Project", "Component"] : key => local.volume_tags[key] }

      content {
        test     = "StringEquals"
        variable = "aws:RequestTag/${condition.key}"
        values   = [condition.value]
      }
    }
  }

  statement {
    sid       = "TagNew"
    actions   = ["ec2:CreateTags"]
    resources = ["${local.ec2}:volume/*"]

    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["CreateVolume"]
    }
  }

  statement {
    sid       = "UseOwn"
    actions   = ["ec2:AttachVolume", "ec2:DeleteVolume", "ec2:DetachVolume", "ec2:ModifyVolume"]
    resources = ["${local.ec2}:volume/*"]

    dynamic "condition" {
      for_each = { for key in ["Project", "Component"] : key => local.volume_tags[key] }

      content {
        test     = "StringEquals"
        variable = "aws:ResourceTag/${condition.key}"
        values   = [condition.value]
      }
    }
  }

  statement {
    sid       = "ToOwnNodes"
    actions   = ["ec2:AttachVolume", "ec2:DetachVolume"]
    resources = ["${local.ec2}:instance/*"]

    # EKS gives it to the instances of managed node groups.
    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/eks:cluster-name"
      values   = [var.name]
    }
  }
}

# --- Load balancers: the controller's published policy without firewalls (WAF, Shield), Cognito and
# server certificates, which its values turn off, and with this cluster's tag where that one wants any.

data "aws_iam_policy_document" "load_balancers" {
  #checkov:skip=CKV_AWS_356:actions that only look know no resources
  #checkov:skip=CKV_AWS_109:rules of security groups are permissions to it; each is limited to a tag or one group
  statement {
    sid = "Look"
    actions = [
      "acm:DescribeCertificate",
      "acm:ListCertificates",
      "ec2:DescribeAccountAttributes",
      "ec2:DescribeAddresses",
      "ec2:DescribeAvailabilityZones",
      "ec2:DescribeInstances",
      "ec2:DescribeInternetGateways",
      "ec2:DescribeNetworkInterfaces",
      "ec2:DescribeRouteTables",
      "ec2:DescribeSecurityGroups",
      "ec2:DescribeSubnets",
      "ec2:DescribeTags",
      "ec2:DescribeVpcPeeringConnections",
      "ec2:DescribeVpcs",
      "ec2:GetSecurityGroupsForVpc",
      "elasticloadbalancing:DescribeCapacityReservation",
      "elasticloadbalancing:DescribeListenerAttributes",
      "elasticloadbalancing:DescribeListenerCertificates",
      "elasticloadbalancing:DescribeListeners",
      "elasticloadbalancing:DescribeLoadBalancerAttributes",
      "elasticloadbalancing:DescribeLoadBalancers",
      "elasticloadbalancing:DescribeRules",
      "elasticloadbalancing:DescribeSSLPolicies",
      "elasticloadbalancing:DescribeTags",
      "elasticloadbalancing:DescribeTargetGroupAttributes",
      "elasticloadbalancing:DescribeTargetGroups",
      "elasticloadbalancing:DescribeTargetHealth",
    ]
    resources = ["*"]
  }

  # The first load balancer of an account needs it.
  statement {
    sid       = "ServiceRole"
    actions   = ["iam:CreateServiceLinkedRole"]
    resources = ["arn:${data.aws_partition.this.partition}:iam::${data.aws_caller_identity.this.account_id}:role/aws-service-role/elasticloadbalancing.amazonaws.com/*"]

    condition {
      test     = "StringEquals"
      variable = "iam:AWSServiceName"
      values   = ["elasticloadbalancing.amazonaws.com"]
    }
  }

  # From the load balancer to the pods: a rule in the group of the nodes.
  statement {
    sid       = "ReachNodes"
    actions   = ["ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"]
    resources = ["${local.ec2}:security-group/${aws_eks_cluster.this.vpc_config[0].cluster_security_group_id}"]
  }

  statement {
    sid       = "GroupIn"
    actions   = ["ec2:CreateSecurityGroup"]
    resources = ["${local.ec2}:vpc/${var.vpc_id}"]
  }

  statement {
    sid     = "Make"
    actions = ["ec2:CreateSecurityGroup", "elasticloadbalancing:CreateLoadBalancer", "elasticloadbalancing:CreateTargetGroup"]
    resources = [
      "${local.ec2}:security-group/*",
      "${local.elb}:loadbalancer/*",
      "${local.elb}:targetgroup/*",
    ]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/${local.balancer_tag}"
      values   = [var.name]
    }
  }

  statement {
    sid       = "TagNewGroup"
    actions   = ["ec2:CreateTags"]
    resources = ["${local.ec2}:security-group/*"]

    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["CreateSecurityGroup"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/${local.balancer_tag}"
      values   = [var.name]
    }
  }

  statement {
    sid       = "TagNewBalancer"
    actions   = ["elasticloadbalancing:AddTags"]
    resources = ["${local.elb}:loadbalancer/*", "${local.elb}:targetgroup/*"]

    condition {
      test     = "StringEquals"
      variable = "elasticloadbalancing:CreateAction"
      values   = ["CreateLoadBalancer", "CreateTargetGroup"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/${local.balancer_tag}"
      values   = [var.name]
    }
  }

  # Other tags of what it has made; never the one that says whose it is.
  statement {
    sid     = "TagOwn"
    actions = ["ec2:CreateTags", "ec2:DeleteTags", "elasticloadbalancing:AddTags", "elasticloadbalancing:RemoveTags"]
    resources = [
      "${local.ec2}:security-group/*",
      "${local.elb}:loadbalancer/*",
      "${local.elb}:targetgroup/*",
    ]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/${local.balancer_tag}"
      values   = [var.name]
    }

    condition {
      test     = "Null"
      variable = "aws:RequestTag/${local.balancer_tag}"
      values   = ["true"]
    }
  }

  statement {
    sid = "ChangeOwn"
    actions = [
      "ec2:AuthorizeSecurityGroupIngress",
      "ec2:DeleteSecurityGroup",
      "ec2:RevokeSecurityGroupIngress",
      "elasticloadbalancing:CreateListener",
      "elasticloadbalancing:DeleteLoadBalancer",
      "elasticloadbalancing:DeleteTargetGroup",
      "elasticloadbalancing:DeregisterTargets",
      "elasticloadbalancing:ModifyCapacityReservation",
      "elasticloadbalancing:ModifyLoadBalancerAttributes",
      "elasticloadbalancing:ModifyTargetGroup",
      "elasticloadbalancing:ModifyTargetGroupAttributes",
      "elasticloadbalancing:RegisterTargets",
      "elasticloadbalancing:SetIpAddressType",
      "elasticloadbalancing:SetSecurityGroups",
      "elasticloadbalancing:SetSubnets",
    ]
    resources = [
      "${local.ec2}:security-group/*",
      "${local.elb}:loadbalancer/*",
      "${local.elb}:targetgroup/*",
    ]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/${local.balancer_tag}"
      values   = [var.name]
    }
  }

  # Listeners and rules do not always have the tag, so it is by their names.
  statement {
    sid = "ChangeOwnListeners"
    actions = [
      "elasticloadbalancing:AddListenerCertificates",
      "elasticloadbalancing:AddTags",
      "elasticloadbalancing:CreateRule",
      "elasticloadbalancing:DeleteListener",
      "elasticloadbalancing:DeleteRule",
      "elasticloadbalancing:ModifyListener",
      "elasticloadbalancing:ModifyListenerAttributes",
      "elasticloadbalancing:ModifyRule",
      "elasticloadbalancing:RemoveListenerCertificates",
      "elasticloadbalancing:RemoveTags",
      "elasticloadbalancing:SetRulePriorities",
    ]
    resources = local.listeners
  }
}

# --- Nodes: more of them when a pod finds no place, fewer when two would do with one

data "aws_iam_policy_document" "autoscaler" {
  #checkov:skip=CKV_AWS_356:actions that only look know no resources
  statement {
    sid = "Look"
    actions = [
      "autoscaling:DescribeAutoScalingGroups",
      "autoscaling:DescribeAutoScalingInstances",
      "autoscaling:DescribeLaunchConfigurations",
      "autoscaling:DescribeScalingActivities",
      "autoscaling:DescribeTags",
      "ec2:DescribeImages",
      "ec2:DescribeInstanceTypes",
      "ec2:DescribeLaunchTemplateVersions",
      "ec2:GetInstanceTypesFromInstanceRequirements",
    ]
    resources = ["*"]
  }

  statement {
    sid       = "LookAtGroups"
    actions   = ["eks:DescribeNodegroup"]
    resources = ["arn:${data.aws_partition.this.partition}:eks:${local.here}:nodegroup/${var.name}/*"]
  }

  statement {
    sid       = "ChangeOwn"
    actions   = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
    resources = ["arn:${data.aws_partition.this.partition}:autoscaling:${local.here}:autoScalingGroup:*:autoScalingGroupName/*"]

    # EKS gives it to the groups of managed nodes.
    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/k8s.io/cluster-autoscaler/${var.name}"
      values   = ["owned"]
    }
  }
}
