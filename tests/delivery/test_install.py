"""The install scripts, each run twice in a throw-away Debian: `make image-test`.

What needs more than Debian's packages is replaced at the border of the network: the base image of
Jenkins, the downloads of helm and kubectl, the package sources of other distributions. The rest is
real: packages, Docker, the image of deploy/jenkins, disks, file systems.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import subprocess
import tarfile
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from delivery.image_support.root import Root

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
URL = "https://ci.example.org/"
DOCKER = "/repository/scripts/install-docker.sh"
JENKINS = "/repository/scripts/install-jenkins.sh"
SECRETS = {
    "ADMIN_PASSWORD": "a-long-password",
    "AGENT_PASSWORD": 'quo"te and-more',
    "WEBHOOK_SECRET": "a-long-secret",
    "REPOSITORY_OWNER": "example",
    "REPOSITORY_NAME": "keyrack",
}


@pytest.fixture(scope="module")
def archive() -> Path:
    """The Debian that is also the image's stand-in base, made by mmdebstrap."""
    made = subprocess.run(
        [str(ROOT / "deploy/image/stand-in-base.sh"), "none:none"],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DOCKER": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Debian" in made.stdout
    return max(
        (ROOT / ".delivery").glob("stand-in-base-*.tar"), key=lambda one: one.stat().st_mtime
    )


@pytest.fixture(scope="module")
def root(archive: Path) -> Iterator[Root]:
    """A Debian on which Docker was installed, once."""
    made = Root(archive, ROOT)
    try:
        done = made.run(DOCKER)
        assert done.returncode == 0, done.stderr
        yield made
    finally:
        made.close()


@pytest.fixture
def secrets(root: Root) -> None:
    for name, value in SECRETS.items():
        root.write(f"etc/keyrack/secrets/{name}", value)


# Docker


def test_docker_is_installed_once_and_started_at_boot(root: Root) -> None:
    assert root.systemctl_calls() == ["enable --quiet --now docker"]
    before = installed(root)
    assert {"docker.io", "iptables"} <= before.keys()
    stamp = (root.path / "var/lib/dpkg/status").stat().st_mtime_ns
    again = root.run(DOCKER)
    assert again.returncode == 0
    assert re.fullmatch(r"Docker version \d+.*\n", again.stdout)
    assert (root.path / "var/lib/dpkg/status").stat().st_mtime_ns == stamp


def installed(root: Root) -> dict[str, str]:
    listed = root.run("dpkg-query", "--show").stdout
    return dict(line.split("\t", 1) for line in listed.splitlines())


def test_a_user_may_use_docker_when_named(root: Root) -> None:
    assert root.run("useradd", "builder").returncode == 0
    assert "builder may use Docker" in root.run(DOCKER, "builder").stdout
    assert "docker" in root.run("id", "-nG", "builder").stdout.split()
    assert "may use" not in root.run(DOCKER, "builder").stdout


@pytest.mark.parametrize(
    ("system", "asked", "wanted"),
    [
        (
            'ID=ubuntu\nID_LIKE=debian\nPRETTY_NAME="Ubuntu 24.04"\n',
            "apt-get install --quiet=2 --yes --no-install-recommends",
            {"docker.io", "docker-buildx", "iptables"},
        ),
        ('ID="amzn"\nID_LIKE="fedora"\n', "dnf install --quiet --assumeyes", {"docker"}),
    ],
)
def test_other_distributions_are_asked_for_their_packages_once(
    root: Root, system: str, asked: str, wanted: set[str]
) -> None:
    """Their package sources are not reachable: apt and dnf are stand-ins that remember."""
    root.write("stub/packages", "")
    root.write("stub/calls", "")
    remember = 'echo "${0##*/} $@" >>/stub/calls; for one; do echo "$one" >>/stub/packages; done'
    known = 'for one; do :; done; grep -qx "$one" /stub/packages'
    root.script("stub/bin/apt-get", remember)
    root.script("stub/bin/dnf", remember)
    root.script("stub/bin/rpm", known)
    root.script("stub/bin/dpkg-query", f"{known} && printf installed")
    available = "docker.io docker-buildx ca-certificates"
    root.script("stub/bin/apt-cache", f"for one; do :; done; for p in {available}; do"
                ' [ "$p" != "$one" ] || echo "Package: $p"; done')  # fmt: skip
    before = (root.path / "etc/os-release").read_text()
    try:
        root.write("etc/os-release", system)
        path = "/stub/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        assert root.run(DOCKER, PATH=path).returncode == 0
        calls = [
            line
            for line in (root.path / "stub/calls").read_text().splitlines()
            if "install" in line
        ]
        assert len(calls) == 1
        assert calls[0].startswith(asked)
        assert wanted <= set(calls[0].split())
        assert root.run(DOCKER, PATH=path).returncode == 0
        assert (root.path / "stub/calls").read_text().count(" install ") == 1
    finally:
        root.write("etc/os-release", before)


def test_an_unknown_system_is_refused_with_a_sentence(root: Root) -> None:
    before = (root.path / "etc/os-release").read_text()
    try:
        root.write("etc/os-release", 'ID=haiku\nPRETTY_NAME="Haiku"\n')
        done = root.run(DOCKER)
    finally:
        root.write("etc/os-release", before)
    assert done.returncode == 2
    assert done.stderr.startswith("install-docker: Haiku is not known here.")


# What cannot be used


@pytest.mark.parametrize(
    ("words", "user", "given", "sentence"),
    [
        ([DOCKER], "65534", {}, "run it with sudo"),
        ([DOCKER, "nobody-here"], "0", {}, "there is no user 'nobody-here'"),
        ([JENKINS, "agent"], "65534", {}, "run it with sudo"),
        ([JENKINS, "agent"], "0", {}, "JENKINS_URL='' is no address"),
        ([JENKINS, "agent"], "0", {"JENKINS_URL": "http://ci.example.org"}, "is plain HTTP"),
        ([JENKINS], "0", {"JENKINS_URL": URL}, "controller or agent"),
        (
            [JENKINS, "agent"],
            "0",
            {"JENKINS_URL": URL, "JENKINS_SECRETS": "/nowhere"},
            "the secret AGENT_PASSWORD is missing. Put it into the file /nowhere/AGENT_PASSWORD",
        ),
        (
            [JENKINS, "controller"],
            "0",
            {"JENKINS_URL": URL, "JENKINS_SECRETS": "/nowhere"},
            "the secret ADMIN_PASSWORD is missing",
        ),
    ],
)
def test_what_cannot_be_used_is_a_sentence_and_changes_nothing(
    root: Root, words: list[str], user: str, given: dict[str, str], sentence: str
) -> None:
    root.systemctl_calls()
    done = root.run(*words, user=user, **given)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert root.systemctl_calls() == []


# The agent


class Site(BaseHTTPRequestHandler):
    """The controller, and where helm and kubectl come from: a stand-in for the three of them."""

    files: dict[str, bytes] = {}  # noqa: RUF012 - each test has a class of its own

    def do_GET(self) -> None:
        if self.path.startswith("/computer/"):
            user = b64encode(f"agent:{SECRETS['AGENT_PASSWORD']}".encode()).decode()
            if self.headers["Authorization"] != f"Basic {user}":
                return self.send_error(401)
        body = self.files.get(self.path)
        if body is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None

    def log_message(self, *_: object) -> None:
        pass


def site_files() -> dict[str, bytes]:
    tool = b"#!/bin/sh\necho a tool\n"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("linux-amd64/helm")
        member.size, member.mode = len(tool), 0o755
        tar.addfile(member, io.BytesIO(tool))
    helm, kubectl = "/helm-v1.2.3-linux-amd64.tar.gz", "/release/v1.2.4/bin/linux/amd64/kubectl"
    return {
        helm: packed.getvalue(),
        f"{helm}.sha256sum": f"{sha256(packed.getvalue())}  {helm[1:]}\n".encode(),
        kubectl: tool,
        f"{kubectl}.sha256": sha256(tool).encode(),
        "/jnlpJars/agent.jar": b"a program",
        "/computer/docker-1/jenkins-agent.jnlp": (
            b"<jnlp><application-desc><argument>" + b"0a" * 32 + b"</argument>"
            b"<argument>docker-1</argument></application-desc></jnlp>"
        ),
    }


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def site() -> Iterator[tuple[str, dict[str, bytes]]]:
    files = site_files()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Site,), {"files": files}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", files
    server.shutdown()
    thread.join()
    server.server_close()


