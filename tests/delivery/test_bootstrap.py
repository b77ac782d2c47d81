"""deploy/bootstrap.sh with stubs of what it calls, and the files that it applies.

`make infra-test` runs this. No account and no cluster is needed or spoken to.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from delivery.infra_support import schema
from delivery.infra_support.roots import REPOSITORY, TERRAFORM

TOOLS = Path(os.environ.get("INFRA", REPOSITORY / ".delivery/infra"))
CLUSTER = REPOSITORY / "deploy/cluster"
SECRET = "s3cret-of-the-test"
INPUTS = {
    "region": "eu-central-1",
    "vpc_id": "vpc-1",
    "cluster_name": "keyrack",
    "kubernetes_version": "1.36",
    "namespaces": ["keyrack-staging", "keyrack-production"],
    "deployers_group": "keyrack-deployers",
    "dns_zone_id": "Z1",
    "hosts": ["keyrack.example.org"],
}
BALANCER = "k8s-keyrack-1.eu-central-1.elb.example.org"


SYSTEM = ("bash", "cat", "dirname", "git", "grep", "head", "mktemp", "openssl", "rm", "sed", "tr")


class Machine:
    """A copy of what the script reads and writes, and stubs of what it calls."""

    def __init__(self, directory: Path) -> None:
        self.repository = directory / "repository"
        ignored = shutil.ignore_patterns(
            ".terraform*", "*.tfstate*", "*.tfvars*", "*_override.tf", "backend.hcl"
        )
        shutil.copytree(REPOSITORY / "deploy", self.repository / "deploy", ignore=ignored)
        self.stubs = directory / "stubs"
        self.commands = directory / "bin"
        self.temporary = directory / "tmp"
        for folder in (self.stubs, self.commands, self.temporary):
            folder.mkdir()
        stub = (Path(__file__).parent / "infra_support/stub.py").read_text()
        for tool in ("aws", "terraform", "kubectl", "helm"):
            program = self.commands / tool
            program.write_text(f"#!{sys.executable} -IS\n{stub}")
            program.chmod(0o755)
        # No other program of this machine: it may have the ones that are to be missing.
        for tool in SYSTEM:
            found = shutil.which(tool)
            assert found, f"the tests need {tool}"
            (self.commands / tool).symlink_to(found)
        (self.commands / "python3").symlink_to(Path(sys.executable).resolve())
        self.rules: list[tuple[str, dict[str, Any]]] = []
        self.answer("^terraform version", '{"terraform_version": "1.11.4"}')
        self.answer("^helm version", "v4.2.3")
        self.answer("^kubectl version", '{"clientVersion": {"gitVersion": "v1.36.1"}}')
        self.answer("get-caller-identity", "123456789012 arn:aws:iam::123456789012:user/admin")
        self.answer("output -json bootstrap_inputs", json.dumps(INPUTS))
        self.answer("output -json cluster_inputs", '{"vpc_id": "vpc-1"}')
        self.answer("output -raw kubeconfig", "apiVersion: v1\nkind: Config\n")
        self.answer("output -raw controller_instance_id", "i-1")
        self.answer("send-command", "command-1")
        self.answer("describe-load-balancers", "ZBALANCER")
        self.answer("get ingress", BALANCER)
        self.variables = {"ALLOWED_CIDRS": "203.0.113.7/32", "API_CIDRS": "203.0.113.7/32"}
        self.variables |= {"REPOSITORY_OWNER": "example", "REPOSITORY_NAME": "keyrack"}

    def answer(self, pattern: str, stdout: str = "", **answer: Any) -> None:
        """Let the calls that have the pattern be answered so; later rules come first."""
        self.rules.insert(0, (pattern, {"stdout": stdout} | answer))

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        (self.stubs / "rules.json").write_text(json.dumps(self.rules))
        (self.stubs / "calls.jsonl").write_text("")
        environment = {"PATH": str(self.commands), "STUBS": str(self.stubs)}
        environment |= {"HOME": str(self.stubs), "TMPDIR": str(self.temporary)}
        return subprocess.run(
            [self.repository / "deploy/bootstrap.sh", *arguments],
            env=environment | self.variables | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def calls(self, pattern: str = "") -> list[str]:
        return [each["call"] for each in self._noted() if re.search(pattern, each["call"])]

    def stored(self) -> dict[str, str]:
        """The parameters that were put, by the last two parts of their names."""
        documents = [
            json.loads(each["read"]) for each in self._noted() if "put-parameter" in each["call"]
        ]
        return {
            document["Name"].removeprefix("/keyrack/jenkins/"): document["Value"]
            for document in documents
            if document["Type"] == "SecureString"
        }

    def regions(self) -> set[str]:
        """The regions that the calls of aws were told by the environment."""
        return {each["region"] for each in self._noted() if each["call"].startswith("aws ")}

    def read(self, pattern: str) -> str:
        """What a call read."""
        return next(each["read"] for each in self._noted() if re.search(pattern, each["call"]))

    def all_read(self, pattern: str) -> list[str]:
        return [each["read"] for each in self._noted() if re.search(pattern, each["call"])]

    def files(self) -> set[str]:
        return {
            str(path.relative_to(self.repository))
            for path in self.repository.rglob("*")
            if path.is_file()
        }

    def _noted(self) -> list[dict[str, str]]:
        lines = (self.stubs / "calls.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


CHANGES = "put-|create-bucket|apply|upgrade|send-command|change-resource|init|update-kubeconfig"


# What it says, and what it does


def test_without_yes_nothing_is_changed_and_everything_is_said(machine: Machine) -> None:
    machine.answer("head-bucket", status=1)
    before = machine.files()
    done = machine.run(STATE_BUCKET="bucket", ADMIN_PASSWORD=SECRET)
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.calls(CHANGES) == []
    assert machine.files() == before
    assert "Nothing was changed. To do it: " in done.stdout
    for said in ("s3api create-bucket", "put-parameter", "terraform/jenkins apply", "boot.sh"):
        assert said in done.stdout
    for said in ("cluster apply", "namespace.yaml", "storage-class", "load-balancer", "autoscaler"):
        assert said in done.stdout


def test_with_yes_the_steps_are_done_in_order(machine: Machine) -> None:
    done = machine.run("--yes")
    assert done.returncode == 0, done.stderr
    order = [
        "get-caller-identity",
        "controller/ADMIN_PASSWORD|put-parameter",
        "terraform/jenkins apply",
        "terraform/jenkins output -json cluster_inputs",
        "terraform/cluster apply",
        "update-kubeconfig",
        "kubectl apply --filename -$",
        "storage-class.yaml",
        "helm upgrade aws-load-balancer-controller",
        "helm upgrade cluster-autoscaler",
        "kubectl .* wait ingress/entrance",
        "change-resource-record-sets",
        "send-command",
    ]
    calls = machine.calls()
    found = [next(n for n, call in enumerate(calls) if re.search(each, call)) for each in order]
    assert found == sorted(found)


def test_every_version_of_the_aws_command_line_is_told_the_region(machine: Machine) -> None:
    machine.run("--yes", "check", "secrets", AWS_REGION="eu-west-1")
    assert machine.regions() == {"eu-west-1"}


def test_one_step_can_be_done_alone(machine: Machine) -> None:
    done = machine.run("--yes", "volumes")
    assert done.returncode == 0, done.stderr
    assert machine.calls("apply") == ["kubectl apply --filename deploy/cluster/storage-class.yaml"]


def test_a_step_that_does_not_exist_is_refused_with_those_that_do(machine: Machine) -> None:
    done = machine.run("--yes", "everything")
    assert done.returncode == 2
    assert "there is no step 'everything'. There are: check state secrets" in done.stderr
    assert machine.calls() == []


def test_its_help_names_every_step_and_variable(machine: Machine) -> None:
    done = machine.run("--help")
    script = (REPOSITORY / "deploy/bootstrap.sh").read_text()
    steps = re.search(r"STEPS=\((.*)\)", script)
    assert steps
    for step in steps[1].split():
        assert re.search(rf"^  {step} ", done.stdout, re.MULTILINE), step
    assert "ALLOWED_CIDRS" in done.stdout
    assert "set -euo" not in done.stdout


# Secrets


def test_no_secret_is_in_the_output_or_in_the_words_of_a_command(machine: Machine) -> None:
    given = {"ADMIN_PASSWORD": SECRET, "GITHUB_TOKEN": SECRET, "DOCKERHUB_TOKEN": SECRET}
    given |= {"DEVELOPER_jo": SECRET, "TLS_KEY": SECRET, "COSIGN_PRIVATE_KEY": SECRET}
    done = machine.run("--yes", **given)
    stored = machine.stored()
    assert {stored[f"controller/{name}"] for name in given} == {SECRET}
    secrets = {SECRET, stored["controller/WEBHOOK_SECRET"], stored["agent/AGENT_PASSWORD"]}
    for secret in secrets:
        assert secret not in done.stdout + done.stderr
        assert not any(secret in call for call in machine.calls())
    assert list(machine.temporary.iterdir()) == []
    for path in machine.files():
        assert not any(s in (machine.repository / path).read_text("latin-1") for s in secrets)


def test_every_secret_of_the_controller_can_be_stored() -> None:
    script = (REPOSITORY / "deploy/bootstrap.sh").read_text()
    readme = (REPOSITORY / "deploy/jenkins/README.md").read_text()
    table = re.findall(r"^\| `([A-Z][A-Z_]+)(?:name)?` \| ", readme, re.MULTILINE)
    assert len(table) > 15
    made = {"JENKINS_URL"}  # by Terraform
    made |= {f"KUBECONFIG_{name}" for name in ("STAGING", "PRODUCTION")}  # by the step access
    assert [name for name in table if name not in script and name not in made] == []


def test_passwords_that_are_missing_are_made_and_each_is_another(machine: Machine) -> None:
    machine.run("--yes", "secrets")
    stored = machine.stored()
    assert stored["agent/AGENT_PASSWORD"] == stored["controller/AGENT_PASSWORD"]
    made = [stored[f"controller/{n}_PASSWORD"] for n in ("ADMIN", "AGENT")]
    made.append(stored["controller/WEBHOOK_SECRET"])
    assert len(set(made)) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in made)


def test_passwords_that_are_there_are_kept(machine: Machine) -> None:
    names = ["ADMIN_PASSWORD", "AGENT_PASSWORD", "WEBHOOK_SECRET", "REPOSITORY_OWNER"]
    there = [f"/keyrack/jenkins/controller/{name}" for name in [*names, "REPOSITORY_NAME"]]
    machine.answer("get-parameters-by-path", "\t".join(there))
    machine.variables |= {"REPOSITORY_OWNER": "", "REPOSITORY_NAME": ""}
    machine.run("--yes", "secrets")
    assert machine.stored() == {}
    machine.run("--yes", "secrets", ADMIN_PASSWORD=SECRET)
    assert machine.stored() == {"controller/ADMIN_PASSWORD": SECRET}


@pytest.mark.parametrize(
    "remote", ["git@github.com:example/keyrack.git", "https://github.com/example/keyrack"]
)
def test_the_repository_is_that_of_the_remote_origin(machine: Machine, remote: str) -> None:
    git = ["git", "-C", str(machine.repository)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "remote", "add", "origin", remote], check=True)
    machine.run("--yes", "secrets", REPOSITORY_OWNER="", REPOSITORY_NAME="")
    stored = machine.stored()
    assert stored["controller/REPOSITORY_OWNER"] == "example"
    assert stored["controller/REPOSITORY_NAME"] == "keyrack"


def test_a_repository_that_is_nowhere_else_is_asked_for(machine: Machine) -> None:
    done = machine.run("--yes", "secrets", REPOSITORY_OWNER="")
    assert done.returncode == 2
    assert "REPOSITORY_OWNER is not given" in done.stderr


# Terraform


def test_what_is_given_goes_into_the_roots_and_nothing_else_does(machine: Machine) -> None:
    machine.run(
        "--yes",
        "jenkins",
        "cluster",
        HOSTS="a.example.org,b.example.org",
        DNS_ZONE_ID="Z1",
        DOMAIN="ci.example.org",
    )
    written = {
        root: json.loads(
            (machine.repository / TERRAFORM / root / "bootstrap.auto.tfvars.json").read_text()
        )
        for root in ("jenkins", "cluster")
    }
    networks = ["203.0.113.7/32"]
    assert written["jenkins"] == {
        "name": "keyrack",
        "allowed_cidrs": networks,
        "region": "eu-central-1",
        "domain": "ci.example.org",
    }
    hosts = ["a.example.org", "b.example.org"]
    assert written["cluster"] == {
        "name": "keyrack",
        "api_cidrs": networks,
        "hosts": hosts,
        "dns_zone_id": "Z1",
    }
    inputs = machine.repository / TERRAFORM / "cluster/jenkins.auto.tfvars.json"
    assert json.loads(inputs.read_text()) == {"vpc_id": "vpc-1"}
    for root, values in written.items():
        blocks = schema.parse(REPOSITORY / TERRAFORM / root / "variables.tf")["variable"]
        assert values.keys() <= {name for name, _ in schema.labelled(blocks, 1)}


def test_terraform_asks_before_it_builds_unless_told_not_to(machine: Machine) -> None:
    machine.run("--yes", "jenkins")
    assert machine.calls(" apply") == ["terraform -chdir=deploy/terraform/jenkins apply"]
    machine.run("--yes", "jenkins", APPROVE="yes")
    (call,) = machine.calls(" apply")
    assert call.endswith("apply -auto-approve")


@pytest.mark.parametrize(
    ("root", "variable", "setting"),
    [("jenkins", "ALLOWED_CIDRS", "allowed_cidrs"), ("cluster", "API_CIDRS", "api_cidrs")],
)
def test_networks_have_no_default_but_may_be_in_a_file(
    machine: Machine, root: str, variable: str, setting: str
) -> None:
    done = machine.run("--yes", root, **{variable: ""})
    assert done.returncode == 2
    assert f"{variable} is not given. Say which networks" in done.stderr
    file = machine.repository / TERRAFORM / root / "terraform.tfvars"
    file.write_text(f'{setting} = ["203.0.113.7/32"]\n')
    assert machine.run("--yes", root, **{variable: ""}).returncode == 0


def test_a_bucket_for_the_state_is_closed_versioned_and_used(machine: Machine) -> None:
    machine.answer("head-bucket", status=1)
    machine.run("--yes", "state", "jenkins", STATE_BUCKET="bucket")
    created, closed, versioned = machine.calls("s3api (create|put)")
    assert "--create-bucket-configuration LocationConstraint=eu-central-1" in created
    assert "RestrictPublicBuckets=true" in closed
    assert "Status=Enabled" in versioned
    settings = (machine.repository / TERRAFORM / "backend.hcl").read_text()
    assert 'bucket = "bucket"' in settings
    assert "use_lockfile = true" in settings
    (init,) = machine.calls(" init")
    assert "-backend-config=../backend.hcl -backend-config=key=keyrack/jenkins.tfstate" in init


def test_a_bucket_that_is_there_is_not_made_again(machine: Machine) -> None:
    machine.run("--yes", "state", STATE_BUCKET="bucket")
    assert machine.calls("create-bucket") == []


def test_a_bucket_in_the_region_without_a_name_is_made_without(machine: Machine) -> None:
    machine.answer("head-bucket", status=1)
    machine.run("--yes", "state", STATE_BUCKET="bucket", AWS_REGION="us-east-1")
    (created,) = machine.calls("create-bucket")
    assert "LocationConstraint" not in created


# In the cluster


def test_each_namespace_is_made_with_its_rights(machine: Machine) -> None:
    machine.run("--yes", "namespaces")
    applied = [list(yaml.safe_load_all(each)) for each in machine.all_read("apply --filename -$")]
    assert [objects[0]["metadata"]["name"] for objects in applied] == INPUTS["namespaces"]
    for namespace, _, binding in applied:
        assert namespace["kind"] == "Namespace"
        labels = namespace["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        assert binding["metadata"]["namespace"] == namespace["metadata"]["name"]
        assert [(each["kind"], each["name"]) for each in binding["subjects"]] == [
            ("Group", "keyrack-deployers")
        ]


def test_the_agent_has_no_right_outside_of_its_namespaces() -> None:
    objects = [
        each
        for file in CLUSTER.glob("*.yaml")
        for each in yaml.safe_load_all(file.read_text())
        if each.get("kind")
    ]
    assert not [each for each in objects if each["kind"].startswith("Cluster")]
    (role,) = [each for each in objects if each["kind"] == "Role"]
    for rule in role["rules"]:
        assert "*" not in rule["apiGroups"] + rule["resources"] + rule["verbs"]
        assert not {"secrets", "roles", "rolebindings"} & set(rule["resources"])
    deploy = (REPOSITORY / "scripts/pipeline-deploy.sh").read_text()
    assert "create-namespace" not in deploy


def test_the_class_of_volumes_is_the_default_encrypted_and_grows() -> None:
    (found,) = yaml.safe_load_all((CLUSTER / "storage-class.yaml").read_text())
    annotations = found["metadata"]["annotations"]
    assert annotations["storageclass.kubernetes.io/is-default-class"] == "true"
    assert found["provisioner"] == "ebs.csi.aws.com"
    assert found["parameters"] == {"type": "gp3", "encrypted": "true"}
    assert found["allowVolumeExpansion"] is True
    assert found["volumeBindingMode"] == "WaitForFirstConsumer"


def test_controllers_get_what_they_cannot_ask_the_node_for(machine: Machine) -> None:
    machine.run("--yes", "balancers", "autoscaler")
    balancers, autoscaler = machine.calls("helm upgrade")
    for said in ("clusterName=keyrack", "region=eu-central-1", "vpcId=vpc-1", "--version 3."):
        assert said in balancers
    for said in ("autoDiscovery.clusterName=keyrack", "awsRegion=eu-central-1", "--version 9."):
        assert said in autoscaler


def test_controllers_use_the_accounts_that_have_the_roles() -> None:
    pods = (REPOSITORY / TERRAFORM / "cluster/pods.tf").read_text()
    accounts = re.findall(r'= \{ account = "([\w-]+)"', pods)
    balancers = yaml.safe_load((CLUSTER / "load-balancer-controller.yaml").read_text())
    autoscaler = yaml.safe_load((CLUSTER / "cluster-autoscaler.yaml").read_text())
    used = [balancers["serviceAccount"]["name"], autoscaler["rbac"]["serviceAccount"]["name"]]
    assert accounts == ["ebs-csi-controller-sa", *used]
    off = [balancers[f"enable{name}"] for name in ("Shield", "Waf", "Wafv2")]
    assert off == [False] * 3  # the role has no right to them


def test_only_ingresses_of_the_deployed_namespaces_get_a_load_balancer() -> None:
    balancers = yaml.safe_load((CLUSTER / "load-balancer-controller.yaml").read_text())
    namespace = next(yaml.safe_load_all((CLUSTER / "namespace.yaml").read_text()))
    wanted = balancers["ingressClassParams"]["spec"]["namespaceSelector"]["matchLabels"]
    assert wanted.items() <= namespace["metadata"]["labels"].items()


def test_the_autoscaler_is_of_the_clusters_version() -> None:
    variables = schema.parse(REPOSITORY / TERRAFORM / "cluster/variables.tf")["variable"]
    version = dict(schema.labelled(variables, 1))["kubernetes_version"]["default"].strip('"')
    autoscaler = yaml.safe_load((CLUSTER / "cluster-autoscaler.yaml").read_text())
    assert autoscaler["image"]["tag"].startswith(f"v{version}.")


@pytest.mark.parametrize(
    ("kubectl", "fits"), [("v1.35.9", True), ("v1.37.0", True), ("v1.34.1", False)]
)
def test_a_kubectl_that_is_too_old_for_the_cluster_changes_nothing(
    machine: Machine, kubectl: str, fits: bool
) -> None:
    machine.answer("^kubectl version", f'{{"clientVersion": {{"gitVersion": "{kubectl}"}}}}')
    done = machine.run("--yes", "volumes")
    assert (done.returncode == 0) is fits
    assert bool(machine.calls("kubectl apply")) is fits
    if not fits:
        assert f"kubectl is {kubectl} and the cluster 1.36" in done.stderr


def test_a_cluster_that_is_not_there_yet_is_named(machine: Machine) -> None:
    machine.answer("output -json bootstrap_inputs", status=1)
    done = machine.run("--yes", "volumes")
    assert done.returncode == 2
    assert "deploy/terraform/cluster is not built yet" in done.stderr


def test_of_a_cluster_that_is_not_there_yet_everything_is_said(machine: Machine) -> None:
    machine.answer("output -json bootstrap_inputs", status=1)
    done = machine.run(HOSTS="a.example.org,b.example.org")
    assert (done.returncode, done.stderr) == (0, "")
    assert "entrance.yaml   (for a.example.org, b.example.org)" in done.stdout
    assert "namespace.yaml   (for keyrack-staging)" in done.stdout
    assert "clusterName=CLUSTER_NAME" in done.stdout


# The pipeline's way in, and the names


@pytest.mark.parametrize(
    ("environments", "stored"),
    [("", {"STAGING", "PRODUCTION"}), ("production", {"PRODUCTION"})],
)
def test_the_pipeline_gets_the_way_into_the_cluster(
    machine: Machine, environments: str, stored: set[str]
) -> None:
    machine.run("--yes", "access", ENVIRONMENTS=environments)
    assert set(machine.stored()) == {f"controller/KUBECONFIG_{name}" for name in stored}
    assert set(machine.stored().values()) == {"apiVersion: v1\nkind: Config"}
    (sent,) = machine.calls("send-command")
    assert "--instance-ids i-1" in sent


def test_a_controller_that_does_not_answer_is_said_with_what_to_do(machine: Machine) -> None:
    machine.answer("ssm wait", status=255)
    done = machine.run("--yes", "access")
    assert done.returncode == 2
    assert "aws ssm start-session --target i-1" in done.stderr


def test_hosts_lead_to_one_load_balancer_before_anything_is_deployed(machine: Machine) -> None:
    hosts = ["keyrack.example.org", "keyrack-staging.example.org"]
    machine.answer("output -json bootstrap_inputs", json.dumps(INPUTS | {"hosts": hosts}))
    assert machine.run("--yes", "entrance").returncode == 0
    _, entrance = yaml.safe_load_all(machine.read("apply --filename -$"))
    assert entrance["spec"]["tls"] == [{"hosts": hosts}]
    (waited,) = machine.calls("kubectl .* wait")
    assert waited.endswith("--for jsonpath={.status.loadBalancer.ingress[0].hostname}")
    asked = [json.loads(each) for each in machine.all_read("change-resource-record-sets")]
    changes = [each["ChangeBatch"]["Changes"][0] for each in asked]
    assert [each["HostedZoneId"] for each in asked] == ["Z1", "Z1"]
    assert [each["Action"] for each in changes] == ["UPSERT", "UPSERT"]
    records = [each["ResourceRecordSet"] for each in changes]
    assert [(record["Name"], record["Type"]) for record in records] == [(h, "A") for h in hosts]
    for record in records:
        assert record["AliasTarget"]["DNSName"] == BALANCER
        assert record["AliasTarget"]["HostedZoneId"] == "ZBALANCER"


def test_without_hosts_there_is_no_entrance(machine: Machine) -> None:
    machine.answer("output -json bootstrap_inputs", json.dumps(INPUTS | {"hosts": []}))
    done = machine.run("--yes", "entrance")
    assert done.returncode == 0
    assert "there are no hosts" in done.stdout
    assert machine.calls("kubectl apply|change-resource") == []


def test_a_load_balancer_that_does_not_come_is_said_with_where_to_look(machine: Machine) -> None:
    machine.answer("kubectl .* wait", status=1)
    done = machine.run("--yes", "entrance")
    assert done.returncode == 2
    assert "describe ingress says why" in done.stderr
    assert machine.calls("change-resource") == []


def test_the_entrance_is_the_load_balancer_of_all_releases() -> None:
    controller = yaml.safe_load((CLUSTER / "load-balancer-controller.yaml").read_text())
    namespace, entrance = yaml.safe_load_all((CLUSTER / "entrance.yaml").read_text())
    example = yaml.safe_load((CLUSTER / "example-values.yaml").read_text())["ingress"]
    params = controller["ingressClassParams"]["spec"]
    wanted = params["namespaceSelector"]["matchLabels"]
    assert wanted.items() <= namespace["metadata"]["labels"].items()
    assert params["group"] == {"name": "keyrack"}
    annotations = entrance["metadata"]["annotations"]
    prefix = "alb.ingress.kubernetes.io"
    for each in (annotations, example["annotations"]):
        assert json.loads(each[f"{prefix}/listen-ports"]) == [{"HTTPS": 443}]
        # The class says these, for all.
        assert not {f"{prefix}/{name}" for name in ("group.name", "scheme", "target-type")} & {
            *each
        }
    assert (
        entrance["spec"]["ingressClassName"] == example["className"] == controller["ingressClass"]
    )
    backend = entrance["spec"]["defaultBackend"]["service"]
    assert backend["port"] == {"name": "use-annotation"}
    answer = json.loads(annotations[f"{prefix}/actions.{backend['name']}"])
    assert answer["fixedResponseConfig"]["statusCode"] == "404"
    assert "order" not in example
    assert int(annotations[f"{prefix}/group.order"]) == 1000


# Refusals before anything is changed


@pytest.mark.parametrize(
    ("pattern", "answer", "sentence"),
    [
        ("^terraform version", {"stdout": '{"terraform_version": "1.9.8"}'}, "older than 1.10"),
        ("^helm version", {"stdout": "v2.17.0"}, "Helm 3 or 4 is needed"),
        ("get-caller-identity", {"status": 255}, "AWS does not know who you are"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_changed(
    machine: Machine, pattern: str, answer: dict[str, Any], sentence: str
) -> None:
    machine.answer(pattern, **answer)
    done = machine.run("--yes")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert machine.calls(CHANGES) == []


def test_a_missing_command_is_named(machine: Machine) -> None:
    (machine.commands / "helm").unlink()
    done = machine.run("--yes")
    assert done.returncode == 2
    assert "the command helm is missing on this machine" in done.stderr
    assert machine.calls(CHANGES) == []


def test_the_script_is_clean() -> None:
    command = [TOOLS / "venv/bin/shellcheck", REPOSITORY / "deploy/bootstrap.sh"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
