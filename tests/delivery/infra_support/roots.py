"""Copies of the Terraform roots that the old provider can run.

The roots are written for provider 6.x; the only real one that can be had without Terraform's
registry is 3.39. What 3.39 does not know is cut out of the copies, and `BEYOND` is all of it: the
tests hold README.md to this table, and the cut parts to the newer provider's arguments instead.
"""

import re
import shutil
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
TERRAFORM = Path("deploy/terraform")
ROOTS = ("jenkins", "cluster")
_EACH = {"main.tf", "variables.tf", "outputs.tf", "versions.tf", "README.md", "tests"}
FILES = {"jenkins": _EACH, "cluster": _EACH | {"pods.tf", "names.tf"}}
MADE = {"jenkins": ("main.tf",), "cluster": ("main.tf", "pods.tf", "names.tf")}
"""By root: the files that make something."""

BEYOND: dict[str, dict[str, list[str]]] = {
    "jenkins": {
        'resource "aws_volume_attachment" "home"': ["stop_instance_before_detaching"],
    },
    "cluster": {
        'resource "aws_eks_cluster" "this"': ["access_config"],
        'resource "aws_eks_addon" "this"': [],
        'resource "aws_eks_addon" "volumes"': [],
        'resource "aws_eks_pod_identity_association" "pod"': [],
        'resource "aws_eks_access_entry" "agent"': [],
        'resource "aws_eks_access_policy_association" "agent"': [],
    },
}
"""By root and block: the arguments that 3.39 lacks, or nothing where it is the whole block."""

_OVERRIDE = """\
provider "aws" {{
  access_key                  = "loopback"
  secret_key                  = "loopback"
  max_retries                 = 1
  skip_credentials_validation = true
  skip_get_ec2_platforms      = true
  skip_metadata_api_check     = true
  skip_region_validation      = true

  endpoints {{
{endpoints}
  }}
}}
"""
_SERVICES = (
    "acm",
    "autoscaling",
    "cloudwatchlogs",
    "ec2",
    "eks",
    "iam",
    "kms",
    "route53",
    "ssm",
    "sts",
)


def block(source: str, header: str) -> str:
    """The block of `terraform fmt`'s output that begins with this header at the line's start."""
    found = re.search(rf"^{re.escape(header)} {{\n.*?^}}\n", source, re.MULTILINE | re.DOTALL)
    assert found, f"{header} is not in the source any more; correct BEYOND in {__file__}"
    return found.group()


def _without_argument(part: str, argument: str) -> str:
    one_line = rf"^  {argument} += [^\n]*\n"
    nested = rf"^  {argument} {{\n.*?^  }}\n"
    kept, cut = re.subn(rf"{nested}|{one_line}", "", part, flags=re.MULTILINE | re.DOTALL)
    assert cut == 1, f"{argument} occurs {cut} times; correct BEYOND in {__file__}"
    return kept


def source_of(root: str) -> str:
    """All that a root makes, its files one after the other."""
    return "".join((REPOSITORY / TERRAFORM / root / name).read_text() for name in MADE[root])


def for_old_provider(source: str, root: str) -> str:
    """The source of one of a root's files without what 3.39 does not know."""
    for header, arguments in BEYOND[root].items():
        if f"{header} {{" not in source:
            continue
        part = block(source, header)
        kept = part if arguments else ""
        for argument in arguments:
            kept = _without_argument(kept, argument)
        source = source.replace(part, kept)
    return source


def copy(directory: Path, cloud: str, snapshots: str) -> None:
    """Copy roots, and what they read, below this directory; point them at the given endpoints."""
    for folder in ("scripts", "deploy/jenkins", TERRAFORM):
        shutil.copytree(
            REPOSITORY / folder,
            directory / folder,
            ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars*"),
        )
    for root in ROOTS:
        for name in MADE[root]:
            made = directory / TERRAFORM / root / name
            made.write_text(for_old_provider(made.read_text(), root))
        addresses = dict.fromkeys(_SERVICES, cloud) | {"dlm": snapshots}
        lines = [f'    {service} = "{address}"' for service, address in addresses.items()]
        override = directory / TERRAFORM / root / "loopback_override.tf"
        override.write_text(_OVERRIDE.format(endpoints="\n".join(lines)))
