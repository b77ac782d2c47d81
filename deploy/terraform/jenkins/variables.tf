variable "allowed_cidrs" {
  description = "IPv4 networks whose clients may open Jenkins in a browser or send it webhooks, for example [\"203.0.113.7/32\"]. There is no default: name who may."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.allowed_cidrs) > 0
    error_message = "allowed_cidrs is empty, so nobody could reach Jenkins. Give at least one network, for example [\"203.0.113.7/32\"]."
  }

  validation {
    condition     = alltrue([for cidr in var.allowed_cidrs : can(cidrnetmask(cidr))])
    error_message = "allowed_cidrs takes IPv4 networks in CIDR notation, for example 203.0.113.7/32."
  }

  validation {
    # Two /1 would be the whole internet again, hence not just "no /0".
    condition     = alltrue([for cidr in var.allowed_cidrs : try(tonumber(split("/", cidr)[1]) >= 8, true)])
    error_message = "allowed_cidrs has a network that is larger than a /8 (0.0.0.0/0 is the whole internet). Name the networks of your people and of your Git host."
  }
}

variable "domain" {
  description = "Name of the controller, for example ci.example.org; point it at the controller's address. Without one, that address is used."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = var.domain == "" || can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$", var.domain))
    error_message = "domain is a whole name in lower case, without https:// and path, for example ci.example.org."
  }
}

variable "region" {
  description = "AWS region to build in."
  type        = string
  default     = "eu-central-1"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is the name of an AWS region, for example eu-central-1."
  }
}

variable "name" {
  description = "Prefix of every name; two installations in one account need two."
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
    condition     = alltrue([for key in keys(var.tags) : !startswith(lower(key), "aws:") && !contains(["Name", "Project", "Component", "Backup"], key)])
    error_message = "tags may not set Name, Project, Component, Backup or anything that begins with aws:; those are taken."
  }
}

variable "vpc_cidr" {
  description = "Addresses of the new VPC. Four subnets are cut from it, each a sixteenth."
  type        = string
  default     = "10.20.0.0/16"
  nullable    = false

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr)) && try(tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 22, false)
    error_message = "vpc_cidr is an IPv4 network from /16 to /22, for example 10.20.0.0/16."
  }
}

variable "ami_parameter" {
  description = "Public SSM parameter that names the machine image of controller and agent: Amazon Linux 2023 for x86-64, or another of the distributions that scripts/install-docker.sh knows, with cloud-init, the AWS command line and the SSM agent."
  type        = string
  default     = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
  nullable    = false

  validation {
    condition     = startswith(var.ami_parameter, "/aws/service/")
    error_message = "ami_parameter is a public SSM parameter; its name begins with /aws/service/."
  }
}

variable "controller_instance_type" {
  description = "Instance type of the controller; it runs no builds."
  type        = string
  default     = "t3.medium"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", var.controller_instance_type))
    error_message = "controller_instance_type is an EC2 instance type, for example t3.medium."
  }
}

variable "agent_instance_type" {
  description = "Instance type of the agent, where two builds run at a time: with four cores at least."
  type        = string
  default     = "t3.xlarge"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", var.agent_instance_type))
    error_message = "agent_instance_type is an EC2 instance type, for example t3.xlarge."
  }
}

variable "home_size" {
  description = "Size of the volume with the controller's home, in GiB. It can grow later, not shrink."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.home_size >= 10 && var.home_size <= 1000 && floor(var.home_size) == var.home_size
    error_message = "home_size is a whole number of GiB from 10 to 1000."
  }
}

variable "agent_disk_size" {
  description = "Size of the agent's disk in GiB; most of it is Docker's build cache."
  type        = number
  default     = 60
  nullable    = false

  validation {
    condition     = var.agent_disk_size >= 20 && var.agent_disk_size <= 1000 && floor(var.agent_disk_size) == var.agent_disk_size
    error_message = "agent_disk_size is a whole number of GiB from 20 to 1000."
  }
}

variable "snapshots_kept" {
  description = "How many daily snapshots of the controller's home are kept."
  type        = number
  default     = 14
  nullable    = false

  validation {
    condition     = var.snapshots_kept >= 1 && var.snapshots_kept <= 365 && floor(var.snapshots_kept) == var.snapshots_kept
    error_message = "snapshots_kept is a whole number from 1 to 365."
  }
}
