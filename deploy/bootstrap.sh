#!/usr/bin/env bash
# From an empty AWS account to a cluster that the pipeline deploys to and that gets traffic.
#
#   deploy/bootstrap.sh [STEP...]          say what would be done; nothing is changed
#   deploy/bootstrap.sh --yes [STEP...]    do it; Terraform shows its plan and asks before it builds
#
# Every step can be repeated: what is there already is kept. The steps, all in this order without STEP:
#   check       the tools, their versions, and whose account it is
#   state       a bucket for Terraform's state (only with STATE_BUCKET)
#   secrets     passwords and settings of Jenkins, into the parameter store
#   jenkins     network, controller and agent: deploy/terraform/jenkins
#   cluster     Kubernetes: deploy/terraform/cluster
#   namespaces  the namespaces, and what the agent may do in them
#   volumes     the class of volumes
#   balancers   the controller that makes a load balancer for an Ingress
#   autoscaler  the controller that adds and removes nodes
#   entrance    a load balancer for HOSTS, and the records that lead there
#   access      the cluster's address for the pipeline, and Jenkins is told
#
# Variables (a terraform.tfvars in a root does as well, where one is named):
#   AWS_REGION               [eu-central-1]
#   NAME                     the first part of every name; a second installation needs another  [keyrack]
#   ALLOWED_CIDRS            who may open Jenkins: 203.0.113.7/32,198.51.100.0/24    [of jenkins/]
#   DOMAIN                   name of Jenkins; without one, its address  [of jenkins/]
#   API_CIDRS                from where kubectl reaches the cluster, this machine among them  [of cluster/]
#   HOSTS, DNS_ZONE_ID       names for clients and their zone in Route 53; a certificate is made  [of cluster/]
#   STATE_BUCKET             a bucket for Terraform's state that several people share
#   ENVIRONMENTS             what this cluster is for  [staging,production]
#   APPROVE=yes              Terraform does not ask
#   ADMIN_PASSWORD, WEBHOOK_SECRET, AGENT_PASSWORD     made where they are missing
#   REPOSITORY_OWNER, REPOSITORY_NAME                  taken from the Git remote `origin` where they are missing
#   GITHUB_TOKEN, DOCKERHUB_USER, DOCKERHUB_TOKEN, NOTIFY_URL     at a terminal with --yes, asked for without echo
#   GITHUB_USER, DOCKERHUB_REGISTRY, DEVELOPER_name, PRODUCTION_APPROVERS, COSIGN_PRIVATE_KEY, COSIGN_PASSWORD,
#   TLS_CERTIFICATE, TLS_KEY                           stored where they are given: TLS_KEY="$(cat privkey.pem)"
# deploy/jenkins/README.md says what each secret is for. None is in a log, a list of processes, or a file that stays.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly LOAD_BALANCER_CHART=3.5.0 AUTOSCALER_CHART=9.56.0
readonly STEPS=(check state secrets jenkins cluster namespaces volumes balancers autoscaler entrance access)
readonly GENERATED=(ADMIN_PASSWORD WEBHOOK_SECRET AGENT_PASSWORD)
readonly ASKED=(GITHUB_TOKEN DOCKERHUB_USER DOCKERHUB_TOKEN NOTIFY_URL)
readonly GIVEN=(GITHUB_USER DOCKERHUB_REGISTRY PRODUCTION_APPROVERS COSIGN_PRIVATE_KEY COSIGN_PASSWORD TLS_CERTIFICATE TLS_KEY)

export AWS_REGION=${AWS_REGION:-eu-central-1} AWS_PAGER=""
export AWS_DEFAULT_REGION=$AWS_REGION # version 1 of the command line knows no other name
export NAME=${NAME:-keyrack}
parameters=/$NAME/jenkins
yes=no
private=$(umask 077 && mktemp -d)
trap 'rm -rf "$private"' EXIT

say() { printf '%s\n' "$*"; }

