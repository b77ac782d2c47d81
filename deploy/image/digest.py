"""Print the digest that a registry has for an image: `digest.py NAME:TAG`.

Docker's own client tells it for an image of one platform only. REGISTRY_USER and REGISTRY_PASSWORD
are used where the registry asks for one. Ends with status 1 and a sentence where none is told.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from email.message import Message

KINDS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


def main(name: str) -> int:
    """Ask the registry in the name, and print what it says."""
    registry, _, rest = name.partition("/")
    repository, _, tag = rest.rpartition(":")
    host = "registry-1.docker.io" if registry in ("docker.io", "index.docker.io") else registry
    # As for Docker itself, a registry on this machine needs no TLS.
    scheme = "http" if re.match(r"(localhost|127\.[\d.]+)(:|$)", host) else "https"
    address = f"{scheme}://{host}/v2/{repository}/manifests/{tag}"
    try:
        try:
            headers = _head(address, None)
        except urllib.error.HTTPError as refused:
            if refused.code != 401:
                raise
            headers = _head(address, _authorization(refused.headers.get("WWW-Authenticate", "")))
    except OSError as error:
        print(f"digest: {registry} does not tell the digest of {name}: {error}", file=sys.stderr)
        return 1
    digest = headers.get("Docker-Content-Digest", "")
    if not re.fullmatch("sha256:[0-9a-f]{64}", digest):
        print(f"digest: {registry} tells no digest of {name}", file=sys.stderr)
        return 1
    print(digest)
    return 0


def _head(address: str, authorization: str | None) -> Message:
    request = urllib.request.Request(address, method="HEAD", headers={"Accept": ", ".join(KINDS)})
    if authorization:
        request.add_header("Authorization", authorization)
    with urllib.request.urlopen(request, timeout=30) as answer:
        headers: Message = answer.headers
        return headers


def _authorization(challenge: str) -> str | None:
    """What the registry wants to hear: user and password, or a token of whom it names."""
    user, password = os.environ.get("REGISTRY_USER", ""), os.environ.get("REGISTRY_PASSWORD", "")
    basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode() if user else None
    kind, _, rest = challenge.partition(" ")
    if kind.lower() != "bearer":
        return basic
    asked = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    realm = asked.pop("realm")
    request = urllib.request.Request(f"{realm}?{urllib.parse.urlencode(asked)}")
    if basic:
        request.add_header("Authorization", basic)
    with urllib.request.urlopen(request, timeout=30) as answer:
        given = json.load(answer)
    return "Bearer " + (given.get("token") or given["access_token"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
