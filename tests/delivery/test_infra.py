"""The Terraform roots: their form, their refusals, and their life in a cloud on loopback.

`make infra-test` brings what is needed and runs this. No AWS account is needed or spoken to.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shutil
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import yaml
from delivery.infra_support import cloud, schema
from delivery.infra_support.roots import (
    BEYOND,
    FILES,
    MADE,
    REPOSITORY,
    ROOTS,
    TERRAFORM,
    block,
    copy,
    source_of,
)
from delivery.infra_support.terraform import (
    Root,
    Run,
    mirror,
    override,
    pretended_provider,
    unpack_provider,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOLS = Path(os.environ.get("INFRA", REPOSITORY / ".delivery/infra"))
WHEELS = TOOLS / "providers"
PEOPLE = ["203.0.113.7/32", "198.51.100.0/24"]
GIVEN: dict[str, Any] = {"allowed_cidrs": PEOPLE, "tags": {"team": "storage"}}
REGION = "eu-central-1"


# A cloud, and the two roots in it, built in the background while the tests run that need none.


@dataclass
class World:
    """The roots' copies, how their steps ended, and the cloud that they are in."""

    directory: Path
    settings: Path
    address: str
    snapshots: cloud.Snapshots
    steps: dict[tuple[str, str], Run] = field(default_factory=dict)

    def root(self, name: str) -> Root:
        return Root(self.directory / TERRAFORM / name, self.settings)

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.address,
            region_name=REGION,
            aws_access_key_id="loopback",
            aws_secret_access_key="loopback",
        )

    def build(self) -> None:
        """Both roots, in order, each with a second plan; the second takes the first's outputs."""
        self._steps("jenkins")
        inputs = self.root("jenkins").outputs()["cluster_inputs"]
        variables = self.directory / TERRAFORM / "cluster/jenkins.auto.tfvars.json"
        variables.write_text(json.dumps(inputs))
        self._steps("cluster")

    def _steps(self, name: str) -> None:
        root = self.root(name)
        for step, act in {
            "validate": lambda: root.run("validate", "-no-color"),
            "plan": lambda: root.plan(**variables_of(name)),
            "apply": lambda: root.apply(**variables_of(name)),
            "second plan": lambda: root.plan(**variables_of(name)),
        }.items():
            self.steps[name, step] = act()
            if self.steps[name, step].code == 1:
                raise AssertionError(f"{step} of {name}: {self.steps[name, step].output}")


def variables_of(name: str) -> dict[str, Any]:
    return GIVEN if name == "jenkins" else {"tags": GIVEN["tags"]}


@pytest.fixture(scope="session")
def provider() -> Path:
    return unpack_provider(WHEELS)


@pytest.fixture(scope="session", autouse=True)
def building(tmp_path_factory: pytest.TempPathFactory, provider: Path) -> Iterator[Future[World]]:
    directory = tmp_path_factory.mktemp("world")
    with (
        cloud.moto(directory / "moto.log") as address,
        cloud.snapshots() as snapshots,
        ThreadPoolExecutor(1) as background,
    ):
        settings = override(directory, provider)
        copy(directory, address, f"http://127.0.0.1:{snapshots.server_port}")
        world = World(directory, settings, address, snapshots)
        yield background.submit(lambda: world.build() or world)


@pytest.fixture(scope="session")
def world(building: Future[World]) -> World:
    return building.result()


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory, provider: Path) -> dict[str, Root]:
    """Other copies, never applied, whose cloud is not there at all."""
    directory = tmp_path_factory.mktemp("untouched")
    copy(directory, "http://127.0.0.1:9", "http://127.0.0.1:9")
    settings = override(directory, provider)
    return {name: Root(directory / TERRAFORM / name, settings) for name in ROOTS}


# Form


@pytest.mark.parametrize("root", ROOTS)
def test_a_root_has_its_files_and_no_other(root: str) -> None:
    found = {path.name for path in (REPOSITORY / TERRAFORM / root).iterdir()}
    kept = {name for name in found if not name.startswith((".terraform", "terraform."))}
    made = {"backend_override.tf", "jenkins.auto.tfvars.json", "bootstrap.auto.tfvars.json"}
    assert kept - made == FILES[root]


def test_the_roots_are_formatted() -> None:
    command = ["terraform", "fmt", "-check", "-diff", "-recursive", str(REPOSITORY / TERRAFORM)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), "run: make infra-fmt"


@pytest.mark.parametrize("root", ROOTS)
def test_every_variable_is_typed_described_and_validated(root: str) -> None:
    variables = schema.parse(REPOSITORY / TERRAFORM / root / "variables.tf")["variable"]
    found = dict(schema.labelled(variables, labels=1))
    assert found
    for name, body in found.items():
        assert {"type", "description", "validation"} <= body.keys(), name
        assert body["type"] != "any", name


@pytest.mark.parametrize("root", ROOTS)
def test_every_output_is_described(root: str) -> None:
    outputs = schema.parse(REPOSITORY / TERRAFORM / root / "outputs.tf")["output"]
    found = dict(schema.labelled(outputs, labels=1))
    assert found
    assert [name for name, body in found.items() if len(body.get("description", "")) < 20] == []


@pytest.mark.parametrize("root", ROOTS)
def test_the_readme_has_what_an_operator_needs(root: str) -> None:
    readme = (REPOSITORY / TERRAFORM / root / "README.md").read_text()
    headings = re.findall(r"^## (.+)$", readme, re.MULTILINE)
    assert headings == ["What", "Run", "Verify", "Cost", "Undo", "Provider versions", "Limits"]
    variables = schema.parse(REPOSITORY / TERRAFORM / root / "variables.tf")["variable"]
    missing = [name for name, _ in schema.labelled(variables, 1) if f"`{name}`" not in readme]
    assert missing == []


# The provider: 3.39, with which all of this runs, and 6.x, for which it is written


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize(
    ("version", "admitted"),
    [("3.39.0", False), ("5.100.0", False), ("6.0.0", True), ("6.25.0", True), ("7.0.0", False)],
)
def test_init_takes_the_provider_versions_of_the_readme(
    root: str, version: str, admitted: bool, tmp_path: Path
) -> None:
    directory = tmp_path / root
    ignored = shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars*")
    shutil.copytree(REPOSITORY / TERRAFORM / root, directory, ignore=ignored)
    settings = tmp_path / "terraform.rc"
    settings.write_text("")
    copied = Root(directory, settings)
    plugins = mirror(tmp_path / "plugins", copied, version)
    done = copied.run("init", "-no-color", "-backend=false", f"-plugin-dir={plugins}")
    assert (done.code == 0) is admitted, done.output