_JAVA_21 = """\
[ "$1" != -version ] || exec echo 'openjdk version "21.0.2"' >&2
echo "$@" >java.log
"""


def agent(root: Root, site: str) -> subprocess.CompletedProcess[str]:
    return root.run(
        *(JENKINS, "agent"),
        JENKINS_URL=f"{site}/",
        HELM_SITE=site,
        HELM_VERSION="v1.2.3",
        KUBECTL_SITE=site,
        KUBECTL_VERSION="v1.2.4",
    )


@pytest.mark.usefixtures("secrets")
def test_an_agent_without_java_21_is_refused_where_there_is_none(
    root: Root, site: tuple[str, dict[str, bytes]]
) -> None:
    root.script("usr/bin/java", """echo 'openjdk version "17.0.2"' >&2""")
    root.script("usr/local/bin/apt-cache", "exit 0")  # newer Debian has one
    try:
        done = agent(root, site[0])
    finally:
        (root.path / "usr/local/bin/apt-cache").unlink()
    assert done.returncode == 2, done.stderr
    assert "an agent needs Java 21" in done.stderr
    assert "Nothing was installed" in done.stderr
    assert not (root.path / "etc/systemd/system/jenkins-agent.service").exists()


@pytest.mark.usefixtures("secrets")
def test_a_tool_with_a_wrong_checksum_is_not_installed(
    root: Root, site: tuple[str, dict[str, bytes]]
) -> None:
    url, files = site
    root.script("usr/bin/java", _JAVA_21)
    (name,) = (one for one in files if one.endswith("tar.gz"))
    files[name] += b"more"
    done = agent(root, url)
    assert done.returncode == 2
    assert "the checksum of" in done.stderr
    assert not (root.path / "usr/local/bin/helm").exists()