stop() { # what is wrong and what to do
  printf 'bootstrap: %s\n' "$*" >&2
  exit 2
}

run() { # the command, which is shown first; without --yes it is only shown
  printf '  %s\n' "$*"
  [ "$yes" = no ] || "$@"
}

with_document() { # command..., and what it is told as JSON on standard input
  # In a file of ours alone: every user sees the words of a command, and aws reads it more than once.
  cat >"$private/document"
  "$@" --cli-input-json "file://$private/document" >/dev/null
  rm "$private/document"
}

# --- check

minor_of() { # the minor version in a line such as v1.36.1
  sed -n 's/.*v\{0,1\}1\.\([0-9][0-9]*\).*/\1/p' <<<"$1" | head -n 1
}

follows() { # whether kubectl, at most one minor version away, fits the cluster's version
  local mine cluster=$1
  mine=$(kubectl version --client --output json | python3 -c 'import json, sys; print(json.load(sys.stdin)["clientVersion"]["gitVersion"])')
  local distance=$(($(minor_of "$mine") - $(minor_of "$cluster")))
  [ "${distance#-}" -le 1 ] ||
    stop "kubectl is $mine and the cluster $cluster: they may be one minor version apart. Install kubectl $cluster."
}

step_check() {
  local tool
  for tool in aws terraform kubectl helm python3 openssl; do
    command -v "$tool" >/dev/null || stop "the command $tool is missing on this machine. Nothing was changed."
  done
  terraform version -json | python3 -c '
import json, sys
sys.exit(tuple(map(int, json.load(sys.stdin)["terraform_version"].split("-")[0].split("."))) < (1, 10))' ||
    stop "Terraform is older than 1.10. Nothing was changed."
  case $(helm version --short) in
    v[34].*) ;;
    *) stop "Helm 3 or 4 is needed. Nothing was changed." ;;
  esac
  local account
  account=$(aws sts get-caller-identity --query '[Account,Arn]' --output text) ||
    stop "AWS does not know who you are. Log in (aws sso login, or AWS_PROFILE) as an administrator of the account. Nothing was changed."
  say "  account and user: $account"
  say "  region: $AWS_REGION"
}

# --- state

step_state() {
  [ -n "${STATE_BUCKET:-}" ] || {
    say "  STATE_BUCKET is not given: the state stays on this machine"
    return
  }
  if ! aws s3api head-bucket --bucket "$STATE_BUCKET" >/dev/null 2>&1; then
    local place=(--create-bucket-configuration "LocationConstraint=$AWS_REGION")
    [ "$AWS_REGION" != us-east-1 ] || place=() # the one region that does not want to be named
    run aws s3api create-bucket --bucket "$STATE_BUCKET" "${place[@]}"
  fi
  run aws s3api put-public-access-block --bucket "$STATE_BUCKET" --public-access-block-configuration \
    BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true
  run aws s3api put-bucket-versioning --bucket "$STATE_BUCKET" --versioning-configuration Status=Enabled
  say "  deploy/terraform/backend.hcl, and a backend_override.tf in each root"
  [ "$yes" = no ] || {
    sed "s/^bucket .*/bucket = \"$STATE_BUCKET\"/; s/^region .*/region = \"$AWS_REGION\"/" \
      deploy/terraform/backend.hcl.example >deploy/terraform/backend.hcl
    local root
    for root in jenkins cluster; do
      printf 'terraform {\n  backend "s3" {}\n}\n' >"deploy/terraform/$root/backend_override.tf"
    done
  }
}

# --- secrets

stored() { # the names of all parameters of Jenkins; their values stay where they are
  aws ssm get-parameters-by-path --recursive --path "$parameters" --query 'Parameters[].Name' --output text | tr '\t' '\n'
}