@pytest.mark.parametrize("root", ROOTS)
def test_the_current_provider_knows_every_argument(bindings: schema.Bindings, root: str) -> None:
    parsed = [schema.parse(REPOSITORY / TERRAFORM / root / name) for name in MADE[root]]
    provider = dict(schema.labelled(parsed[0]["provider"], 1))["aws"]
    faults = bindings.faults("provider", "aws", provider)
    for blocks in parsed:
        for kind in ("resource", "data"):
            for name, body in schema.labelled(blocks.get(kind, [])):
                faults += bindings.faults(kind, name.partition(".")[0], body)
    assert faults == []


def test_the_bindings_find_what_the_current_provider_dropped_or_demands(
    bindings: schema.Bindings,
) -> None:
    assert bindings.faults("resource", "aws_eip", {"vpc": True}) == ["aws_eip: no argument vpc"]
    nested = {"name": '"x"', "role_arn": '"x"', "vpc_config": [{"__is_block__": True}]}
    expected = ["aws_eks_cluster.vpc_config: misses subnet_ids"]
    assert bindings.faults("resource", "aws_eks_cluster", nested) == expected


@pytest.mark.parametrize("root", ROOTS)
def test_the_readme_names_all_that_the_old_provider_lacks(root: str) -> None:
    readme = (REPOSITORY / TERRAFORM / root / "README.md").read_text()
    section = readme.partition("## Provider versions")[2].partition("\n## ")[0]
    for header, arguments in BEYOND[root].items():
        kind = header.split('"')[1]
        for name in [kind, *arguments]:
            assert f"`{name}`" in section


def test_the_access_entry_lets_the_agent_edit_its_namespaces_and_nothing_else() -> None:
    source = (REPOSITORY / TERRAFORM / "cluster/main.tf").read_text()
    entry = block(source, 'resource "aws_eks_access_entry" "agent"')
    rights = block(source, 'resource "aws_eks_access_policy_association" "agent"')
    assert "var.agent_role_arn" in entry
    assert "kubernetes_groups = [local.deployers]" in entry
    assert 'deployers  = "${var.name}-deployers"' in source  # none that Kubernetes gives rights to
    assert "cluster-access-policy/AmazonEKSEditPolicy" in rights
    assert re.search(r'type += "namespace"\n +namespaces += var\.deploy_namespaces\n', rights)
    assert source.count("aws_eks_access_policy_association") == 1


