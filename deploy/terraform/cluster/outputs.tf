output "cluster_name" {
  description = "The cluster, for `aws eks update-kubeconfig --name`."
  value       = aws_eks_cluster.this.name
}

output "cluster_endpoint" {
  description = "Address of the cluster's API."
  value       = aws_eks_cluster.this.endpoint
}

output "node_group_names" {
  description = "The managed node groups, one in each zone."
  value       = [for group in aws_eks_node_group.this : group.node_group_name]
}

output "deploy_namespaces" {
  description = "Namespaces in which the agent may deploy."
  value       = var.deploy_namespaces
}

output "bootstrap_inputs" {
  description = "What deploy/bootstrap.sh needs to know of the cluster."
  value = {
    region             = var.region
    vpc_id             = var.vpc_id
    cluster_name       = aws_eks_cluster.this.name
    kubernetes_version = var.kubernetes_version
    namespaces         = var.deploy_namespaces
    deployers_group    = local.deployers
    dns_zone_id        = var.dns_zone_id
    hosts              = var.hosts
  }
}

output "kubeconfig" {
  description = "A kubeconfig without secrets: whoever uses it needs the aws command and a role that the cluster lets in. It is what the pipeline takes as KUBECONFIG_STAGING or KUBECONFIG_PRODUCTION."
  value = yamlencode({
    apiVersion      = "v1"
    kind            = "Config"
    current-context = var.name

    clusters = [{
      name = var.name
      cluster = {
        server                     = aws_eks_cluster.this.endpoint
        certificate-authority-data = aws_eks_cluster.this.certificate_authority[0].data
      }
    }]

    contexts = [{
      name    = var.name
      context = { cluster = var.name, user = var.name, namespace = var.deploy_namespaces[0] }
    }]

    users = [{
      name = var.name
      user = {
        exec = {
          apiVersion         = "client.authentication.k8s.io/v1beta1"
          command            = "aws"
          args               = ["eks", "get-token", "--region", var.region, "--cluster-name", var.name]
          interactiveMode    = "Never"
          provideClusterInfo = false
        }
      }
    }]
  })
}