@pytest.mark.usefixtures("secrets")
def test_an_agent_is_set_up_once_and_connects(
    root: Root, site: tuple[str, dict[str, bytes]]
) -> None:
    url, _ = site
    root.script("usr/bin/java", _JAVA_21)
    root.systemctl_calls()
    done = agent(root, url)
    assert done.returncode == 0, done.stderr
    assert root.systemctl_calls()[1:] == [
        "daemon-reload",
        "enable --quiet --now jenkins-agent",
        "restart jenkins-agent",
    ]
    assert root.run("helm").stdout == root.run("kubectl").stdout == "a tool\n"
    assert {"docker", "jenkins-agent"} == set(root.run("id", "-nG", "jenkins-agent").stdout.split())
    stamps = changed(root)
    again = agent(root, url)
    assert again.returncode == 0, again.stderr
    assert "restart jenkins-agent" not in root.systemctl_calls()
    assert changed(root) == stamps
    _connects(root)


@pytest.mark.usefixtures("secrets")
def test_an_agent_finds_and_trusts_the_controller_that_it_is_told_of(
    root: Root, site: tuple[str, dict[str, bytes]]
) -> None:
    """That it trusts no other is tried with the real Java: test_pipeline.py."""
    root.script("usr/bin/java", _JAVA_21)
    root.write("etc/keyrack/secrets/TLS_CERTIFICATE", "a certificate")
    given = {"HELM_SITE": site[0], "KUBECTL_SITE": site[0], "JENKINS_URL": URL}
    for address in ("10.20.0.9", "10.20.0.10", "10.20.0.10"):
        done = root.run(JENKINS, "agent", JENKINS_ADDRESS=address, **given)
        assert done.returncode == 0, done.stderr
    hosts = (root.path / "etc/hosts").read_text().splitlines()
    told = [line for line in hosts if "ci.example.org" in line]
    assert told == ["10.20.0.10 ci.example.org # install-jenkins"]
    unit = (root.path / "etc/systemd/system/jenkins-agent.service").read_text()
    assert "LoadCredential=TLS_CERTIFICATE:/etc/keyrack/secrets/TLS_CERTIFICATE\n" in unit
    (root.path / "etc/keyrack/secrets/TLS_CERTIFICATE").unlink()