def test_checkov_finds_nothing_and_every_suppression_has_its_reason() -> None:
    command = [TOOLS / "checkov/bin/checkov", "--directory", REPOSITORY / TERRAFORM]
    flags = ["--framework", "terraform", "--skip-download", "--quiet", "--output", "json"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    failed = [f"{c['check_id']} {c['resource']}" for c in report["results"]["failed_checks"]]
    assert failed == []
    assert report["summary"]["passed"] > 100
    source = "".join(source_of(root) for root in ROOTS)
    reasons = re.findall(r"#checkov:skip=\w+:(.*)", source)
    assert [reason for reason in reasons if len(reason) < 20] == []
    assert report["summary"]["skipped"] == len(reasons), "a suppression suppresses nothing"


# `terraform test`: the roots' own tests, with the names and types of the provider of today


@pytest.fixture(scope="session")
def bindings() -> schema.Bindings:
    return schema.Bindings(next(WHEELS.glob("cdktf_cdktf_provider_aws-21.*.whl")))


@pytest.fixture(scope="session")
def today(tmp_path_factory: pytest.TempPathFactory, bindings: schema.Bindings) -> dict[str, Root]:
    """The roots as they are, with nothing cut out, for a stand-in of the provider of today."""
    directory = tmp_path_factory.mktemp("today")
    used: set[tuple[str, str]] = set()
    for root in ROOTS:
        ignored = shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars*", "*_override.tf")
        shutil.copytree(REPOSITORY / TERRAFORM / root, directory / TERRAFORM / root, ignore=ignored)
        used |= set(re.findall(r'^(resource|data) "(\w+)"', source_of(root), re.MULTILINE))
    for folder in ("scripts", "deploy/jenkins"):
        shutil.copytree(REPOSITORY / folder, directory / folder)
    described = {kind: {} for kind in ("resource", "data")} | {"provider": {}}
    described["provider"] = bindings.schema("provider", "aws")
    for kind, name in sorted(used):
        described[kind][name] = bindings.schema(kind, name)
    settings, environment = pretended_provider(directory, described)
    return {name: Root(directory / TERRAFORM / name, settings, environment) for name in ROOTS}


@pytest.mark.parametrize("root", ROOTS)
def test_terraform_knows_every_name_and_type_of_the_whole_root(
    today: dict[str, Root], root: str
) -> None:
    done = today[root].run("validate", "-no-color")
    assert done.code == 0, done.output


def test_a_wrong_name_or_type_would_be_found(today: dict[str, Root]) -> None:
    main = today["cluster"].directory / "pods.tf"
    original = main.read_text()
    main.write_text(original.replace("service_account = local.pods.volumes.account", "account = 1"))
    done = today["cluster"].run("validate", "-no-color")
    main.write_text(original)
    assert done.code == 1
    assert 'The argument "service_account" is required' in done.sentences
    assert 'An argument named "account" is not expected here' in done.sentences


@pytest.mark.parametrize("root", ROOTS)
def test_the_tests_of_a_root_pass(today: dict[str, Root], root: str) -> None:
    done = today[root].run("test", "-no-color")
    assert done.code == 0, done.output
    written = (REPOSITORY / TERRAFORM / root / f"tests/{root}.tftest.hcl").read_text()
    assert f"Success! {written.count(chr(10) + 'run ')} passed, 0 failed." in done.output


# Refusals: a sentence each, with no cloud to be reached

REFUSED: dict[str, list[tuple[str, Any, str]]] = {
    "jenkins": [
        ("allowed_cidrs", [], "allowed_cidrs is empty, so nobody could reach Jenkins"),
        ("allowed_cidrs", ["0.0.0.0/0"], "0.0.0.0/0 is the whole internet"),
        ("allowed_cidrs", ["0.0.0.0/1", "128.0.0.0/1"], "larger than a /8"),
        ("allowed_cidrs", [""], "allowed_cidrs takes IPv4 networks in CIDR notation"),
        ("allowed_cidrs", ["203.0.113.7"], "allowed_cidrs takes IPv4 networks in CIDR notation"),
        ("allowed_cidrs", ["::/0"], "allowed_cidrs takes IPv4 networks in CIDR notation"),
        ("domain", "https://ci.example.org/", "domain is a whole name in lower case"),
        ("domain", "localhost", "domain is a whole name in lower case"),
        ("region", "Frankfurt", "region is the name of an AWS region"),
        ("name", "Keyrack", "name takes 2 to 20 lower-case letters"),
        ("name", "key_rack", "name takes 2 to 20 lower-case letters"),
        ("name", "keyrack-", "does not end with a hyphen"),
        ("name", "k" * 21, "name takes 2 to 20 lower-case letters"),
        ("tags", {"Project": "x"}, "tags may not set Name, Project, Component, Backup"),
        ("tags", {"aws:x": "x"}, "anything that begins with aws:"),
        ("vpc_cidr", "10.20.0.0/8", "vpc_cidr is an IPv4 network from /16 to /22"),
        ("vpc_cidr", "10.20.0.0", "vpc_cidr is an IPv4 network from /16 to /22"),
        ("ami_parameter", "ami-0123456789", "its name begins with /aws/service/"),
        ("controller_instance_type", "large", "controller_instance_type is an EC2 instance type"),
        ("agent_instance_type", "", "agent_instance_type is an EC2 instance type"),
        ("home_size", 5, "home_size is a whole number of GiB from 10 to 1000"),
        ("home_size", 10.5, "home_size is a whole number of GiB from 10 to 1000"),
        ("agent_disk_size", 2000, "agent_disk_size is a whole number of GiB from 20 to 1000"),
        ("snapshots_kept", 0, "snapshots_kept is a whole number from 1 to 365"),
    ],
    "cluster": [
        ("vpc_id", "keyrack", "vpc_id is the id of a VPC"),
        ("private_subnet_ids", ["subnet-1"], "private_subnet_ids needs at least two subnets"),
        ("private_subnet_ids", ["a", "b"], "private_subnet_ids takes ids of subnets"),
        ("private_subnet_ids", [], "private_subnet_ids needs at least two subnets"),
        ("agent_role_arn", "keyrack-agent", "agent_role_arn is the ARN of an IAM role"),
        ("agent_security_group_id", "agent", "agent_security_group_id is the id of a security"),
        ("region", "", "region is the name of an AWS region"),
        ("name", "-keyrack", "name takes 2 to 20 lower-case letters"),
        ("tags", {"Name": "x"}, "tags may not set Name, Project, Component"),
        ("api_cidrs", ["0.0.0.0/0"], "0.0.0.0/0 is the whole internet"),
        ("api_cidrs", ["office"], "api_cidrs takes IPv4 networks in CIDR notation"),
        ("kubernetes_version", "1.36.1", "kubernetes_version is a minor version in quotes"),
        ("hosts", ["Keyrack.example.org"], "hosts takes names in lower-case letters"),
        ("hosts", ["a.example.org", "a.example.org"], "hosts takes names in lower-case letters"),
        ("dns_zone_id", "example.org", "dns_zone_id is the id of a zone of Route 53"),
        ("node_instance_types", [], "node_instance_types takes at least one EC2 instance type"),
        ("nodes", {"min": 3, "desired": 2, "max": 4}, "nodes takes 1 <= min <= desired <= max"),
        ("nodes", {"min": 0, "desired": 0, "max": 0}, "nodes takes 1 <= min <= desired <= max"),
        ("node_disk_size", 1, "node_disk_size is a whole number of GiB from 20 to 1000"),
        ("deploy_namespaces", [], "deploy_namespaces takes at least one name of a namespace"),
        ("deploy_namespaces", ["kube-system"], "those that begin with kube- are the cluster's own"),
        ("deploy_namespaces", ["Keyrack"], "deploy_namespaces takes at least one name"),
        ("log_days", 31, "log_days is one of what CloudWatch offers"),
    ],
}
FITTING: dict[str, dict[str, Any]] = {
    "jenkins": {"allowed_cidrs": PEOPLE},
    "cluster": {
        "vpc_id": "vpc-1",
        "private_subnet_ids": ["subnet-1", "subnet-2"],
        "agent_role_arn": "arn:aws:iam::123456789012:role/agent",
        "agent_security_group_id": "sg-1",
    },
}


@cache
def refusals(root: Root, of: str, turn: int) -> Run:
    """A plan with the so-many-th wrong value of every variable: one run for many sentences."""
    wrong: dict[str, list[Any]] = {}
    for name, value, _ in REFUSED[of]:
        wrong.setdefault(name, []).append(value)
    values = {name: values[turn] for name, values in wrong.items() if turn < len(values)}
    return root.plan(**FITTING[of] | values)


@pytest.mark.parametrize(
    ("of", "name", "value", "sentence"),
    [(root, *row) for root, rows in REFUSED.items() for row in rows],
)
def test_a_wrong_value_is_refused_with_a_sentence(
    untouched: dict[str, Root], of: str, name: str, value: Any, sentence: str
) -> None:
    turn = [given for variable, given, _ in REFUSED[of] if variable == name].index(value)
    run = refusals(untouched[of], of, turn)
    assert run.code == 1
    assert sentence in run.sentences
    assert f'variable "{name}"' in run.output


def test_every_variable_has_a_refusal() -> None:
    for root in ROOTS:
        variables = schema.parse(REPOSITORY / TERRAFORM / root / "variables.tf")["variable"]
        refused = {name for name, _, _ in REFUSED[root]}
        assert {name for name, _ in schema.labelled(variables, 1)} == refused


def test_nothing_is_open_by_default(untouched: dict[str, Root]) -> None:
    run = untouched["jenkins"].plan()
    assert run.code == 1
    assert 'The root module input variable "allowed_cidrs" is not set' in run.sentences


# Applied


@pytest.mark.parametrize("root", ROOTS)
def test_what_was_applied_needs_no_change(world: World, root: str) -> None:
    ends = {step: world.steps[root, step].code for step in ("validate", "plan", "apply")}
    assert ends == {"validate": 0, "plan": 2, "apply": 0}
    second = world.steps[root, "second plan"]
    assert second.code == 0, second.output


def controller(world: World) -> dict[str, Any]:
    found = world.root("jenkins").outputs()["controller_instance_id"]
    reserved = world.client("ec2").describe_instances(InstanceIds=[found])["Reservations"]
    instance: dict[str, Any] = reserved[0]["Instances"][0]
    return instance


def launched(world: World, name: str) -> dict[str, Any]:
    """What a launch template gives to its instances."""
    versions = world.client("ec2").describe_launch_template_versions(LaunchTemplateName=name)
    data: dict[str, Any] = versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    return data


def tags(described: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in described.get("Tags", [])}


def subnets(world: World, kind: str) -> set[str]:
    filters = [{"Name": "tag:Name", "Values": [f"keyrack-{kind}-?"]}]
    found = world.client("ec2").describe_subnets(Filters=filters)["Subnets"]
    return {subnet["SubnetId"] for subnet in found}


def test_the_network_has_public_and_private_subnets_in_two_zones(world: World) -> None:
    ec2 = world.client("ec2")
    for kind, way_out in {"public": "GatewayId", "private": "NatGatewayId"}.items():
        ids = subnets(world, kind)
        found = ec2.describe_subnets(SubnetIds=list(ids))["Subnets"]
        assert len({subnet["AvailabilityZone"] for subnet in found}) == 2
        assert not any(subnet["MapPublicIpOnLaunch"] for subnet in found)
        for subnet in ids:
            filters = [{"Name": "association.subnet-id", "Values": [subnet]}]
            (table,) = ec2.describe_route_tables(Filters=filters)["RouteTables"]
            out = [r for r in table["Routes"] if r.get("DestinationCidrBlock") == "0.0.0.0/0"]
            assert way_out in out[0]


@pytest.mark.parametrize("where", ["controller", "keyrack-agent", "keyrack-node"])
def test_instance_metadata_want_a_token_and_stay_out_of_containers(
    world: World, where: str
) -> None:
    found = controller(world) if where == "controller" else launched(world, where)
    options = found["MetadataOptions"]
    assert options["HttpTokens"] == "required"
    assert options["HttpPutResponseHopLimit"] == 1


def test_every_disk_is_encrypted(world: World) -> None:
    attached = controller(world)["BlockDeviceMappings"]
    ids = [device["Ebs"]["VolumeId"] for device in attached]
    volumes = world.client("ec2").describe_volumes(VolumeIds=ids)["Volumes"]
    assert [volume["Encrypted"] for volume in volumes] == [True, True]
    for template in ("keyrack-agent", "keyrack-node"):
        (device,) = launched(world, template)["BlockDeviceMappings"]
        assert device["Ebs"]["Encrypted"] is True


def test_the_home_is_a_volume_of_its_own_that_outlives_the_instance(world: World) -> None:
    home = world.root("jenkins").outputs()["home_volume_id"]
    attached = {
        device["Ebs"]["VolumeId"]: device for device in controller(world)["BlockDeviceMappings"]
    }
    assert attached[home]["DeviceName"] == "/dev/sdf"
    assert not attached[home]["Ebs"]["DeleteOnTermination"]
    (volume,) = world.client("ec2").describe_volumes(VolumeIds=[home])["Volumes"]
    assert (volume["Size"], volume["VolumeType"]) == (30, "gp3")


def test_the_home_is_snapshotted_daily(world: World) -> None:
    (policy,) = world.snapshots.policies.values()
    home = world.root("jenkins").outputs()["home_volume_id"]
    (volume,) = world.client("ec2").describe_volumes(VolumeIds=[home])["Volumes"]
    (target,) = policy["PolicyDetails"]["TargetTags"]
    assert tags(volume)[target["Key"]] == target["Value"]
    (schedule,) = policy["PolicyDetails"]["Schedules"]
    assert schedule["CreateRule"] == {"Interval": 24, "IntervalUnit": "HOURS", "Times": ["03:00"]}
    assert schedule["RetainRule"] == {"Count": 14}
    assert schedule["CopyTags"] is True  # by this tag the role may delete them
    assert policy["State"] == "ENABLED"
    assert policy["ExecutionRoleArn"].endswith(":role/keyrack-jenkins-snapshots")


def test_the_address_survives_a_stop(world: World) -> None:
    ec2 = world.client("ec2")
    instance = controller(world)["InstanceId"]
    filters = [{"Name": "instance-id", "Values": [instance]}]
    (before,) = ec2.describe_addresses(Filters=filters)["Addresses"]
    assert before["PublicIp"] in world.root("jenkins").outputs()["jenkins_url"]
    ec2.stop_instances(InstanceIds=[instance])
    (stopped,) = ec2.describe_addresses(Filters=filters)["Addresses"]
    ec2.start_instances(InstanceIds=[instance])
    assert stopped["PublicIp"] == before["PublicIp"]


def test_the_agent_is_one_instance_in_a_private_subnet_that_is_replaced(world: World) -> None:
    groups = world.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    (group,) = [g for g in groups if g["AutoScalingGroupName"] == "keyrack-agent"]
    assert (group["MinSize"], group["DesiredCapacity"], group["MaxSize"]) == (1, 1, 1)
    assert set(group["VPCZoneIdentifier"].split(",")) == subnets(world, "private")
    assert len(group["Instances"]) == 1


def rules(world: World, component: str) -> list[tuple[str, str, int, int, str]]:
    """Every rule of a component's groups: group, direction, ports, and who is let through."""
    ec2 = world.client("ec2")
    filters = [{"Name": "tag:Component", "Values": [component]}]
    groups = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    names = {
        group["GroupId"]: group["GroupName"]
        for group in ec2.describe_security_groups()["SecurityGroups"]
    }
    found = []
    for group in groups:
        for direction, key in {"in": "IpPermissions", "out": "IpPermissionsEgress"}.items():
            for rule in group[key]:
                others = [each["CidrIp"] for each in rule["IpRanges"]]
                others += [each["CidrIpv6"] for each in rule["Ipv6Ranges"]]
                others += [names[each["GroupId"]] for each in rule["UserIdGroupPairs"]]
                ports = rule.get("FromPort", 0), rule.get("ToPort", 65535)
                found += [(group["GroupName"], direction, *ports, other) for other in others]
    return sorted(found)


def test_only_the_given_networks_and_the_agent_come_in_and_nobody_by_ssh(world: World) -> None:
    assert rules(world, "jenkins") == sorted(
        [
            *[("keyrack-controller", "in", 443, 443, network) for network in PEOPLE],
            ("keyrack-controller", "in", 443, 443, "keyrack-agent"),
            ("keyrack-controller", "out", 80, 80, "0.0.0.0/0"),
            ("keyrack-controller", "out", 443, 443, "0.0.0.0/0"),
            ("keyrack-agent", "out", 80, 80, "0.0.0.0/0"),
            ("keyrack-agent", "out", 443, 443, "0.0.0.0/0"),
            ("keyrack-agent", "out", 443, 443, "keyrack-controller"),
        ]
    )
    assert controller(world)["SecurityGroups"][0]["GroupName"] == "keyrack-controller"
    assert "KeyName" not in controller(world)


def test_the_cluster_api_is_let_only_the_agent_through(world: World) -> None:
    assert rules(world, "cluster") == [("keyrack-api", "in", 443, 443, "keyrack-agent")]


def documents(world: World, role: str) -> list[dict[str, Any]]:
    """The statements of a role's own policies, after a look that it has no managed ones."""
    iam = world.client("iam")
    assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    policies = [iam.get_role_policy(RoleName=role, PolicyName=name) for name in names]
    return [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else sorted(value)


def as_lists(values: dict[str, str | list[str]]) -> dict[str, list[str]]:
    return {key: as_list(value) for key, value in values.items()}


@pytest.mark.parametrize("role", ["controller", "agent"])
def test_an_instance_may_be_reached_by_ssm_and_read_its_own_secrets(
    world: World, role: str
) -> None:
    allowed = {
        action: as_list(statement["Resource"])
        for statement in documents(world, f"keyrack-jenkins-{role}")
        for action in as_list(statement["Action"])
        if statement["Effect"] == "Allow"
    }
    everywhere = [action for action, resources in allowed.items() if "*" in resources]
    assert sorted(everywhere) == [
        "ssm:UpdateInstanceInformation",
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
    ]
    own = f"arn:aws:ssm:{REGION}:123456789012:parameter/keyrack/jenkins/{role}"
    cluster = f"arn:aws:eks:{REGION}:123456789012:cluster/keyrack"
    narrow = {"ssm:GetParametersByPath": [own, f"{own}/*"]}
    if role == "agent":
        narrow["eks:DescribeCluster"] = [cluster]
    else:
        certificate = f"{own.removesuffix('controller')}agent/TLS_CERTIFICATE"
        narrow["ssm:PutParameter"] = [certificate]
    assert {
        action: where for action, where in allowed.items() if action not in everywhere
    } == narrow


def test_the_snapshots_role_deletes_only_snapshots_of_the_home(world: World) -> None:
    statements = {s["Sid"]: s for s in documents(world, "keyrack-jenkins-snapshots")}
    condition = {"aws:ResourceTag/Backup": ["keyrack-jenkins-home"]}
    assert as_lists(statements["DeleteOwn"]["Condition"]["StringEquals"]) == condition
    condition = {"ec2:CreateAction": ["CreateSnapshot"]}
    assert as_lists(statements["Tag"]["Condition"]["StringEquals"]) == condition
    home = world.root("jenkins").outputs()["home_volume_id"]
    assert [r for r in statements["Make"]["Resource"] if r.endswith(f"volume/{home}")]
    assert as_list(statements["Look"]["Resource"]) == ["*"]
    assert all(action.startswith("ec2:Describe") for action in statements["Look"]["Action"])


@pytest.mark.parametrize(
    ("role", "service"),
    [
        ("keyrack-jenkins-controller", "ec2"),
        ("keyrack-jenkins-agent", "ec2"),
        ("keyrack-jenkins-snapshots", "dlm"),
        ("keyrack-cluster", "eks"),
        ("keyrack-node", "ec2"),
        ("keyrack-pod-volumes", "pods.eks"),
        ("keyrack-pod-load-balancers", "pods.eks"),
        ("keyrack-pod-autoscaler", "pods.eks"),
    ],
)
def test_a_role_is_only_for_its_service(world: World, role: str, service: str) -> None:
    found = world.client("iam").get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
    (statement,) = found["Statement"]
    assert statement["Principal"] == {"Service": f"{service}.amazonaws.com"}


def test_everything_is_tagged(world: World) -> None:
    ec2 = world.client("ec2")
    filters = [{"Name": "tag:Project", "Values": ["keyrack"]}]
    mine = {
        "vpc": ec2.describe_vpcs(Filters=filters)["Vpcs"],
        "subnet": ec2.describe_subnets(Filters=filters)["Subnets"],
        "address": ec2.describe_addresses(Filters=filters)["Addresses"],
        "gateway": ec2.describe_internet_gateways(Filters=filters)["InternetGateways"],
        "nat": ec2.describe_nat_gateways(Filters=filters)["NatGateways"],
        "group": ec2.describe_security_groups(Filters=filters)["SecurityGroups"],
    }
    counts = {"vpc": 1, "subnet": 4, "address": 2, "gateway": 1, "nat": 1, "group": 4}
    assert {kind: len(found) for kind, found in mine.items()} == counts
    volumes = ec2.describe_volumes(Filters=filters)["Volumes"]
    assert {"keyrack-controller", "keyrack-jenkins-home"} <= {tags(v)["Name"] for v in volumes}
    reserved = ec2.describe_instances(Filters=filters)["Reservations"]
    instances = {tags(r["Instances"][0])["Name"] for r in reserved}
    assert {"keyrack-controller", "keyrack-agent"} <= instances
    for found in mine.values():
        assert all(tags(each)["team"] == "storage" for each in found)
    cluster = world.client("eks").describe_cluster(name="keyrack")["cluster"]
    expected = {"Project": "keyrack", "Component": "cluster", "team": "storage"}
    assert cluster["tags"] == expected


# What the instances run


def user_data(world: World, role: str) -> str:
    if role == "agent":
        encoded = launched(world, "keyrack-agent")["UserData"]
    else:
        answer = world.client("ec2").describe_instance_attribute(
            InstanceId=controller(world)["InstanceId"], Attribute="userData"
        )
        encoded = answer["UserData"]["Value"]
    assert len(base64.b64decode(encoded)) <= 16 * 1024, "EC2 takes 16 KiB"
    return gzip.decompress(base64.b64decode(encoded)).decode()


def written(world: World, role: str) -> dict[str, dict[str, str]]:
    text = user_data(world, role)
    assert text.startswith("#cloud-config\n")
    configuration = yaml.safe_load(text)
    assert configuration["runcmd"] == [["/opt/keyrack/boot.sh"]]
    return {file["path"]: file for file in configuration["write_files"]}


@pytest.mark.parametrize("role", ["controller", "agent"])
def test_user_data_carries_the_scripts_byte_for_byte(world: World, role: str) -> None:
    files = written(world, role)
    boot = files.pop("/opt/keyrack/boot.sh")
    assert boot["permissions"] == "0700"
    originals = {path: REPOSITORY / path.removeprefix("/opt/keyrack/") for path in files}
    assert {path: file["content"] for path, file in files.items()} == {
        path: original.read_text() for path, original in originals.items()
    }
    names = {path.removeprefix("/opt/keyrack/") for path in files}
    assert {"scripts/install-docker.sh", "scripts/install-jenkins.sh"} <= names
    image = {f"deploy/jenkins/{name}" for name in ("Dockerfile", "jenkins.yaml", "plugins.txt")}
    assert (image <= names) is (role == "controller")


@pytest.mark.parametrize("role", ["controller", "agent"])
def test_the_boot_script_is_clean(world: World, role: str, tmp_path: Path) -> None:
    script = tmp_path / "boot.sh"
    script.write_text(written(world, role)["/opt/keyrack/boot.sh"]["content"])
    command = [TOOLS / "venv/bin/shellcheck", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


class Machine:
    """A directory in which a boot script finds fakes of what it would install and ask."""

    def __init__(self, directory: Path, boot: str, parameters: list[list[str]]) -> None:
        self.directory = directory
        self.calls = directory / "calls"
        self.secrets = directory / "etc/secrets"
        scripts = directory / "scripts"
        commands = directory / "bin"
        for folder in (scripts, commands):
            folder.mkdir()
        self._fake(commands / "aws", f'echo "aws $*" >>{self.calls}; cat {directory}/parameters')
        self._fake(commands / "sleep", "exit 0")
        self._fake(scripts / "install-docker.sh", f"echo docker $(umask) >>{self.calls}")
        variables = "$JENKINS_URL ${JENKINS_HOME_DEVICE:-${JENKINS_ADDRESS:-}} $JENKINS_SECRETS"
        seen = f'echo "jenkins $* {variables} ${{TLS_NAMES:-}}"'
        self._fake(scripts / "install-jenkins.sh", f"{seen} >>{self.calls}")
        (directory / "parameters").write_text(json.dumps(parameters))
        boot = boot.replace("/opt/keyrack", str(directory))
        boot = boot.replace("/etc/keyrack", str(directory / "etc"))
        self.boot = boot.replace("/dev/disk/by-id", str(directory / "devices"))
        self.environment = {"PATH": f"{commands}:/usr/bin:/bin"}

    @staticmethod
    def _fake(path: Path, body: str) -> None:
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def run(self) -> subprocess.CompletedProcess[str]:
        script = self.directory / "boot.sh"
        script.write_text(self.boot)
        command = ["sh", str(script)]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )


def machine(world: World, role: str, directory: Path, parameters: list[list[str]]) -> Machine:
    return Machine(directory, written(world, role)["/opt/keyrack/boot.sh"]["content"], parameters)


def test_the_controller_boots_with_its_secrets_as_files(world: World, tmp_path: Path) -> None:
    path = "/keyrack/jenkins/controller"
    values = {
        "ADMIN_PASSWORD": 'a\'b "c" $d=',
        "KUBECONFIG_STAGING": "apiVersion: v1\nkind: Config\n",
    }
    here = machine(world, "controller", tmp_path, [[f"{path}/{n}", v] for n, v in values.items()])
    device = world.root("jenkins").outputs()["home_volume_id"].replace("-", "")
    name = f"nvme-Amazon_Elastic_Block_Store_{device}"
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / name).touch()
    here.secrets.mkdir(parents=True)
    (here.secrets / "GITHUB_TOKEN").write_text("taken back")
    done = here.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert {file.name: file.read_text() for file in here.secrets.iterdir()} == values
    assert {file.stat().st_mode & 0o777 for file in here.secrets.iterdir()} == {0o600}
    asked, docker, jenkins, told = here.calls.read_text().splitlines()
    assert f"--path {path} --with-decryption" in asked
    assert docker == "docker 0022"  # what it installs is for other users too
    url = world.root("jenkins").outputs()["jenkins_url"]
    assert url.startswith("https://")
    address = controller(world)["PrivateIpAddress"]
    assert jenkins == f"jenkins controller {url} {tmp_path}/devices/{name} {here.secrets} {address}"
    # The agent is to trust the certificate that it serves.
    assert told.startswith(f"aws ssm put-parameter --region {REGION} ")
    assert "--name /keyrack/jenkins/agent/TLS_CERTIFICATE --type String --overwrite" in told
    assert told.endswith("--value file:///var/lib/jenkins/tls/certificate.pem")


def test_the_agent_boots_towards_the_controllers_fixed_address(
    world: World, tmp_path: Path
) -> None:
    path = "/keyrack/jenkins/agent"
    parameters = [[f"{path}/AGENT_PASSWORD", "secret"], [f"{path}/TLS_CERTIFICATE", "PEM"]]
    here = machine(world, "agent", tmp_path, parameters)
    done = here.run()
    assert (done.returncode, done.stderr) == (0, "")
    address = controller(world)["PrivateIpAddress"]
    expected = f"jenkins agent https://{address}  {here.secrets} "
    assert here.calls.read_text().splitlines()[-1] == expected


def test_the_agent_waits_for_the_certificate_that_it_is_to_trust(
    world: World, tmp_path: Path
) -> None:
    here = machine(world, "agent", tmp_path, [["/keyrack/jenkins/agent/AGENT_PASSWORD", "secret"]])
    done = here.run()
    assert done.returncode == 1
    assert "TLS_CERTIFICATE, which the controller writes once it has started" in done.stderr
    assert "docker" not in here.calls.read_text()


def test_a_controller_with_a_name_is_called_by_it(world: World) -> None:
    planned = world.root("jenkins").planned(**variables_of("jenkins"), domain="ci.example.org")
    outputs = planned["planned_values"]["outputs"]
    assert outputs["jenkins_url"]["value"] == "https://ci.example.org/"
    (template,) = [
        change["change"]["after"]
        for change in planned["resource_changes"]
        if change["address"] == "aws_launch_template.agent"
    ]
    boot = gzip.decompress(base64.b64decode(template["user_data"])).decode()
    assert "export JENKINS_URL='https://ci.example.org'" in boot
    assert f"export JENKINS_ADDRESS='{controller(world)['PrivateIpAddress']}'" in boot


def test_without_parameters_nothing_is_changed_and_it_says_what_to_do(
    world: World, tmp_path: Path
) -> None:
    here = machine(world, "agent", tmp_path, [])
    here.secrets.mkdir(parents=True)
    (here.secrets / "AGENT_PASSWORD").write_text("of before")
    done = here.run()
    assert (here.secrets / "AGENT_PASSWORD").read_text() == "of before"
    assert done.returncode == 1
    assert "There are no parameters below /keyrack/jenkins/agent" in done.stderr
    assert "docker" not in here.calls.read_text()


def test_without_its_volume_the_controller_is_not_started(world: World, tmp_path: Path) -> None:
    here = machine(world, "controller", tmp_path, [["/x/ADMIN_PASSWORD", "secret"]])
    done = here.run()
    assert done.returncode == 1
    assert "still not there after 10 minutes" in done.stderr
    assert "docker" not in here.calls.read_text()


# The cluster


def test_the_cluster_is_private_logged_and_encrypts_secrets(world: World) -> None:
    cluster = world.client("eks").describe_cluster(name="keyrack")["cluster"]
    network = cluster["resourcesVpcConfig"]
    assert (network["endpointPrivateAccess"], network["endpointPublicAccess"]) == (True, False)
    assert set(network["subnetIds"]) == subnets(world, "private")
    (encryption,) = cluster["encryptionConfig"]
    assert encryption["resources"] == ["secrets"]
    key = world.client("kms").get_key_rotation_status(KeyId=encryption["provider"]["keyArn"])
    assert key["KeyRotationEnabled"] is True
    logged = [entry["types"] for entry in cluster["logging"]["clusterLogging"] if entry["enabled"]]
    assert {"audit", "authenticator"} <= set(logged[0])
    groups = world.client("logs").describe_log_groups(logGroupNamePrefix="/aws/eks/keyrack")
    assert groups["logGroups"][0]["retentionInDays"] == 30


def test_the_nodes_are_a_managed_group_in_each_private_subnet(world: World) -> None:
    eks = world.client("eks")
    names = world.root("cluster").outputs()["node_group_names"]
    groups = [
        eks.describe_nodegroup(clusterName="keyrack", nodegroupName=name)["nodegroup"]
        for name in names
    ]
    assert sorted([subnet] for subnet in subnets(world, "private")) == sorted(
        group["subnets"] for group in groups
    )
    for group in groups:
        assert group["scalingConfig"] == {"minSize": 1, "desiredSize": 1, "maxSize": 2}
        assert not group.get("remoteAccess")
    attached = world.client("iam").list_attached_role_policies(RoleName="keyrack-node")
    assert {policy["PolicyName"] for policy in attached["AttachedPolicies"]} == {
        "AmazonEKSWorkerNodePolicy",
        "AmazonEKS_CNI_Policy",
        "AmazonEC2ContainerRegistryPullOnly",
    }


ACCOUNTS = {
    "volumes": "ebs-csi-controller-sa",
    "load-balancers": "aws-load-balancer-controller",
    "autoscaler": "cluster-autoscaler",
}


@pytest.mark.parametrize("pod", ACCOUNTS)
def test_a_role_of_a_pod_is_for_one_service_account_of_this_cluster(world: World, pod: str) -> None:
    found = world.client("iam").get_role(RoleName=f"keyrack-pod-{pod}")["Role"]
    (statement,) = found["AssumeRolePolicyDocument"]["Statement"]
    assert as_list(statement["Action"]) == ["sts:AssumeRole", "sts:TagSession"]
    cluster = world.client("eks").describe_cluster(name="keyrack")["cluster"]
    (conditions,) = statement["Condition"].values()
    assert as_lists(conditions) == {
        "aws:RequestTag/eks-cluster-arn": [cluster["arn"]],
        "aws:RequestTag/kubernetes-namespace": ["kube-system"],
        "aws:RequestTag/kubernetes-service-account": [ACCOUNTS[pod]],
    }
    assert list(statement["Condition"]) == ["StringEquals"]


OWN: dict[str, list[str]] = {
    "volumes": [
        "aws:RequestTag/Project",
        "aws:ResourceTag/Project",
        "aws:ResourceTag/eks:cluster-name",
        "ec2:CreateAction",
    ],
    "load-balancers": [
        "aws:RequestTag/elbv2.k8s.aws/cluster",
        "aws:ResourceTag/elbv2.k8s.aws/cluster",
        "iam:AWSServiceName",
    ],
    "autoscaler": ["aws:ResourceTag/k8s.io/cluster-autoscaler/keyrack"],
}
"""By role: the conditions by which AWS knows what belongs to this cluster."""


@pytest.mark.parametrize("pod", ACCOUNTS)
def test_a_pod_changes_only_what_belongs_to_its_cluster(world: World, pod: str) -> None:
    for statement in documents(world, f"keyrack-pod-{pod}"):
        actions = [action.partition(":")[2] for action in as_list(statement["Action"])]
        looks = all(action.startswith(("Describe", "Get", "List")) for action in actions)
        resources = as_list(statement["Resource"])
        assert ("*" in resources) <= looks, statement["Sid"]
        assert not any("*" in action for action in actions), statement["Sid"]
        conditions = {
            key: values
            for test, given in statement.get("Condition", {}).items()
            for key, values in given.items()
            if test == "StringEquals"
        }
        named = all(
            not resource.endswith((":*", "/*")) or "k8s-" in resource for resource in resources
        )
        assert looks or named or conditions.keys() & set(OWN[pod]), statement["Sid"]
        for key in conditions.keys() & {key for key in OWN[pod] if "Tag/" in key}:
            assert as_list(conditions[key]) in (["keyrack"], ["owned"]), statement["Sid"]


def test_the_balancers_role_has_nothing_of_services_that_are_turned_off(world: World) -> None:
    actions = {
        action
        for statement in documents(world, "keyrack-pod-load-balancers")
        for action in as_list(statement["Action"])
    }
    services = {action.partition(":")[0] for action in actions}
    assert services == {"acm", "ec2", "elasticloadbalancing", "iam"}
    assert "elasticloadbalancing:SetWebAcl" not in actions


def test_the_cluster_has_one_version_and_its_tools_follow(world: World) -> None:
    cluster = world.client("eks").describe_cluster(name="keyrack")["cluster"]
    minor = int(cluster["version"].partition(".")[2])
    install = (REPOSITORY / "scripts/install-jenkins.sh").read_text()
    kubectl = re.search(r"KUBECTL_VERSION:-v1\.(\d+)\.\d+", install)
    assert kubectl
    # Kubernetes supports a kubectl that is one minor version older or newer.
    assert abs(int(kubectl[1]) - minor) <= 1


def test_the_kubeconfig_names_the_cluster_and_holds_no_secret(world: World) -> None:
    outputs = world.root("cluster").outputs()
    config = yaml.safe_load(outputs["kubeconfig"])
    cluster = world.client("eks").describe_cluster(name="keyrack")["cluster"]
    assert config["clusters"][0]["cluster"] == {
        "server": cluster["endpoint"],
        "certificate-authority-data": cluster["certificateAuthority"]["data"],
    }
    assert config["users"][0]["user"].keys() == {"exec"}
    command = config["users"][0]["user"]["exec"]
    assert [command["command"], *command["args"]] == [
        *("aws", "eks", "get-token", "--region", REGION, "--cluster-name", "keyrack")
    ]
    names = {entry["name"] for part in ("clusters", "contexts", "users") for entry in config[part]}
    assert names == {config["current-context"]}


# What happens later


def test_the_api_opens_to_the_networks_that_are_given(world: World) -> None:
    planned = world.root("cluster").planned(**variables_of("cluster"), api_cidrs=PEOPLE)
    (after,) = [
        change["change"]["after"]
        for change in planned["resource_changes"]
        if change["address"] == "aws_eks_cluster.this"
    ]
    (network,) = after["vpc_config"]
    assert network["endpoint_public_access"] is True
    assert sorted(network["public_access_cidrs"]) == sorted(PEOPLE)


def test_a_newer_script_is_for_new_agents_and_leaves_the_controller_alone(world: World) -> None:
    script = world.directory / "scripts/install-docker.sh"
    original = script.read_text()
    script.write_text(original + "# changed\n")
    changes = world.root("jenkins").changes(**GIVEN)
    script.write_text(original)
    assert changes == {
        "aws_launch_template.agent": ["update"],
        "aws_autoscaling_group.agent": ["update"],
    }


def test_other_networks_change_one_rule_only(world: World) -> None:
    changes = world.root("jenkins").changes(**GIVEN | {"allowed_cidrs": ["192.0.2.1/32"]})
    assert changes == {"aws_security_group_rule.people": ["delete", "create"]}


def test_user_data_that_ec2_would_refuse_stops_the_plan(world: World) -> None:
    large = world.directory / "deploy/jenkins/large.txt"
    large.write_text(base64.b64encode(os.urandom(20_000)).decode())
    run = world.root("jenkins").plan(**GIVEN)
    large.unlink()
    assert run.code == 1
    assert "make more than 14 KiB of user data" in run.sentences


# The state in S3


def test_the_example_of_a_backend_keeps_the_state_and_locks_it(
    world: World, tmp_path: Path
) -> None:
    s3 = world.client("s3")
    bucket = "example-terraform-state"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    (tmp_path / "main.tf").write_text(
        'terraform {\n  backend "s3" {}\n}\nresource "terraform_data" "this" {}\n'
    )
    access = {"AWS_ACCESS_KEY_ID": "loopback", "AWS_SECRET_ACCESS_KEY": "loopback"}
    (tmp_path / "terraform.rc").write_text("")
    environment = access | {"AWS_ENDPOINT_URL_S3": world.address}
    root = Root(tmp_path, tmp_path / "terraform.rc", environment)
    # What a cloud on loopback needs beside the example.
    flags = ["use_path_style", "skip_credentials_validation", "skip_requesting_account_id"]
    given = ["key=keyrack/jenkins.tfstate", *(f"{flag}=true" for flag in flags)]
    example = REPOSITORY / TERRAFORM / "backend.hcl.example"
    settings = [f"-backend-config={each}" for each in (example, *given)]
    started = root.run("init", "-no-color", *settings)
    assert started.code == 0, started.output
    assert root.apply().code == 0
    (kept,) = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert kept["Key"] == "keyrack/jenkins.tfstate"
    s3.put_object(Bucket=bucket, Key=f"{kept['Key']}.tflock", Body=b'{"ID": "of-somebody-else"}')
    locked = root.apply()
    assert locked.code == 1
    assert "Error acquiring the state lock" in locked.output
    assert "of-somebody-else" in locked.output


# The end. These are last: what is above needs what they take away.


@pytest.mark.parametrize("root", ROOTS[::-1])
def test_destroy_ends_well(world: World, root: str) -> None:
    done = world.root(root).destroy(**variables_of(root))
    assert done.code == 0, done.output
    assert world.root(root).run("state", "list").output.strip() == ""


def test_nothing_is_left_after_destroy(world: World) -> None:
    ec2 = world.client("ec2")
    filters = [{"Name": "tag:Project", "Values": ["keyrack"]}]
    running = [
        *filters,
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopped"]},
    ]
    assert ec2.describe_vpcs(Filters=filters)["Vpcs"] == []
    assert ec2.describe_addresses(Filters=filters)["Addresses"] == []
    assert ec2.describe_instances(Filters=running)["Reservations"] == []
    assert world.client("eks").list_clusters()["clusters"] == []
    roles = world.client("iam").list_roles()["Roles"]
    assert [role["RoleName"] for role in roles if role["RoleName"].startswith("keyrack")] == []
    assert world.snapshots.policies == {}
    home = [*filters, {"Name": "tag:Backup", "Values": ["keyrack-jenkins-home"]}]
    assert ec2.describe_volumes(Filters=home)["Volumes"] == []
