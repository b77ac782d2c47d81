"""moto's server with three of its faults corrected: `python server.py -H 127.0.0.1 -p 0`.

Each makes a second plan find changes that a real account has not. Each correction says what moto
5.2 does; one that is no longer needed does nothing.
"""

import os
import sys
from typing import Any

# So that a managed policy that does not exist is refused, as in a real account.
os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"

import moto.eks.models
from moto.ec2.models import EC2Backend
from moto.ec2.models.instances import Instance
from moto.server import main

_prepare_interfaces = Instance.prep_nics
_create_template = EC2Backend.create_launch_template


def _groups_of_the_interface(self: Instance, *args: Any, **kwargs: Any) -> None:
    """moto forgets the groups of an instance when they are given with its network interface."""
    _prepare_interfaces(self, *args, **kwargs)
    if not self.security_groups and 0 in self.nics:
        self.security_groups = list(self.nics[0].group_set)


def _only_its_own_tags(
    self: EC2Backend, name: str, description: str, data: dict[str, Any], tags: Any
) -> Any:
    """moto adds the tags of a launch template to those that the template gives to instances."""
    given = data.get("TagSpecifications", [])
    kept = [tag for tag in given if tag["ResourceType"] != "launch-template"]
    data = {key: value for key, value in data.items() if key != "TagSpecifications"}
    if kept:
        data["TagSpecifications"] = kept
    return _create_template(self, name, description, data, tags)


Instance.prep_nics = _groups_of_the_interface
EC2Backend.create_launch_template = _only_its_own_tags
# moto gives a node group an SSH key that nobody asked for.
moto.eks.models.DEFAULT_REMOTE_ACCESS = None

if __name__ == "__main__":
    main(sys.argv[1:])