put() { # role/NAME, and the value on standard input
  say "  aws ssm put-parameter --type SecureString --overwrite --name $parameters/$1   (the value is not shown)"
  if [ "$yes" = no ]; then
    cat >/dev/null
    return
  fi
  python3 -c '
import json, sys
how = {"Type": "SecureString", "Overwrite": True, "Tier": "Intelligent-Tiering"} # 4 KiB cost nothing
json.dump(how | {"Name": sys.argv[1], "Value": sys.stdin.read()}, sys.stdout)' "$parameters/$1" |
    with_document aws ssm put-parameter
}

of_origin() { # owner or name of the repository on GitHub
  { git remote get-url origin 2>/dev/null || true; } | sed -nE "s#^.*github\.com[:/]([^/]+)/([^/]+)\$#\\$1#p" | sed 's/\.git$//'
}

step_secrets() {
  local there variable value
  there=$(stored)
  has() { grep -qxF "$parameters/$1" <<<"$there"; }
  for variable in "${GENERATED[@]}"; do
    if [ -z "${!variable:-}" ] && has "controller/$variable"; then
      say "  $variable is there"
      continue
    fi
    value=${!variable:-$(openssl rand -hex 16)}
    printf %s "$value" | put "controller/$variable"
    [ "$variable" != AGENT_PASSWORD ] || printf %s "$value" | put "agent/$variable"
  done
  for variable in REPOSITORY_OWNER REPOSITORY_NAME; do
    [ -n "${!variable:-}" ] || ! has "controller/$variable" || continue
    case $variable in
      REPOSITORY_OWNER) value=${!variable:-$(of_origin 1)} ;;
      *) value=${!variable:-$(of_origin 2)} ;;
    esac
    [ -n "$value" ] || stop "$variable is not given, and the Git remote origin is not on GitHub. Say it: $variable=... $0"
    printf %s "$value" | put "controller/$variable"
  done
  for variable in "${ASKED[@]}"; do
    value=${!variable:-}
    if [ -z "$value" ] && [ "$yes" = yes ] && [ -t 0 ] && ! has "controller/$variable"; then
      read -rsp "  $variable (empty: none): " value
      echo
    fi
    [ -z "$value" ] || printf %s "$value" | put "controller/$variable"
  done
  for variable in "${GIVEN[@]}" $(compgen -e DEVELOPER_ || true); do
    [ -z "${!variable:-}" ] || printf %s "${!variable}" | put "controller/$variable"
  done
}

# --- jenkins and cluster

given() { # root: what the variables of the environment say, for Terraform
  python3 - "$1" <<'PYTHON'
import json, os, sys
of = {
    "jenkins": {"allowed_cidrs": "ALLOWED_CIDRS"},
    "cluster": {"api_cidrs": "API_CIDRS", "hosts": "HOSTS"},
}[sys.argv[1]]
values = {"name": os.environ["NAME"]}
values |= {key: os.environ[name].split(",") for key, name in of.items() if os.environ.get(name)}
if sys.argv[1] == "jenkins":
    values["region"] = os.environ["AWS_REGION"]
    values |= {"domain": os.environ["DOMAIN"]} if os.environ.get("DOMAIN") else {}
elif os.environ.get("DNS_ZONE_ID"):
    values["dns_zone_id"] = os.environ["DNS_ZONE_ID"]
json.dump(values, sys.stdout, indent=2)
PYTHON
}

needs() { # root VARIABLE variable: that somebody has said it
  [ -n "${!2:-}" ] || grep -qs "^ *$3 *=" "deploy/terraform/$1/"*.tfvars || grep -qs "\"$3\"" "deploy/terraform/$1/"*.tfvars.json ||
    stop "$2 is not given. Say which networks: $2=203.0.113.7/32 $0 (or $3 in deploy/terraform/$1/terraform.tfvars)"
}

build() { # root: make what it describes
  local root=deploy/terraform/$1 backend=() approve=()
  [ ! -f deploy/terraform/backend.hcl ] || backend=(-backend-config=../backend.hcl "-backend-config=key=$NAME/$1.tfstate")
  [ "${APPROVE:-no}" != yes ] || approve=(-auto-approve)
  say "  $root/bootstrap.auto.tfvars.json: $(given "$1" | tr -d '\n')"
  [ "$yes" = no ] || given "$1" >"$root/bootstrap.auto.tfvars.json"
  run terraform -chdir="$root" init -input=false "${backend[@]}"
  run terraform -chdir="$root" apply "${approve[@]}"
}

