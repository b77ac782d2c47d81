# The names under which clients find the service: a certificate for them, validated and renewed through
# DNS. The Ingress finds it by its host; the records that lead there are deploy/bootstrap.sh's (entrance).

resource "aws_acm_certificate" "this" {
  count = length(var.hosts) > 0 ? 1 : 0

  domain_name               = var.hosts[0]
  subject_alternative_names = slice(var.hosts, 1, length(var.hosts))
  validation_method         = "DNS"

  tags = { Name = var.name }

  lifecycle {
    # A load balancer lets go of a certificate only when it has another.
    create_before_destroy = true

    precondition {
      condition     = var.dns_zone_id != ""
      error_message = "hosts needs dns_zone_id, the zone of Route 53 in which the certificate is validated."
    }
  }
}

resource "aws_route53_record" "validation" {
  for_each = length(var.hosts) > 0 ? toset(var.hosts) : toset([])

  zone_id         = var.dns_zone_id
  name            = one([for option in aws_acm_certificate.this[0].domain_validation_options : option.resource_record_name if option.domain_name == each.key])
  type            = one([for option in aws_acm_certificate.this[0].domain_validation_options : option.resource_record_type if option.domain_name == each.key])
  records         = [for option in aws_acm_certificate.this[0].domain_validation_options : option.resource_record_value if option.domain_name == each.key]
  ttl             = 300
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "this" {
  count = length(var.hosts) > 0 ? 1 : 0

  certificate_arn         = aws_acm_certificate.this[0].arn
  validation_record_fqdns = [for record in aws_route53_record.validation : record.fqdn]
}