def changed(root: Root) -> dict[str, int]:
    names = (
        *("etc/systemd/system/jenkins-agent.service", "usr/local/lib/keyrack/jenkins-agent"),
        *("usr/local/bin/helm", "usr/local/bin/kubectl", "etc/passwd", "var/lib/dpkg/status"),
    )
    return {name: (root.path / name).stat().st_mtime_ns for name in names}


def _connects(root: Root) -> None:
    """Do what systemd would: run the unit's program as its user, with its variables."""
    unit = (root.path / "etc/systemd/system/jenkins-agent.service").read_text()
    program = re.findall("^ExecStart=(.*)$", unit, re.MULTILINE)[0]
    variables = dict(
        word.split("=", 1)
        for word in re.findall("^Environment=(.*)$", unit, re.MULTILINE)[0].split()
    )
    credential, source = re.findall("^LoadCredential=(.*):(.*)$", unit, re.MULTILINE)[0]
    prepared = (
        "mkdir -p /run/agent /run/credentials && chown jenkins-agent /run/agent &&"
        f" install -o jenkins-agent -m 0400 {source} /run/credentials/{credential} &&"
        f" exec setpriv --reuid jenkins-agent --regid jenkins-agent --clear-groups {program}"
    )
    variables |= {"RUNTIME_DIRECTORY": "/run/agent", "CREDENTIALS_DIRECTORY": "/run/credentials"}
    done = root.run("sh", "-c", prepared, **variables)
    assert done.returncode == 0, done.stderr
    words = (root.path / "run/agent/java.log").read_text().split()
    assert words == [
        *("-jar", "agent.jar", "-url", variables["JENKINS_URL"] + "/", "-name", "docker-1"),
        *("-secret", "@secret", "-webSocket", "-workDir", "/var/lib/jenkins-agent"),
    ]
    assert (root.path / "run/agent/secret").read_text() == "0a" * 32
    assert variables["PYTHON"] == "python3"


# The controller


@pytest.fixture(scope="module")
def machine(root: Root, archive: Path) -> Root:
    """The root with its own Docker, which has a stand-in for Jenkins' image and its downloads."""
    root.start_machine()
    base = re.findall("^ARG BASE=(.*)$", (ROOT / "deploy/jenkins/Dockerfile").read_text(), re.M)[0]
    context = root.path / "stand-in"
    context.mkdir()
    for name, text in (_STAND_IN_PROGRAMS | {"jenkins.sh": _STAND_IN_JENKINS}).items():
        (context / name).write_text(text)
    (context / "Dockerfile").write_text(_STAND_IN_IMAGE)
    with archive.open("rb") as source, (root.path / "base.tar").open("wb") as copy:
        while block := source.read(1 << 24):
            copy.write(block)
    for words in (
        ("docker", "import", "/base.tar", "debian:stand-in"),
        ("env", "DOCKER_BUILDKIT=1", "docker", "build", "--quiet", "--tag", base, "/stand-in"),
    ):
        done = root.run(*words)
        assert done.returncode == 0, done.stderr
    (root.path / "base.tar").unlink()
    return root