step_jenkins() {
  needs jenkins ALLOWED_CIDRS allowed_cidrs
  build jenkins
}

step_cluster() {
  needs cluster API_CIDRS api_cidrs
  say "  deploy/terraform/cluster/jenkins.auto.tfvars.json, from the outputs of deploy/terraform/jenkins"
  [ "$yes" = no ] ||
    terraform -chdir=deploy/terraform/jenkins output -json cluster_inputs >deploy/terraform/cluster/jenkins.auto.tfvars.json
  build cluster
}

# --- in the cluster, as its administrator: whoever applied deploy/terraform/cluster

inputs=""

know_cluster() { # read what Terraform made, and let kubectl and helm reach it
  [ -z "$inputs" ] || return 0
  inputs=$(terraform -chdir=deploy/terraform/cluster output -json bootstrap_inputs 2>/dev/null) || inputs=""
  if [ -z "$inputs" ]; then
    [ "$yes" = no ] || stop "deploy/terraform/cluster is not built yet, or its state is not here. Run: $0 --yes cluster"
    inputs=$(python3 -c '
import json, os
names = ("region", "vpc_id", "cluster_name", "kubernetes_version", "deployers_group", "dns_zone_id")
known = {name: name.upper() for name in names} | {"namespaces": ["keyrack-staging", "keyrack-production"]}
print(json.dumps(known | {"hosts": list(filter(None, os.environ.get("HOSTS", "").split(",")))}))')
    say "  (the cluster is not built yet: its names are not known)"
  fi
  export KUBECONFIG=$private/kubeconfig
  run aws eks update-kubeconfig --name "$(of cluster_name)" --region "$(of region)" --kubeconfig "$KUBECONFIG"
  [ "$yes" = no ] || follows "$(of kubernetes_version)"
}

of() { # one of what is known of the cluster; lists with a line each
  python3 -c '
import json, sys
value = json.loads(sys.argv[1])[sys.argv[2]]
print("\n".join(value) if isinstance(value, list) else value)' "$inputs" "$1"
}

step_namespaces() {
  know_cluster
  local namespace
  for namespace in $(of namespaces); do
    say "  kubectl apply --filename deploy/cluster/namespace.yaml   (for $namespace)"
    [ "$yes" = no ] || sed "s/NAMESPACE/$namespace/g; s/GROUP/$(of deployers_group)/g" deploy/cluster/namespace.yaml |
      kubectl apply --filename -
  done
}

step_volumes() {
  know_cluster
  run kubectl apply --filename deploy/cluster/storage-class.yaml
}

step_balancers() {
  know_cluster
  run helm upgrade aws-load-balancer-controller aws-load-balancer-controller --install \
    --repo https://aws.github.io/eks-charts --version "$LOAD_BALANCER_CHART" --namespace kube-system \
    --values deploy/cluster/load-balancer-controller.yaml --set-string "clusterName=$(of cluster_name)" \
    --set-string "region=$(of region)" --set-string "vpcId=$(of vpc_id)" --wait --timeout 5m
}

step_autoscaler() {
  know_cluster
  run helm upgrade cluster-autoscaler cluster-autoscaler --install \
    --repo https://kubernetes.github.io/autoscaler --version "$AUTOSCALER_CHART" --namespace kube-system \
    --values deploy/cluster/cluster-autoscaler.yaml --set-string "autoDiscovery.clusterName=$(of cluster_name)" \
    --set-string "awsRegion=$(of region)" --wait --timeout 5m
}

# --- the way in for clients

point() { # host zone: make the host lead to the load balancer, with its zone
  python3 -c '
import json, sys
zone, host, balancer, of_balancer = sys.argv[1:]
alias = {"HostedZoneId": of_balancer, "DNSName": balancer, "EvaluateTargetHealth": False}
record = {"Name": host, "Type": "A", "AliasTarget": alias}
changes = {"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]}
json.dump({"HostedZoneId": zone, "ChangeBatch": changes}, sys.stdout)' \
    "$(of dns_zone_id)" "$1" "$2" "$3" |
    with_document aws route53 change-resource-record-sets
}

step_entrance() {
  know_cluster
  local host balancer zone hosts
  hosts=$(of hosts)
  [ -n "$hosts" ] || {
    say "  there are no hosts (HOSTS and DNS_ZONE_ID): no load balancer is made before an Ingress asks for one"
    return
  }
  say "  kubectl apply --filename deploy/cluster/entrance.yaml   (for ${hosts//$'\n'/, })"
  [ "$yes" = no ] || sed "s/HOSTS/[${hosts//$'\n'/, }]/" deploy/cluster/entrance.yaml | kubectl apply --filename -
  run kubectl --namespace keyrack-entrance wait ingress/entrance --timeout 5m \
    --for 'jsonpath={.status.loadBalancer.ingress[0].hostname}' ||
    stop "there is no load balancer after five minutes. kubectl --namespace keyrack-entrance describe ingress says why."
  for host in $hosts; do
    say "  aws route53 change-resource-record-sets: $host leads to the load balancer"
  done
  [ "$yes" = yes ] || return 0
  balancer=$(kubectl --namespace keyrack-entrance get ingress entrance \
    --output 'jsonpath={.status.loadBalancer.ingress[0].hostname}')
  zone=$(aws elbv2 describe-load-balancers --output text \
    --query "LoadBalancers[?DNSName=='$balancer'].CanonicalHostedZoneId")
  [ -n "$zone" ] || stop "$balancer is no load balancer of this account and region. Look at $0 check."
  for host in $hosts; do
    point "$host" "$balancer" "$zone"
  done
}

# --- the pipeline's way in

step_access() {
  local environment kubeconfig="" controller command
  if [ "$yes" = yes ]; then
    kubeconfig=$(terraform -chdir=deploy/terraform/cluster output -raw kubeconfig)
  fi
  for environment in ${ENVIRONMENTS:-staging production}; do
    printf %s "$kubeconfig" | put "controller/KUBECONFIG_${environment^^}"
  done
  if [ "$yes" = no ]; then
    say "  aws ssm send-command: /opt/keyrack/boot.sh on the controller"
    return
  fi
  controller=$(terraform -chdir=deploy/terraform/jenkins output -raw controller_instance_id)
  if command=$(aws ssm send-command --document-name AWS-RunShellScript --instance-ids "$controller" \
    --parameters commands=/opt/keyrack/boot.sh --query Command.CommandId --output text) &&
    aws ssm wait command-executed --command-id "$command" --instance-id "$controller"; then
    say "  Jenkins has them"
  else
    stop "the parameters are stored, but the controller did not take them. Do it there: aws ssm start-session --target $controller, then: sudo /opt/keyrack/boot.sh"
  fi
}

main() {
  local step chosen=()
  for step; do
    case $step in
      --yes) yes=yes ;;
      -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
        return
        ;;
      *)
        [[ " ${STEPS[*]} " = *" $step "* ]] || stop "there is no step '$step'. There are: ${STEPS[*]}"
        chosen+=("$step")
        ;;
    esac
  done
  ENVIRONMENTS=${ENVIRONMENTS//,/ }
  [ "${#chosen[@]}" -gt 0 ] || chosen=("${STEPS[@]}")
  for step in "${chosen[@]}"; do
    say "$step"
    "step_$step"
  done
  [ "$yes" = yes ] || say "Nothing was changed. To do it: $0 --yes${*:+ $*}"
}

ENVIRONMENTS=${ENVIRONMENTS:-staging,production}
main "$@"
