provider "aws" {
  region = var.region

  default_tags {
    tags = local.tags
  }
}

locals {
  # default_tags reach neither what an instance makes at launch nor an auto-scaling group's
  # instances; those name local.tags themselves.
  tags = merge(var.tags, { Project = var.name, Component = "jenkins" })

  zones   = slice(data.aws_availability_zones.here.names, 0, 2)
  subnets = cidrsubnets(var.vpc_cidr, 4, 4, 4, 4)
  account = data.aws_caller_identity.this.account_id
  ami     = nonsensitive(data.aws_ssm_parameter.ami.value)
  port    = 443

  # Fixed, so that the agent's settings outlive a controller that is made anew. AWS keeps the
  # first four addresses of every subnet.
  controller_ip = cidrhost(local.subnets[0], 10)
  parameters    = "/${var.name}/jenkins"

  # Where the controller writes the certificate that it serves, for the agent to trust it and no other.
  certificate = "${local.parameters}/agent/TLS_CERTIFICATE"
  url         = "https://${coalesce(var.domain, aws_eip.controller.public_ip)}/"
}

data "aws_availability_zones" "here" {
  #checkov:skip=CKV_AWS_394:the first two names are taken, and a new zone gets a later letter
  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }

  lifecycle {
    postcondition {
      condition     = length(self.names) >= 2
      error_message = "The region ${var.region} has only ${length(self.names)} availability zone for this account, and a cluster needs two. Choose another region."
    }
  }
}

data "aws_caller_identity" "this" {}

data "aws_partition" "this" {}

data "aws_ssm_parameter" "ami" {
  name = var.ami_parameter
}

# --- Network: the controller is public, the agent is not; one NAT gateway, because builds can wait

resource "aws_vpc" "this" {
  #checkov:skip=CKV2_AWS_11:flow logs cost by volume and nobody would read them; README.md says how to add them
  cidr_block           = var.vpc_cidr
  enable_dns_hostnames = true
  enable_dns_support   = true

  tags = { Name = var.name }
}

# Adopted to be emptied: whatever forgets to name a security group gets one that lets nothing pass.
resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-closed" }
}

resource "aws_subnet" "public" {
  count = 2

  vpc_id            = aws_vpc.this.id
  availability_zone = local.zones[count.index]
  cidr_block        = local.subnets[count.index]

  # The second tag is how a cluster's load balancers find where to be public.
  tags = { Name = "${var.name}-public-${count.index}", "kubernetes.io/role/elb" = "1" }
}

resource "aws_subnet" "private" {
  count = 2

  vpc_id            = aws_vpc.this.id
  availability_zone = local.zones[count.index]
  cidr_block        = local.subnets[2 + count.index]

  tags = { Name = "${var.name}-private-${count.index}", "kubernetes.io/role/internal-elb" = "1" }
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = var.name }
}

# No `domain`: 3.39 calls it `vpc`, and addresses are in a VPC either way.
resource "aws_eip" "nat" {
  #checkov:skip=CKV2_AWS_19:it belongs to the NAT gateway
  tags = { Name = "${var.name}-nat" }

  depends_on = [aws_internet_gateway.this]
}

resource "aws_nat_gateway" "this" {
  allocation_id = aws_eip.nat.id
  subnet_id     = aws_subnet.public[0].id

  tags = { Name = var.name }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-public" }
}

resource "aws_route" "public" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route_table" "private" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-private" }
}

resource "aws_route" "private" {
  route_table_id         = aws_route_table.private.id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this.id
}

resource "aws_route_table_association" "public" {
  count = 2

  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table_association" "private" {
  count = 2

  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private.id
}

# --- Who may talk to whom. No SSH: people come in through SSM, which needs no open port.

resource "aws_security_group" "controller" {
  name        = "${var.name}-controller"
  description = "Jenkins controller"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${var.name}-controller" }
}

resource "aws_security_group" "agent" {
  name        = "${var.name}-agent"
  description = "Jenkins agent"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${var.name}-agent" }
}

resource "aws_security_group_rule" "people" {
  security_group_id = aws_security_group.controller.id
  description       = "Browsers and webhooks"
  type              = "ingress"
  protocol          = "tcp"
  from_port         = local.port
  to_port           = local.port
  cidr_blocks       = var.allowed_cidrs
}

resource "aws_security_group_rule" "agent_in" {
  security_group_id        = aws_security_group.controller.id
  description              = "Web socket of the agent"
  type                     = "ingress"
  protocol                 = "tcp"
  from_port                = local.port
  to_port                  = local.port
  source_security_group_id = aws_security_group.agent.id
}

