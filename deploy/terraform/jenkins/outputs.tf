output "jenkins_url" {
  description = "Where Jenkins answers, for the networks of allowed_cidrs. The address survives a stop and a new instance."
  value       = local.url
}

output "controller_address" {
  description = "The controller's public address, for the DNS record of domain."
  value       = aws_eip.controller.public_ip
}

output "controller_instance_id" {
  description = "The controller, for `aws ssm start-session --target`."
  value       = aws_instance.controller.id
}

output "home_volume_id" {
  description = "The volume with the controller's home; its snapshots carry the tag Backup."
  value       = aws_ebs_volume.home.id
}

output "agent_group_name" {
  description = "The auto-scaling group that keeps the agent alive."
  value       = aws_autoscaling_group.agent.name
}

output "parameter_paths" {
  description = "Parameter store paths: each parameter below becomes an environment variable of that role's set-up."
  value       = { for role in local.roles : role => "${local.parameters}/${role}" }
}

output "cluster_inputs" {
  description = "What deploy/terraform/cluster/ takes from here: save it there as jenkins.auto.tfvars.json."
  value = {
    region                  = var.region
    vpc_id                  = aws_vpc.this.id
    private_subnet_ids      = aws_subnet.private[*].id
    agent_role_arn          = aws_iam_role.instance["agent"].arn
    agent_security_group_id = aws_security_group.agent.id
  }
}