_STAND_IN_IMAGE = """\
FROM debian:stand-in
RUN useradd --uid 1000 --create-home --home-dir /var/jenkins_home jenkins
ENV JENKINS_VERSION=2.568.3
COPY --chmod=0755 jenkins.sh jenkins-plugin-cli /usr/local/bin/
COPY --chmod=0755 tini curl unzip /usr/bin/
"""
_STAND_IN_PROGRAMS = {
    "jenkins-plugin-cli": """\
#!/usr/bin/python3
import pathlib, sys, zipfile
target = pathlib.Path("/usr/share/jenkins/ref/plugins")
target.mkdir()
for line in open(sys.argv[sys.argv.index("--plugin-file") + 1]):
    if line[0].isalpha():
        name, version = line.strip().split(":")
        with zipfile.ZipFile(target / (name + ".jpi"), "w") as plugin:
            text = f"Short-Name: {name}\\nPlugin-Version: {version}\\nJenkins-Version: 2.500\\n"
            plugin.writestr("META-INF/MANIFEST.MF", text)
""",
    "unzip": (
        "#!/usr/bin/python3\nimport sys, zipfile\n"
        "sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[2]).read(sys.argv[3]))\n"
    ),
    "tini": '#!/bin/sh\nshift\nexec "$@"\n',
    "curl": "#!/usr/bin/python3\nimport sys, urllib.request as u\nu.urlopen(sys.argv[-1])\n",
}
_STAND_IN_JENKINS = """\
#!/usr/bin/python3
import http.server, os, pathlib, signal, sys
import ssl, subprocess, threading
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
given = dict(word[2:].split("=", 1) for word in sys.argv[1:])
starts = pathlib.Path("/var/jenkins_home/starts")
starts.write_text((starts.read_text() if starts.exists() else "") + "started\\n")
pathlib.Path("/tmp/login").touch()
os.chdir("/tmp")
serve = lambda *at: http.server.ThreadingHTTPServer(at, http.server.SimpleHTTPRequestHandler)
plain = serve(given.get("httpListenAddress", ""), int(given["httpPort"]))
if "httpsPort" in given:
    word = "pass:" + given["httpsKeyStorePassword"]
    unpack = ["openssl", "pkcs12", "-in", given["httpsKeyStore"], "-passin", word, "-noenc"]
    subprocess.run([*unpack, "-out", "both"], check=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("both")
    safe = serve("", int(given["httpsPort"]))
    safe.socket = context.wrap_socket(safe.socket, server_side=True)
    threading.Thread(target=safe.serve_forever, daemon=True).start()
plain.serve_forever()
"""
_ASK = """import ssl, sys, urllib.request as u
context = ssl.create_default_context(cafile=sys.argv[2]) if sys.argv[2:] else None
print(u.urlopen(sys.argv[1], context=context).status)
"""
"""Asks an address, and trusts the certificate in a file."""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from _disk(tmp_path_factory.mktemp("disk") / "image")


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[str]:
    yield from _disk(tmp_path / "image")


def _disk(path: Path) -> Iterator[str]:
    with path.open("wb") as file:
        file.truncate(64 << 20)
    words = ["losetup", "--find", "--show", str(path)]
    device = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


def controller(root: Root, **given: str) -> subprocess.CompletedProcess[str]:
    usual = {"JENKINS_URL": URL, "JENKINS_PORT": "18443", "TLS_NAMES": "127.0.0.1"}
    return root.run(JENKINS, "controller", **usual | given)


def container(root: Root) -> dict[str, object]:
    found: dict[str, object] = json.loads(root.run("docker", "inspect", "jenkins").stdout)[0]
    return found


def starts(root: Root) -> int:
    return root.run("cat", "/var/lib/jenkins/starts").stdout.count("started")


@pytest.mark.usefixtures("secrets")
def test_a_controller_is_set_up_once_with_its_home_on_a_disk(machine: Root, disk: str) -> None:
    done = controller(machine, JENKINS_HOME_DEVICE=disk)
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"Jenkins answers at {URL}" in done.stdout
    assert machine.run("findmnt", "-no", "SOURCE,FSTYPE", "/var/lib/jenkins").stdout.split() == [
        disk,
        "ext4",
    ]
    modes = machine.run("sh", "-c", "stat -c '%u %a' /etc/keyrack/secrets /etc/keyrack/secrets/*")
    assert set(modes.stdout.splitlines()) == {"1000 700", "1000 600"}
    first, line = container(machine), (machine.path / "etc/fstab").read_text()
    assert re.fullmatch(r"(#.*\n)*UUID=\S+ /var/lib/jenkins auto defaults,nofail 0 2\n", line)
    assert starts(machine) == 1

    again = controller(machine, JENKINS_HOME_DEVICE=disk)
    assert again.returncode == 0, again.stderr
    second = container(machine)
    assert (second["Id"], second["State"]) == (first["Id"], first["State"])
    assert (machine.path / "etc/fstab").read_text() == line
    assert starts(machine) == 1