resource "aws_security_group_rule" "agent_out" {
  security_group_id        = aws_security_group.agent.id
  description              = "Web socket of the agent"
  type                     = "egress"
  protocol                 = "tcp"
  from_port                = local.port
  to_port                  = local.port
  source_security_group_id = aws_security_group.controller.id
}

# Packages, Git over HTTPS, Docker Hub, the AWS APIs (SSM among them), notifications.
resource "aws_security_group_rule" "web_out" {
  for_each = {
    controller-http  = { group = aws_security_group.controller.id, port = 80 }
    controller-https = { group = aws_security_group.controller.id, port = 443 }
    agent-http       = { group = aws_security_group.agent.id, port = 80 }
    agent-https      = { group = aws_security_group.agent.id, port = 443 }
  }

  security_group_id = each.value.group
  description       = "Packages, Git, images, AWS APIs"
  type              = "egress"
  protocol          = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
  cidr_blocks       = ["0.0.0.0/0"]
}

# --- What the two instances may do: be reached by SSM, and read their own secrets

locals {
  roles = toset(["controller", "agent"])
}

data "aws_iam_policy_document" "assume" {
  for_each = toset(["ec2", "dlm"])

  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["${each.key}.amazonaws.com"]
    }
  }
}

# Not the managed AmazonSSMManagedInstanceCore: that one may read every parameter of the account.
data "aws_iam_policy_document" "instance" {
  #checkov:skip=CKV_AWS_111:actions of the session manager know no resources
  #checkov:skip=CKV_AWS_356:actions of the session manager know no resources
  for_each = local.roles

  statement {
    sid = "SessionManager"
    actions = [
      "ssm:UpdateInstanceInformation",
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
    ]
    resources = ["*"] # these know no resources
  }

  statement {
    sid     = "OwnSecrets"
    actions = ["ssm:GetParametersByPath"]
    resources = [for below in ["", "/*"] :
      "arn:${data.aws_partition.this.partition}:ssm:${var.region}:${local.account}:parameter${local.parameters}/${each.key}${below}"
    ]
  }

  dynamic "statement" {
    for_each = each.key == "controller" ? ["TellItsCertificate"] : []

    content {
      sid     = statement.value
      actions = ["ssm:PutParameter"]
      resources = [
        "arn:${data.aws_partition.this.partition}:ssm:${var.region}:${local.account}:parameter${local.certificate}"
      ]
    }
  }
}

resource "aws_iam_role" "instance" {
  for_each = local.roles

  name               = "${var.name}-jenkins-${each.key}"
  description        = "Instance of the Jenkins ${each.key}"
  assume_role_policy = data.aws_iam_policy_document.assume["ec2"].json
}

resource "aws_iam_role_policy" "instance" {
  for_each = local.roles

  name   = "jenkins-${each.key}"
  role   = aws_iam_role.instance[each.key].id
  policy = data.aws_iam_policy_document.instance[each.key].json
}

resource "aws_iam_instance_profile" "instance" {
  for_each = local.roles

  name = "${var.name}-jenkins-${each.key}"
  role = aws_iam_role.instance[each.key].name
}

# --- What the instances do when they start: the repository's own scripts, which also work by hand

