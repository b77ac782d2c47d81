"""What the infrastructure tests stand on: copies of the roots, Terraform, a cloud on loopback."""