def ask(machine: Root, *words: str) -> str:
    """What the machine itself is answered, or the last line of why not."""
    done = machine.run("python3", "-c", _ASK, *words)
    return (done.stdout or done.stderr).strip().splitlines()[-1]


@pytest.mark.usefixtures("secrets")
def test_the_controller_is_reached_by_https_alone(machine: Root, disk: str) -> None:
    assert controller(machine, JENKINS_HOME_DEVICE=disk).returncode == 0
    made = "/var/lib/jenkins/tls/certificate.pem"
    assert ask(machine, "https://127.0.0.1:18443/login", made) == "200"
    assert "CERTIFICATE_VERIFY_FAILED" in ask(machine, "https://127.0.0.1:18443/login")
    published = container(machine)["NetworkSettings"]["Ports"]  # type: ignore[index]  # a JSON object
    assert {port for port, where in published.items() if where} == {"8443/tcp"}


@pytest.mark.usefixtures("secrets")
def test_behind_a_proxy_the_controller_is_reached_from_its_own_machine_alone(
    machine: Root, disk: str
) -> None:
    done = controller(machine, JENKINS_HOME_DEVICE=disk, BEHIND_PROXY="1", JENKINS_PORT="18080")
    assert done.returncode == 0, done.stderr
    assert ask(machine, "http://127.0.0.1:18080/login") == "200"
    bound = container(machine)["HostConfig"]["PortBindings"]  # type: ignore[index]  # a JSON object
    assert bound == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18080"}]}


@pytest.mark.usefixtures("secrets")
def test_a_changed_secret_makes_the_controller_anew_and_keeps_its_home(
    machine: Root, disk: str
) -> None:
    before = (container(machine)["Id"], starts(machine))
    machine.write("etc/keyrack/secrets/ADMIN_PASSWORD", "another-password")
    done = controller(machine, JENKINS_HOME_DEVICE=disk)
    assert done.returncode == 0, done.stderr
    assert container(machine)["Id"] != before[0]
    assert starts(machine) == before[1] + 1


@pytest.mark.usefixtures("secrets")
def test_a_controller_that_cannot_start_says_which_secret_is_missing(machine: Root) -> None:
    (machine.path / "etc/keyrack/secrets/WEBHOOK_SECRET").unlink()
    done = controller(machine)
    assert done.returncode == 2
    assert "WEBHOOK_SECRET is missing" in done.stderr
    assert container(machine)["State"]["Running"] is False  # type: ignore[index]  # a JSON object


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("content", ["swap", "partitions"])
def test_a_disk_with_something_else_on_it_is_refused_and_left_alone(
    machine: Root, other_disk: str, content: str
) -> None:
    if content == "swap":
        subprocess.run(["mkswap", other_disk], check=True, capture_output=True)
    else:
        _partition(Path(other_disk))
    before = sha256(Path(other_disk).read_bytes())
    done = controller(machine, JENKINS_HOME_DEVICE=other_disk)
    assert done.returncode == 2
    assert "Name another disk, or empty this one: wipefs" in done.stderr
    assert sha256(Path(other_disk).read_bytes()) == before


def _partition(disk: Path) -> None:
    """Write the table of an old PC: one Linux partition from the second MiB on."""
    entry = struct.pack("<8B2I", 0, 0, 0, 0, 0x83, 0, 0, 0, 2048, 100_000)
    with disk.open("r+b") as device:
        device.write(bytes(446) + entry + bytes(48) + b"\x55\xaa")


@pytest.mark.usefixtures("secrets")
def test_a_disk_that_is_not_there_is_named(machine: Root) -> None:
    done = controller(machine, JENKINS_HOME_DEVICE="/dev/no-such-disk")
    assert done.returncode == 2
    assert "JENKINS_HOME_DEVICE=/dev/no-such-disk is no disk" in done.stderr
