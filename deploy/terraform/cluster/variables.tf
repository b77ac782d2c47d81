variable "vpc_id" {
  description = "VPC of the cluster; `cluster_inputs` of deploy/terraform/jenkins/ gives one."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^vpc-[0-9a-f]+$", var.vpc_id))
    error_message = "vpc_id is the id of a VPC, for example vpc-0123456789abcdef0."
  }
}

variable "private_subnet_ids" {
  description = "Subnets of the control plane's interfaces and of the nodes: in two availability zones at least, with a way out to the internet."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(distinct(var.private_subnet_ids)) >= 2
    error_message = "private_subnet_ids needs at least two subnets; EKS wants two availability zones."
  }

  validation {
    condition     = alltrue([for id in var.private_subnet_ids : can(regex("^subnet-[0-9a-f]+$", id))])
    error_message = "private_subnet_ids takes ids of subnets, for example subnet-0123456789abcdef0."
  }
}

variable "agent_role_arn" {
  description = "IAM role of the Jenkins agent, which gets the right to deploy."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$", var.agent_role_arn))
    error_message = "agent_role_arn is the ARN of an IAM role, for example arn:aws:iam::123456789012:role/keyrack-jenkins-agent."
  }
}

variable "agent_security_group_id" {
  description = "Security group of the Jenkins agent, which is let through to the cluster's API."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^sg-[0-9a-f]+$", var.agent_security_group_id))
    error_message = "agent_security_group_id is the id of a security group, for example sg-0123456789abcdef0."
  }
}

variable "region" {
  description = "AWS region to build in; the VPC's."
  type        = string
  default     = "eu-central-1"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is the name of an AWS region, for example eu-central-1."
  }
}

variable "name" {
  description = "Name of the cluster and prefix of every other name."
  type        = string
  default     = "keyrack"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", var.name))
    error_message = "name takes 2 to 20 lower-case letters, digits and hyphens, begins with a letter and does not end with a hyphen."
  }
}

variable "tags" {
  description = "Tags for everything that can carry one, beside Project and Component."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for key in keys(var.tags) : !startswith(lower(key), "aws:") && !contains(["Name", "Project", "Component"], key)])
    error_message = "tags may not set Name, Project, Component or anything that begins with aws:; those are taken."
  }
}

variable "api_cidrs" {
  description = "IPv4 networks from which the cluster's API can be reached over the internet. Empty: only from inside the VPC, as the agent does."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for cidr in var.api_cidrs : can(cidrnetmask(cidr))])
    error_message = "api_cidrs takes IPv4 networks in CIDR notation, for example 203.0.113.7/32."
  }

  validation {
    # Two /1 would be the whole internet again, hence not just "no /0".
    condition     = alltrue([for cidr in var.api_cidrs : try(tonumber(split("/", cidr)[1]) >= 8, true)])
    error_message = "api_cidrs has a network that is larger than a /8 (0.0.0.0/0 is the whole internet). Name the networks of your people."
  }
}

variable "kubernetes_version" {
  description = "Kubernetes version of the control plane and the nodes. kubectl of the agent, Helm and the cluster autoscaler follow it; EKS raises it by one at a time."
  type        = string
  default     = "1.36"
  nullable    = false

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "kubernetes_version is a minor version in quotes, for example \"1.36\"."
  }
}

variable "node_instance_types" {
  description = "Instance types of the nodes, the first that can be had. Keyrack wants memory, and a pod of its own size must fit on one node."
  type        = list(string)
  default     = ["t3.large"]
  nullable    = false

  validation {
    condition     = length(var.node_instance_types) > 0 && alltrue([for type in var.node_instance_types : can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", type))])
    error_message = "node_instance_types takes at least one EC2 instance type, for example [\"t3.large\"]."
  }
}

variable "nodes" {
  description = "How many nodes in each zone: the fewest, how many to begin with, the most. Between the fewest and the most the cluster autoscaler chooses."
  type        = object({ min = number, desired = number, max = number })
  default     = { min = 1, desired = 1, max = 2 }
  nullable    = false

  validation {
    condition     = var.nodes.min >= 1 && var.nodes.min <= var.nodes.desired && var.nodes.desired <= var.nodes.max && var.nodes.max <= 100
    error_message = "nodes takes 1 <= min <= desired <= max <= 100, for example { min = 1, desired = 1, max = 2 }."
  }
}

variable "node_disk_size" {
  description = "Size of each node's disk in GiB; images and logs are on it, Keyrack's data are in memory."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.node_disk_size >= 20 && var.node_disk_size <= 1000 && floor(var.node_disk_size) == var.node_disk_size
    error_message = "node_disk_size is a whole number of GiB from 20 to 1000."
  }
}

variable "deploy_namespaces" {
  description = "Namespaces in which the agent may deploy; the pipeline uses these two."
  type        = list(string)
  default     = ["keyrack-staging", "keyrack-production"]
  nullable    = false

  validation {
    condition     = length(var.deploy_namespaces) > 0 && alltrue([for namespace in var.deploy_namespaces : can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", namespace)) && !startswith(namespace, "kube-")])
    error_message = "deploy_namespaces takes at least one name of a namespace, for example [\"keyrack-staging\"]; those that begin with kube- are the cluster's own."
  }
}

variable "hosts" {
  description = "Names under which clients find the service, for a certificate; the first one is its name. Empty: no certificate is made."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for host in var.hosts : can(regex("^(\\*\\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", host))]) && length(distinct(var.hosts)) == length(var.hosts)
    error_message = "hosts takes names in lower-case letters, each once, for example [\"keyrack.example.org\", \"keyrack-staging.example.org\"]."
  }
}

variable "dns_zone_id" {
  description = "Zone of Route 53 that the hosts are in. Empty: none, and then no certificate is made."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(Z[A-Z0-9]+)?$", var.dns_zone_id))
    error_message = "dns_zone_id is the id of a zone of Route 53, for example Z0123456789ABCDEFGHIJ."
  }
}

variable "log_days" {
  description = "Days for which CloudWatch keeps the control plane's log."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400], var.log_days)
    error_message = "log_days is one of what CloudWatch offers: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400."
  }
}