locals {
  code = "${path.module}/../../.."

  scripts = [for script in ["install-docker.sh", "install-jenkins.sh"] : {
    path        = "/opt/keyrack/scripts/${script}"
    permissions = "0755"
    content     = file("${local.code}/scripts/${script}")
  }]

  # The controller's image is built where it runs, from this folder.
  image = [for name in sort(fileset("${local.code}/deploy/jenkins", "**")) : {
    path        = "/opt/keyrack/deploy/jenkins/${name}"
    permissions = endswith(name, ".sh") ? "0755" : "0644"
    content     = file("${local.code}/deploy/jenkins/${name}")
  } if !endswith(name, ".md")]

  # What install-jenkins.sh is told beside the secrets.
  settings = {
    controller = {
      JENKINS_URL         = local.url
      TLS_NAMES           = local.controller_ip
      JENKINS_HOME_DEVICE = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${replace(aws_ebs_volume.home.id, "-", "")}"
    }
    # By its private address; where it has a name, that name leads there.
    agent = var.domain == "" ? { JENKINS_URL = "https://${local.controller_ip}", JENKINS_ADDRESS = "" } : {
      JENKINS_URL     = "https://${var.domain}"
      JENKINS_ADDRESS = local.controller_ip
    }
  }

  boot = { for role, settings in local.settings : role => <<-BOOT
    #!/bin/sh
    # Made by Terraform: fetch the secrets, install Docker, start the Jenkins ${role}.
    # Run it again after a parameter was changed; it changes only what is different.
    set -eu
    umask 077 # until the secrets are there
    ${join("\n", [for name, value in settings : "export ${name}='${value}'"])}
    export JENKINS_SECRETS=/etc/keyrack/secrets

    # wait_for WHAT COMMAND...: the address, the volume and the rights arrive while this boots.
    wait_for() {
      what=$1
      shift
      tries=0
      until "$@"; do
        tries=$((tries + 1))
        [ "$tries" -lt 60 ] || { echo "$what: still not there after 10 minutes. Then run $0 again." >&2; exit 1; }
        sleep 10
      done
    }
    fetch() {
      aws ssm get-parameters-by-path --region '${var.region}' --path '${local.parameters}/${role}' \
        --with-decryption --query 'Parameters[].[Name,Value]' --output json >"$JENKINS_SECRETS/.fetched"
    }
    # Nothing at all is for the message below.
    fetch_with_certificate() {
      fetch && { [ "$(cat "$JENKINS_SECRETS/.fetched")" = '[]' ] || grep -q '"${local.certificate}"' "$JENKINS_SECRETS/.fetched"; }
    }

    mkdir -p "$JENKINS_SECRETS"
    wait_for '${role == "agent" ? "${local.certificate}, which the controller writes once it has started" : "The parameters below ${local.parameters}/${role}"}' ${role == "agent" ? "fetch_with_certificate" : "fetch"}
    # A file each, named like the parameter: values may have many lines, and no process list shows them.
    python3 - "$JENKINS_SECRETS" <<'SPREAD'
    import json, pathlib, sys
    directory = pathlib.Path(sys.argv[1])
    fetched = json.loads((directory / ".fetched").read_text())
    if not fetched:
        sys.exit("There are no parameters below ${local.parameters}/${role}. README.md of deploy/terraform/jenkins lists them; store them, then run /opt/keyrack/boot.sh again.")
    for old in directory.iterdir():
        old.unlink()
    for name, value in fetched:
        (directory / name.rsplit("/", 1)[1]).write_text(value)
    SPREAD
    if [ -n "$${JENKINS_HOME_DEVICE:-}" ]; then
      wait_for "The home volume $JENKINS_HOME_DEVICE" test -e "$JENKINS_HOME_DEVICE"
    fi
    umask 022
    /opt/keyrack/scripts/install-docker.sh
    /opt/keyrack/scripts/install-jenkins.sh ${role}
    ${role == "controller" ? "aws ssm put-parameter --region '${var.region}' --name '${local.certificate}' --type String --overwrite --value file:///var/lib/jenkins/tls/certificate.pem >/dev/null" : ""}
    BOOT
  }

  user_data = { for role, files in {
    controller = concat(local.scripts, local.image)
    agent      = local.scripts
    } : role => base64gzip(join("\n", ["#cloud-config", yamlencode({
      write_files = concat(files, [{
        path        = "/opt/keyrack/boot.sh"
        permissions = "0700"
        content     = local.boot[role]
      }])
      runcmd = [["/opt/keyrack/boot.sh"]]
  })])) }
}

# --- The controller: an instance that can be thrown away, a home and an address that stay

resource "aws_ebs_volume" "home" {
  #checkov:skip=CKV_AWS_189:encrypted with the account's own EBS key; a key of its own would cost and have to outlive the snapshots
  availability_zone = local.zones[0]
  size              = var.home_size
  type              = "gp3"
  encrypted         = true

  tags = { Name = "${var.name}-jenkins-home", Backup = "${var.name}-jenkins-home" }
}

resource "aws_eip" "controller" {
  #checkov:skip=CKV2_AWS_19:aws_eip_association attaches it, so that it outlives the instance
  tags = { Name = "${var.name}-controller" }

  depends_on = [aws_internet_gateway.this]
}

resource "aws_instance" "controller" {
  #checkov:skip=CKV_AWS_126:metrics every five minutes are enough for a controller that runs no builds
  ami                    = local.ami
  instance_type          = var.controller_instance_type
  subnet_id              = aws_subnet.public[0].id
  private_ip             = local.controller_ip
  vpc_security_group_ids = [aws_security_group.controller.id]
  iam_instance_profile   = aws_iam_instance_profile.instance["controller"].name
  user_data_base64       = local.user_data["controller"]
  ebs_optimized          = true

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # containers on it are one hop further: they get no credentials
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = 30
    encrypted   = true
    tags        = merge(local.tags, { Name = "${var.name}-controller" })
  }

  tags = { Name = "${var.name}-controller" }

  lifecycle {
    # A newer image or script must not replace (3.39) or restart (6.x) a running controller by the
    # way: `terraform apply -replace=aws_instance.controller` does it when it suits.
    ignore_changes = [ami, user_data_base64]

    precondition {
      # EC2 takes 16 KiB; boot.sh, which is not known before the volume is, gets two of them.
      condition     = length(base64gzip(join("", [for file in concat(local.scripts, local.image) : file.content]))) * 3 / 4 <= 14336
      error_message = "The scripts and deploy/jenkins/ make more than 14 KiB of user data, compressed, and EC2 takes 16 KiB in all. Make them smaller, or let boot.sh fetch deploy/jenkins/."
    }
  }

  depends_on = [aws_iam_role_policy.instance, aws_route.public, aws_route_table_association.public]
}

resource "aws_eip_association" "controller" {
  instance_id   = aws_instance.controller.id
  allocation_id = aws_eip.controller.id
}

resource "aws_volume_attachment" "home" {
  device_name = "/dev/sdf"
  instance_id = aws_instance.controller.id
  volume_id   = aws_ebs_volume.home.id

  # A mounted volume does not let go.
  stop_instance_before_detaching = true
}

# --- Daily snapshots of the home. They outlive `terraform destroy`.

resource "aws_iam_role" "snapshots" {
  name               = "${var.name}-jenkins-snapshots"
  description        = "Data Lifecycle Manager, for snapshots of the controller's home"
  assume_role_policy = data.aws_iam_policy_document.assume["dlm"].json
}

data "aws_iam_policy_document" "snapshots" {
  statement {
    sid       = "Look"
    actions   = ["ec2:DescribeInstances", "ec2:DescribeSnapshots", "ec2:DescribeVolumes"]
    resources = ["*"] # these know no resources
  }

  statement {
    sid     = "Make"
    actions = ["ec2:CreateSnapshot"]
    resources = [
      aws_ebs_volume.home.arn,
      "arn:${data.aws_partition.this.partition}:ec2:${var.region}::snapshot/*",
    ]
  }

  statement {
    sid       = "Tag"
    actions   = ["ec2:CreateTags"]
    resources = ["arn:${data.aws_partition.this.partition}:ec2:${var.region}::snapshot/*"]

    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["CreateSnapshot"]
    }
  }

  statement {
    sid       = "DeleteOwn"
    actions   = ["ec2:DeleteSnapshot"]
    resources = ["arn:${data.aws_partition.this.partition}:ec2:${var.region}::snapshot/*"]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/Backup"
      values   = ["${var.name}-jenkins-home"]
    }
  }
}

resource "aws_iam_role_policy" "snapshots" {
  name   = "snapshots"
  role   = aws_iam_role.snapshots.id
  policy = data.aws_iam_policy_document.snapshots.json
}

resource "aws_dlm_lifecycle_policy" "home" {
  description        = "Daily snapshots of the home of ${var.name} Jenkins"
  execution_role_arn = aws_iam_role.snapshots.arn
  state              = "ENABLED"

  policy_details {
    resource_types = ["VOLUME"]
    target_tags    = { Backup = "${var.name}-jenkins-home" }

    schedule {
      name      = "daily"
      copy_tags = true

      create_rule {
        interval      = 24
        interval_unit = "HOURS"
        times         = ["03:00"]
      }

      retain_rule {
        count = var.snapshots_kept
      }
    }
  }
}

# --- The agent: nothing on it is worth keeping; the group replaces it when it dies

resource "aws_launch_template" "agent" {
  name                   = "${var.name}-agent"
  description            = "Jenkins agent"
  image_id               = local.ami
  instance_type          = var.agent_instance_type
  vpc_security_group_ids = [aws_security_group.agent.id]
  user_data              = local.user_data["agent"]
  ebs_optimized          = true
  update_default_version = true

  iam_instance_profile {
    name = aws_iam_instance_profile.instance["agent"].name
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # what a build runs in a container gets no credentials
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = var.agent_disk_size
      encrypted             = true
      delete_on_termination = true
    }
  }

  dynamic "tag_specifications" {
    for_each = ["instance", "volume"]

    content {
      resource_type = tag_specifications.value
      tags          = merge(local.tags, { Name = "${var.name}-agent" })
    }
  }

  tags = { Name = "${var.name}-agent" }
}

resource "aws_autoscaling_group" "agent" {
  name                = "${var.name}-agent"
  min_size            = 1
  max_size            = 1
  vpc_zone_identifier = aws_subnet.private[*].id

  launch_template {
    id      = aws_launch_template.agent.id
    version = aws_launch_template.agent.latest_version
  }

  dynamic "tag" {
    for_each = merge(local.tags, { Name = "${var.name}-agent" })

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = false # the template does
    }
  }

  # Its boot needs the way out, its own rights, and somebody to register with.
  depends_on = [
    aws_iam_role_policy.instance,
    aws_route.private,
    aws_route_table_association.private,
    aws_instance.controller,
  ]
}
