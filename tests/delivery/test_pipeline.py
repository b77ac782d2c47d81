"""The pipeline: the real Jenkinsfile with recorded steps, its scripts, the controller.

`make pipeline-test` runs this; it needs Groovy, Java, npm, and the Helms of the chart's tests.
"""

from __future__ import annotations

import base64
import copy
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml
from delivery.pipeline_support.builds import (
    COMMIT,
    DIGEST,
    HERE,
    JENKINS,
    JENKINSFILE,
    ROOT,
    Run,
    casc,
    credentials,
    java_environment,
    plugins,
    run_builds,
    scenario,
)
from delivery.pipeline_support.world import (
    IMAGE,
    TlsController,
    Webhook,
    World,
    copy_real_helm,
    free_port,
    keyrack_running,
    real_helm,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

PULL_REQUEST = {"branch": "PR-7", "change": True}
OUTWARD = {"publish", "sign", "recover", "deploy", "verify", "rollback", "pipeline-check-access"}
"""Targets that reach the registry with credentials, or a cluster."""

MISSING = {
    kind: {k: v for k, v in credentials(casc()).items() if k != kind}
    for kind in ("dockerhub", "kubeconfig-staging", "kubeconfig-production", "notify-url")
}


SLACK = "https://hooks.slack.com/services/x"
TELEGRAM = "https://api.telegram.org/bot1:x/sendMessage?chat_id=-42"


def fails(pattern: str) -> dict[str, Any]:
    return {"match": pattern, "status": 2}


def cut_off(pattern: str) -> dict[str, Any]:
    """A limit is reached while this runs."""
    return {"match": pattern, "status": 0, "abort": True}


BOTH = "linux/amd64,linux/arm64"

SCENARIOS = [
    scenario("main"),
    scenario("branch", branch="try-something"),
    scenario("pull request", **PULL_REQUEST),
    scenario("pull request of a branch called main", branch="PR-8", change=True),
    scenario(
        "other registry",
        params={"REGISTRY": "registry.example", "REPOSITORY": "a/b"},
        controller={"DOCKERHUB_REGISTRY": "registry.example"},
        input="admin",
    ),
    scenario("two platforms", params={"PLATFORMS": BOTH}),
    scenario("registry of a stranger", params={"REGISTRY": "registry.example"}),
    scenario("developer who is not asked", input="bob"),
    scenario("image exists", sh=[{"match": "image-exists", "status": 0}]),
    scenario("refused", input="nobody"),
    scenario("recovered", previous="FAILURE"),
    scenario("broken webhook", previous="FAILURE", webhook="broken"),
    scenario("broken webhook and tests", webhook="broken", sh=[fails("make test-wheel")]),
    scenario("no webhook at all", previous="FAILURE", credentials=MISSING["notify-url"]),
    scenario("slack", sh=[fails("make lint")], secrets={"notify-url": SLACK}),
    scenario("telegram", sh=[fails("make lint")], secrets={"notify-url": TELEGRAM}),
    scenario("deploy is cut off", sh=[cut_off("make deploy")]),
    scenario("image is cut off", sh=[cut_off("make image$")]),
    scenario("agent is lost once", sh=[{"match": "make test-wheel", "status": 0, "lost": 1}]),
    scenario("agent is lost", sh=[{"match": "make test-wheel", "status": 0, "lost": 9}]),
    scenario("agent is lost in a deploy", sh=[{"match": "make deploy", "status": 0, "lost": 1}]),
    *(
        scenario(f"{target} fails", sh=[fails(f"make {target}\\b")])
        for target in (
            "pipeline-check",
            "pipeline-check-access",
            "lint",
            "test-wheel",
            "static-analysis",
            "chart-test",
            "test-late",
            "test-valkey",
            "test-faults",
            "fuzz",
            "contained",
            "image",
            "scan",
            "publish",
            "sign",
            "deploy",
            "verify",
            "prune",
        )
    ),
    scenario("image-digest fails", sh=[fails("image-digest")]),
    scenario("prune is cut off", sh=[cut_off("make prune")]),
    scenario("verify is cut off", sh=[cut_off("make verify")]),
    scenario("verify and rollback fail", sh=[fails("make verify"), fails("make rollback")]),
    scenario("pull request fails", **PULL_REQUEST, sh=[fails("make lint")]),
    *(scenario(f"no {missing}", credentials=rest) for missing, rest in MISSING.items()),
]

# What Jenkins refuses, the harness must refuse, or its tests would show little.
BROKEN = {
    "a step that does not exist": ("sh 'make lint'", "shell 'make lint'"),
    "a section that does not exist": ("stage('Lint') {", "stage('Lint') {\nwhenever { }\n"),
    "a step without an agent": ("agent { label 'docker' }\n            options", "options"),
    "a credential of another kind": (
        "file(credentialsId: 'kubeconfig-staging'",
        "string(credentialsId: 'kubeconfig-staging'",
    ),
    "two stages of one name": ("stage('Chart')", "stage('Lint')"),
    "an agent around stages side by side": (
        "stage('Delivery tests') {",
        "stage('Delivery tests') {\nagent { label 'docker' }",
    ),
    "stages side by side within such": (
        "stage('Source') {\n                            stages {",
        "stage('Source') {\n                            parallel {",
    ),
    "failing fast alone": ("stage('Test') {", "stage('Test') {\nfailFast true"),
    "a misspelt credential": ("credentials('kubeconfig-production')", "credentials('kubecfg')"),
}


PRODUCTION_VERIFIED = """stage('Verify production') {
                    steps { timeout(time: 10, unit: 'MINUTES') """


def changed(before: str, after: str) -> str:
    assert before in JENKINSFILE
    return JENKINSFILE.replace(before, after)


SCENARIOS += [
    *(scenario(what, jenkinsfile=changed(*change)) for what, change in BROKEN.items()),
    # Production fails to verify, staging does not.
    scenario(
        "late",
        sh=[fails("#late")],
        jenkinsfile=changed(
            f"{PRODUCTION_VERIFIED}{{ sh 'make verify'",
            f"{PRODUCTION_VERIFIED}{{ sh 'make verify #late'",
        ),
    ),
    # A condition of a stage that fails keeps no later one from running.
    scenario(
        "post fails",
        sh=[fails("make results "), fails("make test-wheel")],
    ),
]


@pytest.fixture(scope="session")
def harness(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Run], list[dict[str, Any]]]:
    return run_builds(SCENARIOS, tmp_path_factory.mktemp("builds"))


@pytest.fixture(scope="session")
def builds(harness: tuple[dict[str, Run], list[dict[str, Any]]]) -> dict[str, Run]:
    return harness[0]


# The Jenkinsfile


def test_a_build_of_main_runs_all_stages_in_order(builds: dict[str, Run]) -> None:
    run = builds["main"]
    assert run.result == "SUCCESS"
    assert run.made == [
        "results-clean",
        "pipeline-check",
        "pipeline-check-access",
        "lint",
        "chart-test",
        "static-analysis",
        "image-exists",
        "image",
        "scan",
        "test-wheel",
        "results",
        "test-late",
        "test-valkey",
        "test-faults",
        "fuzz",
        "contained",
        "contained",
        "contained",
        "publish",
        "image-digest",
        "sign",
        "recover",
        "deploy",
        "verify",
        "recover",
        "deploy",
        "verify",
    ]
    assert run.started == [
        "Build",
        "Checkout",
        "Check access",
        "Checks",
        "Source",
        "Lint",
        "Chart",
        "Static analysis",
        "Image and scan",
        "Image",
        "Scan",
        "Test",
        "Long tests",
        "Delivery tests",
        "Pipeline",
        "Infrastructure",
        "Image tests",
        "Push",
        "Sign",
        "Staging",
        "Deploy to staging",
        "Verify staging",
        "Ask for production",
        "Production",
        "Deploy to production",
        "Verify production",
    ]


@pytest.mark.parametrize("name", ["pull request", "pull request of a branch called main", "branch"])
def test_only_main_pushes_and_deploys(builds: dict[str, Run], name: str) -> None:
    run = builds[name]
    assert run.result == "SUCCESS"
    assert run.made == [
        "results-clean",
        "pipeline-check",
        "lint",
        "chart-test",
        "static-analysis",
        "image-exists",
        "image",
        "scan",
        "test-wheel",
        "results",
    ]
    assert not OUTWARD & set(run.made)
    assert run.of("credential") == []
    assert run.of("input") == []
    skipped = [event["stage"] for event in run.of("skipped")]
    assert skipped == [
        "Check access",
        "Long tests",
        "Delivery tests",
        "Push",
        "Sign",
        "Staging",
        "Ask for production",
        "Production",
    ]


def test_the_tag_is_the_commit_wherever_it_is_used(builds: dict[str, Run]) -> None:
    run = builds["main"]
    for target in ("image", "scan", "publish", "deploy", "verify"):
        assert run.environment(target)["TAG"] == COMMIT
        assert run.environment(target)["IMAGE"] == "docker.io/keyrack/keyrack"
    assert run.environment("deploy", "Deploy to production")["TAG"] == COMMIT


def test_registry_and_name_are_parameters(builds: dict[str, Run]) -> None:
    run = builds["other registry"]
    for target in ("image", "scan", "publish", "deploy", "verify"):
        assert run.environment(target)["IMAGE"] == "registry.example/a/b"


def test_both_clusters_get_the_image_by_the_digest_that_was_pushed(builds: dict[str, Run]) -> None:
    for name in ("staging", "production"):
        for target, stage in (("deploy", f"Deploy to {name}"), ("verify", f"Verify {name}")):
            seen = builds["main"].environment(target, stage)
            assert seen["DIGEST"] == DIGEST
            assert "REGISTRY_PASSWORD" not in seen


def test_platforms_are_a_parameter(builds: dict[str, Run]) -> None:
    for target in ("image", "scan", "publish"):
        assert builds["two platforms"].environment(target)["PLATFORMS"] == BOTH
        assert builds["main"].environment(target)["PLATFORMS"] == ""


def test_each_environment_has_its_cluster(builds: dict[str, Run]) -> None:
    run = builds["main"]
    for name in ("staging", "production"):
        for target, stage in (("deploy", f"Deploy to {name}"), ("verify", f"Verify {name}")):
            seen = run.environment(target, stage)
            assert seen["ENVIRONMENT"] == name
            assert seen["KUBECONFIG"] == f"file kubeconfig-{name}"
            assert "VERIFY_URL" not in seen


def test_an_image_that_exists_is_not_built_again(builds: dict[str, Run]) -> None:
    run = builds["image exists"]
    assert run.result == "SUCCESS"
    assert "image" not in run.made
    assert run.of("skipped", stage="Image")
    assert run.made[run.made.index("image-exists") + 1] == "scan"


def test_the_registry_password_is_seen_by_nothing_but_what_needs_it(builds: dict[str, Run]) -> None:
    seen = {
        script["script"]
        for script in builds["main"].of("sh")
        if "REGISTRY_PASSWORD" in script["env"]
    }
    needed = {"make pipeline-check-access", "make --silent image-exists", "make publish"}
    needed |= {"make sign", "make --silent image-digest"}
    assert seen == needed


def test_tests_leave_results_that_jenkins_reads_also_when_they_fail(builds: dict[str, Run]) -> None:
    (shown,) = builds["test-wheel fails"].of("junit")
    (command,) = [one for one in builds["main"].shell if "make test-wheel" in one]
    directory, _, pattern = shown["files"].partition("/")
    assert pattern == "*.xml"
    assert f'JUNIT="$PWD/{directory}"' in command
    assert len(builds["main"].of("junit")) == 1


@pytest.mark.parametrize(
    "target",
    [
        "pipeline-check",
        "pipeline-check-access",
        "lint",
        "test-wheel",
        "static-analysis",
        "chart-test",
        "test-late",
        "test-valkey",
        "test-faults",
        "fuzz",
        "contained",
        "image",
        "scan",
        "publish",
        "image-digest",
        "sign",
    ],
)
def test_what_fails_before_the_deploy_ends_the_build_there(
    builds: dict[str, Run], target: str
) -> None:
    run = builds[f"{target} fails"]
    assert run.result == "FAILURE"
    made = [name for name in run.made if name != "results"]
    assert made[-1] == target
    assert not {"deploy", "verify", "rollback"} & set(made)


def test_a_failed_deploy_is_left_to_helm_and_ends_the_build(builds: dict[str, Run]) -> None:
    run = builds["deploy fails"]
    assert run.result == "FAILURE"
    assert [name for name in run.made if name in OUTWARD][-2:] == ["deploy", "recover"]
    assert run.of("input") == []


def test_a_failed_verification_is_rolled_back_and_fails(builds: dict[str, Run]) -> None:
    run = builds["verify fails"]
    assert run.result == "FAILURE"
    assert run.made[-4:] == ["recover", "deploy", "verify", "rollback"]
    rolled_back = run.environment("rollback", "Verify staging")
    assert rolled_back["ENVIRONMENT"] == "staging"
    assert rolled_back["KUBECONFIG"] == "file kubeconfig-staging"
    assert "Production" not in run.started


def test_a_failed_verification_of_production_is_rolled_back_there(builds: dict[str, Run]) -> None:
    run = builds["late"]
    assert run.result == "FAILURE"
    assert run.made[-5:] == ["verify", "recover", "deploy", "verify", "rollback"]
    rolled_back = run.environment("rollback", "Verify production")
    assert rolled_back["ENVIRONMENT"] == "production"
    assert rolled_back["KUBECONFIG"] == "file kubeconfig-production"


def test_a_verification_that_is_cut_off_is_rolled_back_too(builds: dict[str, Run]) -> None:
    run = builds["verify is cut off"]
    assert run.result == "ABORTED"
    assert run.made[-2:] == ["verify", "rollback"]


def test_a_failed_rollback_still_fails_the_build_and_is_told(builds: dict[str, Run]) -> None:
    run = builds["verify and rollback fail"]
    assert run.result == "FAILURE"
    assert run.made[-2:] == ["verify", "rollback"]
    assert run.told[0]["status"] == "failure"


A_DAY = 24 * 60


def test_what_deploys_and_puts_back_has_a_limit_of_its_own_and_no_other(
    builds: dict[str, Run],
) -> None:
    """Neither a question nor the wait for an agent takes from it."""
    targets = ("make deploy", "make verify", "make recover", "make rollback")
    for name in ("main", "verify fails", "deploy is cut off", "late"):
        seen = [one for one in builds[name].of("sh") if one["script"].startswith(targets)]
        assert seen
        for one in seen:
            assert one["limits"][0] == A_DAY
            assert len(one["limits"]) == 2, one["script"]


def test_all_that_a_build_may_take_fits_twice_into_its_limit(builds: dict[str, Run]) -> None:
    run = builds["main"]
    assert all(len(one["limits"]) > 1 for one in run.of("sh"))
    unit = {"MINUTES": 1, "HOURS": 60}
    limits = [one["limit"] for one in run.of("timeout")]
    assert sum(one["time"] * unit[one["unit"]] for one in limits) + 60 < A_DAY / 2


def test_a_deploy_that_is_cut_off_is_put_back_in_time_of_its_own(builds: dict[str, Run]) -> None:
    run = builds["deploy is cut off"]
    assert run.result == "ABORTED"
    assert run.made[-2:] == ["deploy", "recover"]
    put_back = run.of("sh")[-2]["env"]
    assert put_back["ENVIRONMENT"] == "staging"
    assert put_back["KUBECONFIG"] == "file kubeconfig-staging"
    assert "Ask for production" not in run.started


def test_what_a_lost_agent_left_in_the_middle_is_put_back_before_the_next_deploy(
    builds: dict[str, Run],
) -> None:
    run = builds["agent is lost in a deploy"]
    assert run.result == "SUCCESS"
    assert len(run.of("retry")) == 1
    first = run.made.index("deploy")
    again = run.made.index("deploy", first + 1)
    assert run.made[again - 1] == "recover"


def test_a_lost_agent_is_tried_once_more_and_then_told_of(builds: dict[str, Run]) -> None:
    once = builds["agent is lost once"]
    assert once.result == "SUCCESS"
    assert once.made.count("test-wheel") == 2
    assert once.made.count("results-clean") == 2
    gone = builds["agent is lost"]
    assert gone.result == "ABORTED"
    assert gone.made.count("test-wheel") == 2
    assert [one["status"] for one in gone.told] == ["aborted"]


def test_stages_that_do_not_need_each_other_run_side_by_side(builds: dict[str, Run]) -> None:
    branches = [event["name"] for event in builds["main"].of("branch")]
    assert branches[:3] == ["Source", "Static analysis", "Image and scan"]
    assert branches[3:] == ["Pipeline", "Infrastructure", "Image tests"]
    assert builds["contained fails"].made.count("contained") == 1
    # What measures time has nothing beside it.
    assert "Test" not in branches
    assert "static-analysis" not in builds["lint fails"].made


def test_production_is_asked_for_and_holds_no_agent_meanwhile(builds: dict[str, Run]) -> None:
    (asked,) = builds["main"].of("input")
    assert asked["stage"] == "Ask for production"
    assert asked["submitter"] == "admin,alice"
    assert asked["holdsAgent"] is False
    assert asked["limits"] == [A_DAY, 60]
    events = builds["main"].events
    production = [e for e in events if e["event"] == "sh" and "production" in e["stage"]]
    assert events.index(asked) < events.index(production[0])


def test_only_an_administrator_and_who_is_named_let_a_commit_into_production(
    builds: dict[str, Run],
) -> None:
    assert builds["developer who is not asked"].result == "ABORTED"
    assert "Production" not in builds["developer who is not asked"].started
    # A controller that names nobody means the administrator.
    (asked,) = builds["other registry"].of("input")
    assert asked["submitter"] == "admin"
    assert builds["other registry"].result == "SUCCESS"


def test_the_credentials_of_the_registry_are_shown_to_no_other(builds: dict[str, Run]) -> None:
    run = builds["registry of a stranger"]
    assert run.result == "FAILURE"
    assert not any("REGISTRY_PASSWORD" in one["env"] for one in run.of("sh"))
    assert run.of("ended")[0]["message"] == (
        "The controller has credentials for docker.io (DOCKERHUB_REGISTRY)"
        " and none for registry.example"
    )


def test_without_consent_staging_stays_and_production_is_not_touched(
    builds: dict[str, Run],
) -> None:
    run = builds["refused"]
    assert run.result == "ABORTED"
    assert run.made[-2:] == ["deploy", "verify"]
    assert run.environment("verify")["ENVIRONMENT"] == "staging"
    assert run.made.count("deploy") == 1


def test_a_pushed_image_is_signed_where_a_key_is_configured(builds: dict[str, Run]) -> None:
    seen = builds["main"].environment("sign")
    assert seen["COSIGN_PRIVATE_KEY"] == "string cosign-key"
    assert seen["COSIGN_PASSWORD"] == "string cosign-password"
    others = [one for one in builds["main"].of("sh") if one["script"] != "make sign"]
    assert not any("COSIGN_PRIVATE_KEY" in one["env"] for one in others)


@pytest.mark.parametrize(("target", "kept"), [("static-analysis", "analysis"), ("scan", "scan")])
def test_reports_are_archived_also_when_they_are_bad(
    builds: dict[str, Run], target: str, kept: str
) -> None:
    run = builds[f"{target} fails"]
    (command,) = [one for one in run.shell if f"make {target}" in one]
    assert 'REPORTS="$PWD/.delivery/reports"' in command
    archived = [event["files"] for event in run.of("archive")]
    assert archived[-1] == f".delivery/reports/{kept}/*"


def test_a_pull_request_ends_its_build_before_and_main_never_does(
    builds: dict[str, Run],
) -> None:
    for name, ended in (("pull request", True), ("main", False), ("branch", False)):
        (option,) = builds[name].of("option", name="disableConcurrentBuilds")
        assert option["arguments"] == [{"abortPrevious": ended}]


FACTS = {
    "job": "keyrack/main",
    "build": "12",
    "commit": COMMIT,
    "url": "https://ci.example.org/job/keyrack/12/",
}


def test_a_failure_is_told(builds: dict[str, Run]) -> None:
    for name in ("lint fails", "verify fails", "pull request fails"):
        (told,) = builds[name].told
        assert told.items() >= (FACTS | {"status": "failure", "approved_by": ""}).items()
        assert told["text"] == (
            f"keyrack/main build 12 failed at commit {COMMIT[:12]}: {FACTS['url']}"
        )
        assert builds[name].of("http")[0]["url"] == "string notify-url"


@pytest.mark.parametrize("name", ["image is cut off", "deploy is cut off", "refused"])
def test_a_build_that_ends_before_its_end_is_told_of(builds: dict[str, Run], name: str) -> None:
    assert builds[name].result == "ABORTED"
    assert [one["status"] for one in builds[name].told] == ["aborted"]


def test_a_recovery_is_told(builds: dict[str, Run]) -> None:
    assert "recovery" in [one["status"] for one in builds["recovered"].told]
    assert builds["recovered"].result == "SUCCESS"


def test_who_approved_production_is_told(builds: dict[str, Run]) -> None:
    (told,) = builds["main"].told
    assert told["status"] == "production"
    assert told["approved_by"] == "alice"
    assert "approved for production by alice" in told["text"]
    assert builds["late"].told[0]["approved_by"] == "alice"
    assert builds["main"].of("echo")[0]["text"] == "Approved for production by alice"
    assert builds["main"].description == "Approved for production by alice"
    assert builds["refused"].description is None


def test_telling_needs_no_agent_and_shows_no_address(builds: dict[str, Run]) -> None:
    told = [event for run in builds.values() for event in run.of("http")]
    assert len(told) > 20
    assert not any(event["onAgent"] for event in told)
    assert all(event["quiet"] for event in told)


def test_nobody_is_told_of_a_pull_request_that_works(builds: dict[str, Run]) -> None:
    assert builds["pull request"].told == []


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("broken webhook", "SUCCESS"),
        ("no webhook at all", "SUCCESS"),
        ("broken webhook and tests", "FAILURE"),
    ],
)
def test_a_broken_webhook_changes_no_result(builds: dict[str, Run], name: str, result: str) -> None:
    assert builds[name].result == result
    assert builds[name].of("caught")


def test_slack_and_telegram_get_what_they_understand(builds: dict[str, Run]) -> None:
    text = f"keyrack/main build 12 failed at commit {COMMIT[:12]}: {FACTS['url']}"
    (slack,) = builds["slack"].of("http")
    assert slack["url"] == SLACK
    assert json.loads(slack["body"]) == {"text": text}
    (telegram,) = builds["telegram"].of("http")
    assert telegram["url"] == "https://api.telegram.org/bot1:x/sendMessage"
    assert json.loads(telegram["body"]) == {"chat_id": "-42", "text": text}


@pytest.mark.parametrize("missing", ["dockerhub", "kubeconfig-staging", "kubeconfig-production"])
def test_a_missing_credential_ends_the_build_before_anything_is_changed(
    builds: dict[str, Run], missing: str
) -> None:
    run = builds[f"no {missing}"]
    assert run.result == "FAILURE"
    (ended,) = run.of("ended")
    assert ended["message"] == f"Could not find credentials entry with ID '{missing}'"
    assert run.made == ["results-clean", "pipeline-check"]


def test_options_keep_builds_apart_short_and_few(builds: dict[str, Run]) -> None:
    options = {
        (event["stage"], event["name"]): event["arguments"] for event in builds["main"].of("option")
    }
    assert ("", "disableConcurrentBuilds") in options
    assert options["", "logRotator"][0]["numToKeepStr"] == "30"
    limited = {stage for stage, name in options if name == "timeout"}
    assert limited == {"", "Ask for production"}


@pytest.mark.parametrize("what", BROKEN)
def test_the_harness_refuses_what_jenkins_refuses(builds: dict[str, Run], what: str) -> None:
    assert builds[what].result == "FAILURE"
    assert builds[what].of("ended") or builds[what].of("refused")


def test_a_post_condition_that_fails_hides_nothing(builds: dict[str, Run]) -> None:
    run = builds["post fails"]
    assert run.of("post failed", condition="always")
    assert run.of("ended")[0]["message"] == "script returned exit code 2"
    assert [one["status"] for one in run.told] == ["failure"]


def test_every_make_target_that_is_named_exists(builds: dict[str, Run]) -> None:
    named = {target for run in builds.values() for target in run.made} - {"shell"} | {"prune"}
    in_text = set(re.findall(r"make (?:--silent )?([a-z][a-z-]*)", re.sub("//.*", "", JENKINSFILE)))
    assert named == in_text
    assert len(named) == 24
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "ARGS")}
    for target in sorted(named):
        done = subprocess.run(
            ["make", "--dry-run", target],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"make {target}: {done.stderr}"
    help_text = subprocess.check_output(["make", "help"], cwd=ROOT, env=environment, text=True)
    assert named <= {line.split(":")[0] for line in help_text.splitlines()}


@pytest.mark.timeout(300)
def test_the_linter_of_jenkinsfiles_has_no_complaint(tmp_path: Path) -> None:
    # In a directory of their own: the linter walks through all that is below what they share.
    good, bad = tmp_path / "good" / "Jenkinsfile", tmp_path / "bad" / "Jenkinsfile"
    for path, text in ((good, JENKINSFILE), (bad, changed("stage('Lint') {", "stage('Lint') {{"))):
        path.parent.mkdir()
        path.write_text(text)
    done = subprocess.run(
        [
            ROOT / ".delivery/pipeline/groovy-lint/node_modules/.bin/npm-groovy-lint",
            "--noserver",
            "--output",
            "json",
            "--config",
            HERE / "groovy-lint/groovylintrc.json",
            good,
            bad,
        ],
        cwd=tmp_path,
        # The quick compiler more than halves the time of a run this short.
        env=java_environment() | {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"},
        capture_output=True,
        text=True,
        check=False,
    )
    files = json.loads(done.stdout[done.stdout.index("{") :])["files"]
    found = {Path(name).resolve(): file["errors"] for name, file in files.items()}
    assert found[good.resolve()] == []
    assert any(error["rule"] == "NglParseError" for error in found[bad.resolve()])


def results_of(tmp_path: Path) -> list[str]:
    # What a make that runs these tests hands on to those that it starts is not for this one.
    of_make = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ARGS")
    made = subprocess.run(
        ["make", "--silent", "results", f"JUNIT={tmp_path / 'results'}"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in of_make},
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stderr == ""
    return sorted(path.name for path in (tmp_path / "results").iterdir())


def test_tests_that_did_not_start_are_a_result_too(tmp_path: Path) -> None:
    assert results_of(tmp_path) == ["not-started.xml"]
    suite = ElementTree.parse(tmp_path / "results/not-started.xml").getroot()
    error = suite.find("testcase/error")
    assert error is not None
    assert "did not start" in error.attrib["message"]


def test_results_that_are_there_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results/timing.xml").write_text("<testsuite/>")
    assert results_of(tmp_path) == ["timing.xml"]


def test_a_scan_writes_down_what_it_says_and_fails_all_the_same(
    world: World, tmp_path: Path
) -> None:
    world.answer("^docker image inspect", status=1)
    done = subprocess.run(
        [ROOT / "deploy/image/scan.sh", "an/image:tag"],
        env=os.environ
        | {
            "PATH": f"{world.bin}:{os.environ['PATH']}",
            "STUBS": str(world.prepared()),
            "REPORTS": str(tmp_path / "reports"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    report = (tmp_path / "reports/scan/report.txt").read_text()
    assert "there is no image an/image:tag" in report
    assert report == done.stdout


def test_the_jenkinsfile_is_thin() -> None:
    """A stage calls make and nothing else: what it does can be done by hand."""
    scripts = re.findall(r"\bsh(?: |\(script: )(['\"])(.+?)\1", JENKINSFILE)
    assert len(scripts) == JENKINSFILE.count(" sh '") + JENKINSFILE.count("sh(") > 12
    assert all(script.startswith("make ") for _, script in scripts)


def test_the_agent_is_pruned_at_the_end_however_a_build_ends(builds: dict[str, Run]) -> None:
    for name in ("main", "pull request", "lint fails", "deploy is cut off", "verify fails"):
        run = builds[name]
        built = [event for event in run.of("sh") if "production" not in event["stage"]]
        assert built[-1]["script"] == "make prune"
        assert built[-1]["stage"] == "Build"
    for name in ("prune fails", "prune is cut off"):
        assert builds[name].result == "SUCCESS"
        assert builds[name].of("caught", message="The agent was not pruned")
        assert "Verify production" in builds[name].started


# Scripts


def aged(path: Path, days: float) -> Path:
    """Let a file or directory look as if it had last been changed so many days ago."""
    then = time.time() - days * 86_400
    os.utime(path, (then, then))
    return path


def checkout(tmp_path: Path) -> Path:
    """A workspace with the scripts of this checkout, as an agent has it."""
    workspace = tmp_path / "workspace/keyrack_main"
    shutil.copytree(ROOT / "scripts", workspace / "scripts")
    return workspace


def prune(world: World, workspace: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [workspace / "scripts/pipeline-prune.sh"],
        env=os.environ
        | {"PATH": f"{world.bin}:{os.environ['PATH']}", "STUBS": str(world.prepared())}
        | {"WORKSPACE": str(workspace)}
        | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_old_images_of_this_project_are_removed_and_no_others(world: World, tmp_path: Path) -> None:
    world.answer("prune", stdout="deleted: sha256:1\nTotal reclaimed space: 1.5GB\n")
    done = prune(world, checkout(tmp_path), KEEP_DAYS="3")
    assert done.returncode == 0, done.stderr
    label = "label=org.opencontainers.image.title=Keyrack"
    assert world.calls == [
        f"docker image prune --all --force --filter {label} --filter until=72h",
        "docker builder prune --force --filter until=72h",
    ]
    assert done.stdout.count("Total reclaimed space: 1.5GB") == 2
    assert 'org.opencontainers.image.title="Keyrack"' in (ROOT / "Dockerfile").read_text()


def test_workspaces_that_are_not_built_any_more_are_removed(world: World, tmp_path: Path) -> None:
    workspace = checkout(tmp_path)
    ages = {"keyrack_PR-7": 20, "keyrack_PR-7@tmp": 20, "keyrack_PR-8": 10, "keyrack_main@tmp": 20}
    for name, days in ages.items():
        (workspace.parent / name / "inside").mkdir(parents=True)
        aged(workspace.parent / name, days)
    aged(workspace, 20)  # in use: it is this one
    done = prune(world, workspace)
    assert done.returncode == 0, done.stderr
    left = {path.name for path in workspace.parent.iterdir()}
    assert left == {"keyrack_main", "keyrack_main@tmp", "keyrack_PR-8"}
    assert "removed the workspace keyrack_PR-7\n" in done.stdout


def test_nothing_is_removed_beside_a_checkout_that_is_no_workspace(
    world: World, tmp_path: Path
) -> None:
    workspace = checkout(tmp_path)
    other = workspace.parent / "of-somebody"
    other.mkdir()
    aged(other, 100)
    assert prune(world, workspace, WORKSPACE="").returncode == 0
    assert prune(world, workspace, WORKSPACE=str(tmp_path / "elsewhere")).returncode == 0
    assert other.exists()


def test_environments_are_made_anew_once_a_week(world: World, tmp_path: Path) -> None:
    workspace = checkout(tmp_path)
    stamps = {".venv/.dev": 8, ".delivery/chart/.ready": 8, ".delivery/pipeline/.ready": 6}
    for name, days in stamps.items():
        stamp = workspace / name
        stamp.parent.mkdir(parents=True)
        stamp.touch()
        aged(stamp, days)
    # Inside of an environment, what looks like a stamp is none.
    (workspace / ".delivery/pipeline/venv/lib").mkdir(parents=True)
    aged_inside = workspace / ".delivery/pipeline/venv/lib/.ready"
    aged_inside.touch()
    aged(aged_inside, 30)
    done = prune(world, workspace)
    assert done.returncode == 0, done.stderr
    assert not (workspace / ".venv").exists()
    assert not (workspace / ".delivery/chart").exists()
    assert aged_inside.exists()
    assert "removed the environment .venv: the next build makes it anew" in done.stdout


def test_too_little_room_is_said_and_a_docker_that_fails_too(world: World, tmp_path: Path) -> None:
    workspace = checkout(tmp_path)
    done = prune(world, workspace, ROOM="9999999")
    assert done.returncode == 0
    assert "less than 9999999 GB" in done.stdout
    world.answer("prune", status=1, stderr="Cannot connect to the Docker daemon\n")
    done = prune(world, workspace)
    assert done.returncode == 1
    assert "Cannot connect" in done.stderr


def test_the_delivery_is_tested_in_containers_that_are_thrown_away(
    builds: dict[str, Run], world: World
) -> None:
    commands = [one for one in builds["main"].shell if "make contained" in one]
    tested = [re.findall(r"TARGET=(\S+) LIMIT=(\d+)m$", command)[0] for command in commands]
    assert {target for target, _ in tested} == {"pipeline-test", "infra-test", "image-test"}
    limits = {
        event["script"]: event["limits"][-1]
        for event in builds["main"].of("sh")
        if event["script"] in commands
    }
    # The container ends by itself before Jenkins ends what started it.
    assert all(int(limit) < limits[f"make contained TARGET={target} LIMIT={limit}m"]
               for target, limit in tested)  # fmt: skip

    done = world.make("contained", TARGET="infra-test", LIMIT="7m", CONTAINED_BASE="a:b")
    assert done.returncode == 0, done.stderr
    run, removed = world.calls
    (name,) = re.findall(r"--name (keyrack-infra-test-\d+)", run)
    for part in (
        "docker run --rm --init ",
        "--env CI=true ",
        "--env LIMIT=7m ",
        f"--volume {ROOT}:/checkout:ro ",
        " a:b bash -euo pipefail -c ",
    ):
        assert part in run
    assert "sha256sum --check" in run
    assert "--privileged" not in run
    assert removed == f"docker rm --force --volumes {name}"


def test_a_container_that_fails_or_is_cut_off_is_seen_and_removed(world: World) -> None:
    world.answer("^docker run", status=3)
    assert world.make("contained", TARGET="image-test").returncode != 0
    # Its tests start a Docker of their own.
    assert " --privileged --volume /var/lib/docker " in world.calls[0]

    world.answer("^docker run", wait=60)
    with subprocess.Popen(
        [ROOT / "scripts/contained.sh", "image-test"],
        env=os.environ
        | {"PATH": f"{world.bin}:{os.environ['PATH']}", "STUBS": str(world.prepared())},
    ) as process:
        deadline = time.monotonic() + 30
        while not world.calls and time.monotonic() < deadline:
            time.sleep(0.05)
        process.terminate()
        assert process.wait(30) == 143
    assert world.calls[-1].startswith("docker rm --force --volumes keyrack-image-test-")


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        text=True,
    )
    return [ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()]


def is_shell_script(path: Path) -> bool:
    with path.open("rb") as file:
        shebang = re.match(rb"#!.*[/ ](ba|da|)sh\b", file.readline(100))
    return path.suffix == ".sh" or shebang is not None


def test_shellcheck_has_no_complaint_about_any_script() -> None:
    scripts = [path for path in tracked() if is_shell_script(path)]
    assert {ROOT / "scripts/verify-api.sh", ROOT / "deploy/jenkins/start.sh"} <= set(scripts)
    done = subprocess.run(
        [ROOT / ".delivery/pipeline/venv/bin/shellcheck", "--external-sources", *scripts],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_static_analysis_finds_all_scripts() -> None:
    recipe = subprocess.check_output(["make", "--dry-run", "static-analysis"], cwd=ROOT, text=True)
    (command,) = re.findall(r"--external-sources (\$\(.*\))$", recipe, re.M)
    found = subprocess.check_output(
        ["bash", "-c", f"printf '%s\\n' {command}"], cwd=ROOT, text=True
    )
    scripts = {path for path in tracked() if is_shell_script(path)}
    assert {ROOT / name for name in found.splitlines()} == scripts


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.answer("^helm version", stdout="v3.19.0+g1234567\n")
    world.answer("^helm status", status=1, stderr="Error: release: not found\n")
    world.answer("^docker manifest inspect", status=1, stderr="no such manifest\n")
    world.answer("get statefulsets,deployments", stdout=f"{IMAGE}:{COMMIT}\n")
    world.answer("^kubectl .*get services", stdout="keyrack 8088\n")
    world.answer("^helm get values", stdout="null\n")
    return world


@pytest.fixture(scope="session")
def store() -> Iterator[int]:
    with keyrack_running() as port:
        yield port


@pytest.mark.parametrize(
    ("target", "variables", "sentence"),
    [
        (
            "pipeline-check",
            {"IMAGE": "docker.io/"},
            "'docker.io/' is no name of an image. Give REGISTRY",
        ),
        ("pipeline-check", {"IMAGE": ""}, "'' is no name of an image"),
        (
            "pipeline-check",
            {"IMAGE": "docker.io/Key Rack"},
            "'docker.io/Key Rack' is no name of an image",
        ),
        ("pipeline-check", {"TAG": "latest"}, "'latest' is no full hash of a commit"),
        (
            "pipeline-check",
            {"TAG": COMMIT[:12]},
            "is no full hash of a commit (40 hexadecimal digits)",
        ),
        ("pipeline-check", {"TAG": f"{COMMIT}-dirty"}, "Commit what was changed"),
        (
            "publish",
            {"REGISTRY_PASSWORD": None},
            "there are no credentials for registry.example:5000",
        ),
        ("publish", {"REGISTRY_USER": ""}, "In Jenkins they are the credential 'dockerhub'"),
        ("publish", {"IMAGE": "docker.io/"}, "is no name of an image"),
        (
            "pipeline-check-access",
            {"REGISTRY_PASSWORD": ""},
            "there are no credentials for registry.example:5000",
        ),
        ("pipeline-check-access", {}, "there is no kubeconfig for staging: KUBECONFIG_STAGING"),
        ("deploy", {"ENVIRONMENT": ""}, "'' is no environment. Use ENVIRONMENT=staging"),
        ("deploy", {"TAG": "latest"}, "'latest' is no full hash of a commit"),
        ("deploy", {"VALUES": "missing.yaml"}, "the file of values missing.yaml does not exist"),
        ("verify", {"ENVIRONMENT": "prod"}, "'prod' is no environment"),
        ("rollback", {"ENVIRONMENT": "prod"}, "'prod' is no environment"),
    ],
)
def test_bad_input_gets_a_sentence_and_changes_nothing(
    world: World, target: str, variables: dict[str, str | None], sentence: str
) -> None:
    done = world.make(target, **variables)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert world.changes() == []


@pytest.mark.parametrize("target", ["deploy", "verify", "rollback"])
def test_an_unreachable_cluster_is_said_before_anything_is_changed(
    world: World, target: str
) -> None:
    refusal = "E1 retrying\nThe connection to the server 10.0.0.1 was refused"
    world.answer("get --raw=/version", status=1, stderr=refusal)
    done = world.make(target)
    assert done.returncode != 0
    assert "the cluster of staging does not answer: The connection to the server" in done.stderr
    assert "Check KUBECONFIG" in done.stderr
    assert world.changes() == []


def test_access_is_checked_for_registry_and_both_clusters(world: World, tmp_path: Path) -> None:
    production = tmp_path / "production"
    production.write_text("{}")
    both = {"KUBECONFIG_STAGING": str(world.kubeconfig), "KUBECONFIG_PRODUCTION": str(production)}
    done = world.make("pipeline-check-access", **both)
    assert done.returncode == 0, done.stderr
    assert world.changes() == []
    (login,) = [note for note in world.notes if note["call"].startswith("docker login")]
    assert login["stdin"] == "the password\n"
    asked = [(n["KUBECONFIG"], n["call"]) for n in world.notes if "auth can-i" in n["call"]]
    assert [where for where, _ in asked] == [str(world.kubeconfig), str(production)]
    assert "keyrack-staging" in asked[0][1]
    assert "keyrack-production" in asked[1][1]

    production.write_text("")
    done = world.make("pipeline-check-access", **both)
    assert "there is no kubeconfig for production: KUBECONFIG_PRODUCTION" in done.stderr


def test_credentials_that_are_refused_and_rights_that_lack_are_said(world: World) -> None:
    both = {f"KUBECONFIG_{name}": str(world.kubeconfig) for name in ("STAGING", "PRODUCTION")}
    world.answer("auth can-i", status=1, stdout="no\n")
    done = world.make("pipeline-check-access", **both)
    assert done.returncode != 0
    assert "the kubeconfig of staging may not deploy" in done.stderr
    world.answer("^docker login", status=1, stderr="Error: status: 401 Unauthorized\n")
    done = world.make("pipeline-check-access", **both)
    assert done.returncode != 0
    refusal = (
        "registry.example:5000 does not let the user 'robot' in: Error: status: 401 Unauthorized."
    )
    assert refusal in done.stderr


def test_the_image_is_looked_for_here_and_then_in_the_registry(world: World) -> None:
    assert world.make("image-exists").returncode == 0
    assert world.calls == [f"docker image inspect {IMAGE}:{COMMIT}"]

    world.answer("^docker image inspect", status=1)
    assert world.make("image-exists").returncode != 0
    assert not [call for call in world.calls if "pull" in call]

    world.answer("^docker manifest inspect", status=0)
    assert world.make("image-exists", REGISTRY_USER=None).returncode == 0
    assert world.calls[-2:] == [
        f"docker manifest inspect {IMAGE}:{COMMIT}",
        f"docker pull --quiet {IMAGE}:{COMMIT}",
    ]
    assert "docker login" not in " ".join(world.calls)


def test_an_image_is_pushed_with_its_commit_and_leaves_no_password_behind(world: World) -> None:
    done = world.make("publish")
    assert done.returncode == 0, done.stderr
    assert world.changes() == [f"docker push {IMAGE}:{COMMIT}"]
    (login,) = [note for note in world.notes if note["call"].startswith("docker login")]
    assert login["call"] == "docker login --username robot --password-stdin registry.example:5000"
    assert login["stdin"] == "the password\n"
    assert "the password" not in " ".join(world.calls) + done.stdout + done.stderr
    assert login["DOCKER_CONFIG"].startswith(str(world.temporary))
    assert list(world.temporary.iterdir()) == []


def test_a_tag_that_is_pushed_already_stays_as_it_is(world: World) -> None:
    world.answer("^docker manifest inspect", status=0)
    assert world.make("publish").returncode == 0
    assert world.changes() == []


def test_a_registry_on_this_machine_needs_no_tls_and_any_other_does(world: World) -> None:
    world.answer("^docker manifest inspect", status=0)
    assert world.make("publish", IMAGE="127.0.0.1:5000/a").returncode == 0
    assert f"docker manifest inspect --insecure 127.0.0.1:5000/a:{COMMIT}" in world.calls
    assert world.make("publish").returncode == 0
    assert f"docker manifest inspect {IMAGE}:{COMMIT}" in world.calls


def test_an_image_that_was_not_built_cannot_be_pushed(world: World) -> None:
    world.answer("^docker image inspect", status=1)
    done = world.make("publish")
    assert "Build it first: make image" in done.stderr
    assert world.changes() == []


@pytest.mark.parametrize("version", ["v3.19.0+g1234567", "v4.0.1+g1234567"])
def test_a_deploy_waits_with_helm_3_and_4(world: World, version: str) -> None:
    world.answer("^helm version", stdout=version + "\n")
    done = world.make("deploy")
    assert done.returncode == 0, done.stderr
    (upgrade,) = world.changes()
    assert upgrade.startswith("helm upgrade keyrack deploy/chart --install ")
    for part in (
        "--namespace keyrack-staging",
        "--values deploy/jenkins/staging.yaml",
        "--wait",
        f"--set-string image.repository={IMAGE}",
        f"--set-string image.tag={COMMIT}",
    ):
        assert part in upgrade
    # Helm would remove the pods that can say why they do not get ready.
    assert "--atomic" not in upgrade
    assert "--rollback-on-failure" not in upgrade
    (note,) = [note for note in world.notes if note["call"] == upgrade]
    assert note["KUBECONFIG"] == str(world.kubeconfig)


def test_a_helm_that_is_neither_3_nor_4_is_refused(world: World) -> None:
    world.answer("^helm version", stdout="v2.17.0+g1234567\n")
    done = world.make("deploy")
    assert "this Helm is 'v2.17.0+g1234567'; version 3 or 4 is needed" in done.stderr
    assert world.changes() == []


def test_a_namespace_is_never_made_by_a_deploy(world: World) -> None:
    assert world.make("deploy").returncode == 0
    assert not any("create" in call and "namespace" in call for call in world.calls)


def test_a_namespace_that_does_not_exist_is_said_with_who_makes_it(world: World) -> None:
    missing = 'Error from server (NotFound): namespaces "keyrack-staging" not found'
    world.answer("^kubectl .*get namespace", status=1, stderr=missing)
    done = world.make("deploy")
    assert done.returncode != 0
    assert "the namespace keyrack-staging does not exist. An administrator" in done.stderr
    assert world.changes() == []


def test_a_namespace_that_may_not_be_looked_at_is_taken_to_exist(world: World) -> None:
    world.answer("^kubectl .*get namespace", status=1, stderr="Error from server (Forbidden)")
    assert world.make("deploy").returncode == 0
    assert world.changes() != []


def test_a_failed_deploy_fails(world: World) -> None:
    world.answer("^helm upgrade", status=1, stderr="Error: UPGRADE FAILED: timed out\n")
    done = world.make("deploy", ENVIRONMENT="production")
    assert done.returncode != 0
    assert "--namespace keyrack-production" in world.changes()[0]
    assert f"deployed {IMAGE}" not in done.stdout


def told_digest(world: World) -> None:
    """Let the registry tell the image's digest."""
    manifest = json.dumps({"Descriptor": {"digest": DIGEST}})
    world.answer("^docker manifest inspect .*--verbose", stdout=manifest)


def test_what_was_scanned_is_what_is_deployed_and_verified(world: World) -> None:
    told_digest(world)
    assert world.make("deploy").returncode == 0
    (upgrade,) = world.changes()
    assert f"--set-string image.digest={DIGEST}" in upgrade
    world.answer("get statefulsets,deployments", stdout=f"{IMAGE}@{DIGEST}\n")
    assert "ok    staging runs" in world.make("verify").stdout
    world.answer("get statefulsets,deployments", stdout=f"{IMAGE}@sha256:{'6' * 64}\n")
    assert "should run" in world.make("verify").stderr


class Registry:
    """A registry on loopback that tells digests, to those who have a token of its own."""

    def __init__(self, digest: str, private: bool) -> None:
        registry = self
        self.asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                registry.asked.append(self.path)
                if private and self.headers.get("Authorization") != "Bearer a-token":
                    realm = f"http://127.0.0.1:{registry.port}/token"
                    self.send_response(401)
                    scope = 'service="registry",scope="repository:team/keyrack:pull"'
                    self.send_header("WWW-Authenticate", f'Bearer realm="{realm}",{scope}')
                else:
                    assert "application/vnd.oci.image.index.v1+json" in self.headers["Accept"]
                    self.send_response(200)
                    self.send_header("Docker-Content-Digest", digest)
                self.end_headers()

            def do_GET(self) -> None:
                registry.asked.append(self.path)
                right = base64.b64encode(b"robot:the password").decode()
                good = self.headers.get("Authorization") == f"Basic {right}"
                self.send_response(200 if good else 401)
                self.end_headers()
                self.wfile.write(b'{"token": "a-token"}')

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def __enter__(self) -> Registry:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.parametrize("private", [False, True])
def test_the_digest_of_several_platforms_is_asked_of_the_registry_itself(
    world: World, private: bool
) -> None:
    # What Docker's own client tells of an index: its images, and not its own digest.
    world.answer("^docker manifest inspect", stdout='[{"Descriptor": {}}, {"Descriptor": {}}]')
    with Registry(DIGEST, private) as registry:
        image = f"127.0.0.1:{registry.port}/team/keyrack"
        done = world.make("image-digest", IMAGE=image)
        assert done.stdout == f"{DIGEST}\n", done.stderr
        assert registry.asked[0] == f"/v2/team/keyrack/manifests/{COMMIT}"
        if private:
            assert "scope=repository%3Ateam%2Fkeyrack%3Apull" in registry.asked[1]
            wrong = world.make("image-digest", IMAGE=image, REGISTRY_PASSWORD="other")
            assert wrong.returncode != 0
            assert "does not tell the digest" in wrong.stderr
    with Registry("nonsense", private) as registry:
        image = f"127.0.0.1:{registry.port}/team/keyrack"
        assert "Push it first: make publish" in world.make("image-digest", IMAGE=image).stderr


def test_the_images_of_all_platforms_are_pushed_and_then_their_index(world: World) -> None:
    done = world.make("publish", PLATFORMS=BOTH)
    assert done.returncode == 0, done.stderr
    pushed = [call for call in world.calls if "push" in call or "create" in call]
    each = [f"{IMAGE}:{COMMIT}-amd64", f"{IMAGE}:{COMMIT}-arm64"]
    assert pushed == [
        *(f"docker push {one}" for one in each),
        f"docker manifest create {IMAGE}:{COMMIT} {' '.join(each)}",
        f"docker manifest push --purge {IMAGE}:{COMMIT}",
    ]
    world.answer("^docker image inspect .*arm64", status=1)
    done = world.make("publish", PLATFORMS=BOTH)
    assert f"Build it first: make image PLATFORMS={BOTH}" in done.stderr
    assert world.changes() == []
    assert "is no platform" in world.make("publish", PLATFORMS="windows").stderr


def test_an_image_exists_only_with_all_its_platforms(world: World) -> None:
    assert world.make("image-exists", PLATFORMS=BOTH).returncode == 0
    world.answer("^docker image inspect .*arm64", status=1)
    assert world.make("image-exists", PLATFORMS=BOTH).returncode != 0
    world.answer("^docker manifest inspect", status=0)
    assert world.make("image-exists", PLATFORMS=BOTH).returncode == 0
    pulled = [call.split(":")[-1] for call in world.calls if "pull" in call]
    assert pulled == [COMMIT, f"{COMMIT}-amd64", f"{COMMIT}-arm64"]


def built(world: World, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Build with stubs, on a machine with or without an emulator."""
    world.answer("^docker version", stdout="20.10.24 20.10.24\n")
    return world.make("image", BINFMT=str(tmp_path / "binfmt"), **variables)


def test_an_image_is_built_for_each_platform_where_the_machine_can_run_it(
    world: World, tmp_path: Path
) -> None:
    own = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    other, machine = ("arm64", "aarch64") if own == "amd64" else ("amd64", "x86_64")
    done = built(world, tmp_path, PLATFORMS=BOTH)
    assert done.returncode != 0
    assert f"cannot run what is built for linux/{other}. Install an emulator" in done.stderr
    assert not [call for call in world.calls if " build " in call]

    (tmp_path / "binfmt").mkdir()
    (tmp_path / f"binfmt/qemu-{machine}").write_text("enabled\ninterpreter /usr/bin/qemu\n")
    assert built(world, tmp_path, PLATFORMS=BOTH).returncode == 0
    builds = {
        re.findall(r"--platform linux/(\w+)", call)[0]: re.findall(r"--tag (\S+)", call)
        for call in world.calls
        if call.startswith("docker build ")
    }
    assert builds == {
        own: [f"{IMAGE}:{COMMIT}-{own}", f"{IMAGE}:{COMMIT}"],
        other: [f"{IMAGE}:{COMMIT}-{other}"],
    }
    assert built(world, tmp_path).returncode == 0
    (build,) = [call for call in world.calls if call.startswith("docker build ")]
    assert "--platform" not in build
    assert build.endswith(f"--tag {IMAGE}:{COMMIT} .")
    world.answer("^docker build .*arm64", status=1)
    assert built(world, tmp_path, PLATFORMS=BOTH).returncode != 0


def test_each_platform_is_scanned_and_has_its_report(world: World, tmp_path: Path) -> None:
    world.put("trivy", '#!/bin/sh\nfor image; do :; done; echo "scanned $image"\n')
    done = world.make("scan", PLATFORMS=BOTH, REPORTS=str(tmp_path / "reports"))
    assert done.returncode == 0, done.stderr
    found = {path.name: path.read_text() for path in (tmp_path / "reports/scan").iterdir()}
    assert found == {
        f"report-{arch}.txt": f"scanned {IMAGE}:{COMMIT}-{arch}\n" for arch in ("amd64", "arm64")
    }


def test_an_image_whose_digest_nobody_tells_is_deployed_by_its_tag(world: World) -> None:
    done = world.make("deploy")
    assert "goes by its tag" in done.stdout
    assert "image.digest" not in world.changes()[0]


def test_a_pushed_image_is_signed_by_its_digest_and_verified(world: World) -> None:
    told_digest(world)
    world.answer("^docker run .*dpkg-query", stdout="libc6\t2.36\tamd64\ndebian\n")
    world.answer("^docker run .*importlib", stdout="lmdb\t2.0\n")
    world.put("cosign", f"#!{sys.executable}\n{(HERE / 'stub.py').read_text()}")
    done = world.make("sign", COSIGN_PRIVATE_KEY="key", COSIGN_PASSWORD="word")
    assert done.returncode == 0, done.stderr
    steps = [call for call in world.calls if call.startswith("cosign")]
    words = [call.split()[1] for call in steps]
    assert words == [
        "public-key",
        "sign",
        "attest",
        "attest",
        *["verify"],
        *["verify-attestation"] * 2,
    ]
    assert all(call.endswith(f"{IMAGE}@{DIGEST}") for call in steps[1:])
    assert "signed" in done.stdout


def test_without_cosign_nothing_is_signed_unless_that_is_demanded(world: World) -> None:
    done = world.make("sign")
    assert done.returncode == 0
    assert "not signed" in done.stdout
    done = world.make("sign", REQUIRE_SIGNATURE="1")
    assert "REQUIRE_SIGNATURE demands a signature" in done.stderr


def fail_the_deploy(world: World, *history: str) -> None:
    """Let a deploy fail after it changed something, with a pod that says why."""
    world.answer("^helm upgrade", status=1, stderr="Error: UPGRADE FAILED: deadline exceeded\n")
    world.answer("^helm history", stdout=revisions(*history))
    world.answer("^kubectl .*get pods .*metadata.name", stdout="keyrack-0")
    world.answer("^kubectl .*get pod keyrack-0", stdout="KEYRACK_WORKERS='many' is not a number\n")
    world.answer("^kubectl .*logs keyrack-0", stdout="the last line\n")
    world.answer("^kubectl .*get events", stdout="FailedScheduling: no node has room\n")


@pytest.mark.parametrize(
    ("history", "undo"),
    [(("deployed", "failed"), "helm rollback keyrack 1"), (("failed",), "helm uninstall keyrack")],
)
def test_a_failed_deploy_says_why_before_it_is_put_back(
    world: World, history: tuple[str, ...], undo: str
) -> None:
    fail_the_deploy(world, *history)
    done = world.make("deploy")
    assert done.returncode != 0
    said = done.stdout
    sentences = ("is not a number", "the last line", "no node has room")
    assert all(sentence in said for sentence in sentences), said
    assert [call for call in world.changes() if call.startswith(undo)] == world.changes()[1:]
    asked = max(
        at
        for at, call in enumerate(world.calls)
        if call.startswith("kubectl") and ("get events" in call or "logs" in call)
    )
    assert asked < world.calls.index(world.changes()[1])


def test_a_pod_that_nobody_can_ask_is_put_back_all_the_same(world: World) -> None:
    fail_the_deploy(world, "superseded", "deployed", "failed")
    world.answer("^kubectl .*(get pods|get events|logs)", status=1, stderr="Forbidden\n")
    assert world.make("deploy").returncode != 0
    assert world.changes()[1].startswith("helm rollback keyrack 2")


@pytest.mark.parametrize("history", [("superseded", "deployed"), ()])
def test_a_deploy_that_changed_nothing_puts_nothing_back(
    world: World, history: tuple[str, ...]
) -> None:
    world.answer("^helm upgrade", status=1, stderr="Error: execution error: memory: too little\n")
    if history:
        world.answer("^helm history", stdout=revisions(*history))
    else:
        world.answer("^helm history", status=1, stderr="Error: release: not found\n")
    done = world.make("deploy")
    assert done.returncode != 0
    assert "nothing was changed" in done.stdout
    assert len(world.changes()) == 1


def test_a_release_that_is_cut_off_in_the_middle_is_put_back_first(world: World) -> None:
    world.answer("^helm status", stdout=json.dumps({"info": {"status": "pending-upgrade"}}))
    done = world.make("deploy")
    assert "Put it back first: make rollback ENVIRONMENT=staging" in done.stderr
    assert world.changes() == []


@pytest.mark.parametrize("major", [3, 4])
def test_the_real_helm_takes_the_flags(world: World, major: int) -> None:
    """It gets as far as the cluster, which is not there: no flag was unknown to it."""
    copy_real_helm(world, major)
    server = f"https://127.0.0.1:{free_port()}"
    cluster = {"name": "c", "cluster": {"server": server}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    world.kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [cluster],
                "contexts": [context],
                "current-context": "c",
                "users": [{"name": "u", "user": {}}],
            }
        )
    )
    done = world.make("deploy", DEPLOY_TIMEOUT="5s")
    assert done.returncode != 0
    assert "connection refused" in done.stderr.lower()
    assert "unknown" not in done.stderr.lower()
    for command in ("rollback keyrack 1", "uninstall keyrack"):
        flags = ["--namespace", "n", "--wait", "--timeout", "2s"]
        tried = subprocess.run(
            [world.bin / "helm", *command.split(), *flags],
            env=os.environ | {"KUBECONFIG": str(world.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "connection refused" in tried.stderr.lower()
        assert "unknown" not in tried.stderr.lower()


@pytest.mark.parametrize("major", [3, 4])
@pytest.mark.parametrize("environment", ["staging", "production"])
def test_the_chart_renders_what_the_pipeline_deploys_and_verifies(
    environment: str, major: int
) -> None:
    """With a commit whose digits look like a number."""
    tag = "1" * 40
    settings = ["--set-string", f"image.repository={IMAGE}", "--set-string", f"image.tag={tag}"]
    values = ["--values", f"deploy/jenkins/{environment}.yaml"]
    rendered = subprocess.check_output(
        [real_helm(major), "template", "keyrack", "deploy/chart", *values, *settings],
        cwd=ROOT,
        text=True,
    )
    objects = [found for found in yaml.safe_load_all(rendered) if found]
    ours = [
        found
        for found in objects
        if found["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == "keyrack"
    ]
    workloads = [found for found in ours if found["kind"] in ("StatefulSet", "Deployment")]
    images = [c["image"] for w in workloads for c in w["spec"]["template"]["spec"]["containers"]]
    assert images == [f"{IMAGE}:{tag}"]
    services = [found["spec"] for found in ours if found["kind"] == "Service"]
    assert len([spec for spec in services if spec.get("clusterIP") != "None"]) == 1


def test_verification_asks_the_address_that_it_is_given(world: World, store: int) -> None:
    done = world.make("verify", VERIFY_URL=f"http://127.0.0.1:{store}")
    assert done.returncode == 0, done.stderr
    assert "all checks passed" in done.stdout
    assert f"staging runs {IMAGE}:{COMMIT}" in done.stdout


@pytest.mark.parametrize(
    ("values", "address"),
    [
        ({"ingress": {"enabled": True, "hosts": ["*.a.test", "b.test"]}}, "http://b.test"),
        ({"ingress": {"enabled": True, "hosts": ["b.test"], "tls": [{}]}}, "https://b.test"),
        ({"httpRoute": {"enabled": True, "hostnames": ["c.test"]}}, "https://c.test"),
    ],
)
def test_verification_asks_the_address_in_the_environments_values(
    world: World, values: dict[str, Any], address: str
) -> None:
    world.answer("^helm get values", stdout=json.dumps(values))
    # The address exists in no DNS: it is enough to see who would be asked.
    world.put("curl", "#!/bin/sh\nexit 7\n")
    done = world.make("verify", ATTEMPTS="1")
    assert f"asked at {address}" in done.stdout
    assert not [call for call in world.calls if "port-forward" in call]
    assert done.returncode != 0


@pytest.mark.parametrize("values", ["null", '{"ingress": {"enabled": false, "hosts": ["b.test"]}}'])
def test_values_without_an_address_are_verified_through_the_service(
    world: World, values: str
) -> None:
    world.answer("^helm get values", stdout=values)
    world.answer("kubectl port-forward", status=1, stderr="error: no\n")
    assert "cannot be reached: error: no" in world.make("verify").stderr


def test_verification_goes_through_the_service_without_an_address(world: World, store: int) -> None:
    world.answer(
        "kubectl port-forward", stdout=f"Forwarding from 127.0.0.1:{store} -> 8088\n", wait=60
    )
    done = world.make("verify")
    assert done.returncode == 0, done.stderr
    assert "all checks passed" in done.stdout
    forward = "kubectl port-forward --namespace keyrack-staging service/keyrack :8088"
    assert forward in world.calls
    assert list(world.temporary.iterdir()) == []


def test_verification_fails_when_the_api_answers_otherwise(world: World) -> None:
    with Webhook() as other:
        done = world.make("verify", VERIFY_URL=f"http://127.0.0.1:{other.port}")
    assert done.returncode != 0
    assert "FAIL" in done.stderr


def test_verification_fails_when_another_commit_runs(world: World, store: int) -> None:
    world.answer("get statefulsets,deployments", stdout=f"{IMAGE}:{'f' * 40}\n")
    done = world.make("verify", VERIFY_URL=f"http://127.0.0.1:{store}")
    assert done.returncode != 0
    assert f"should run {IMAGE}:{COMMIT}" in done.stderr
    world.answer("get statefulsets,deployments", stdout="")
    assert "and runs       nothing" in world.make("verify").stderr


def test_verification_fails_without_a_service_that_can_be_reached(world: World) -> None:
    world.answer("kubectl port-forward", status=1, stderr="error: unable to forward port\n")
    done = world.make("verify")
    assert done.returncode != 0
    assert "cannot be reached: error: unable to forward port" in done.stderr
    world.answer("get services", stdout="")
    assert "there is no Service of the release keyrack" in world.make("verify").stderr


def revisions(*statuses: str) -> str:
    return json.dumps([{"revision": n, "status": s} for n, s in enumerate(statuses, start=1)])


@pytest.mark.parametrize(
    ("history", "done"),
    [
        (("superseded", "deployed"), "helm rollback keyrack 1"),
        (("superseded", "failed", "deployed"), "helm rollback keyrack 1"),
        (("superseded", "superseded", "failed", "failed"), "helm rollback keyrack 2"),
        (("superseded", "deployed", "pending-upgrade"), "helm rollback keyrack 2"),
        (("deployed",), "helm uninstall keyrack"),
        (("failed", "deployed"), "helm uninstall keyrack"),
    ],
)
def test_a_rollback_goes_to_the_last_revision_that_was_good(
    world: World, history: tuple[str, ...], done: str
) -> None:
    world.answer("^helm history", stdout=revisions(*history))
    assert world.make("rollback").returncode == 0
    (change,) = world.changes()
    assert change.startswith(done + " ")
    assert "--namespace keyrack-staging" in change
    assert "--wait" in change


def test_a_rollback_goes_to_the_revision_that_is_named(world: World) -> None:
    world.answer("^helm history", stdout=revisions("superseded", "superseded", "deployed"))
    assert world.make("rollback", REVISION="1").returncode == 0
    assert world.changes()[0].startswith("helm rollback keyrack 1 ")


@pytest.mark.parametrize(
    ("history", "done"),
    [
        (("superseded", "deployed", "pending-upgrade"), "helm rollback keyrack 2 "),
        (("superseded", "deployed", "failed"), "helm rollback keyrack 2 "),
        (("pending-install",), "helm uninstall keyrack "),
        (("superseded", "deployed"), ""),
        (("superseded", "failed", "deployed"), ""),
        ((), ""),
    ],
)
def test_only_a_deploy_that_was_cut_off_is_recovered_from(
    world: World, history: tuple[str, ...], done: str
) -> None:
    if history:
        world.answer("^helm history", stdout=revisions(*history))
    else:
        world.answer("^helm history", status=1, stderr="Error: release: not found\n")
    told = world.make("recover")
    assert told.returncode == 0, told.stderr
    assert len(world.changes()) == bool(done)
    assert all(change.startswith(done) for change in world.changes())
    assert ("nothing was cut off" in told.stdout) != bool(done)


def test_a_rollback_of_nothing_says_so(world: World) -> None:
    world.answer("^helm history", status=1, stderr="Error: release: not found\n")
    done = world.make("rollback")
    assert "there is no release keyrack in keyrack-staging" in done.stderr
    assert world.changes() == []


# The controller


def schema() -> dict[str, Any]:
    return yaml.safe_load((HERE / "casc.schema.yaml").read_text())


def plugins_of(value: Any, described: dict[str, Any]) -> set[str]:
    """The plugins whose configuration a value is, by the schema that it was checked against."""
    found = {described["plugin"]} if "plugin" in described else set()
    if isinstance(value, dict):
        for name, inner in value.items():
            found |= plugins_of(inner, described.get("properties", {}).get(name, {}))
    if isinstance(value, list):
        for inner in value:
            found |= plugins_of(inner, described.get("items", {}))
    return found


STEPS = {
    "pipeline": "pipeline-model-definition",
    "httpRequest": "http_request",
    "catchError": "workflow-basic-steps",
    "archiveArtifacts": "workflow-basic-steps",
    "retry": "workflow-basic-steps",
    "agent": "workflow-durable-task-step",
    "nonresumable": "workflow-durable-task-step",
    "stage": "pipeline-stage-step",
    "sh": "workflow-durable-task-step",
    "checkout": "workflow-scm-step",
    "junit": "junit",
    "timeout": "workflow-basic-steps",
    "withCredentials": "credentials-binding",
    "usernamePassword": "credentials-binding",
    "file": "credentials-binding",
    "credentials": "credentials-binding",
    "input": "pipeline-input-step",
    "timestamps": "timestamper",
    "disableConcurrentBuilds": "workflow-job",
    "buildDiscarder": "workflow-job",
    "branch": "pipeline-model-definition",
}
"""Which plugin brings what the Jenkinsfile calls."""

JOB_METHODS = {
    "multibranchPipelineJob": "workflow-multibranch",
    "branchSource": "branch-api",
    "github": "github-branch-source",
    "gitHubBranchDiscovery": "github-branch-source",
    "gitHubPullRequestDiscovery": "github-branch-source",
    "workflowBranchProjectFactory": "workflow-multibranch",
    "periodicFolderTrigger": "cloudbees-folder",
}


def test_hadolint_has_no_complaint_about_the_controller() -> None:
    hadolint = ROOT / ".delivery/pipeline/venv/bin/hadolint"
    done = subprocess.run(
        [hadolint, JENKINS / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_every_plugin_has_a_version() -> None:
    assert len(plugins()) > 30
    for name, version in plugins().items():
        assert re.fullmatch(r"[a-z0-9_-]+", name)
        assert re.fullmatch(r"\d[\w.-]+", version), name
    lines = (JENKINS / "plugins.txt").read_text().splitlines()
    names = [line.split(":")[0] for line in lines if line and line[0] != "#"]
    assert len(names) == len(set(names))


UNZIP = """#!{python}
import sys, zipfile
sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[2]).read(sys.argv[3]))
"""


def check_plugins(
    tmp_path: Path,
    manifests: dict[str, str],
    listed: str = "git:5.10.1\n",
    core: str = "2.568.3",
) -> subprocess.CompletedProcess[str]:
    """Hold plugins with these manifests against each other, as the controller's image does."""
    directory = tmp_path / "plugins"
    directory.mkdir()
    for name, rest in manifests.items():
        version, _, dependencies = rest.partition(" ")
        text = f"Manifest-Version: 1.0\r\nShort-Name: {name}\r\nPlugin-Version: {version}\r\n"
        text += "Jenkins-Version: 2.541.1\r\n"
        whole = f"Plugin-Dependencies: {dependencies}"
        # As Java writes it: 72 bytes a line.
        lines = [whole[:72], *(" " + whole[at : at + 71] for at in range(72, len(whole), 71))]
        text += "\r\n".join(lines if dependencies else []) + "\r\n"
        with zipfile.ZipFile(directory / f"{name}.jpi", "w") as file:
            file.writestr("META-INF/MANIFEST.MF", text)
    (tmp_path / "plugins.txt").write_text(f"# a comment: with a colon\n\n{listed}")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/unzip").write_text(UNZIP.format(python=sys.executable))
    (tmp_path / "bin/unzip").chmod(0o755)
    return subprocess.run(
        [JENKINS / "check-plugins.sh", core, tmp_path / "plugins.txt", directory],
        env=os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


WHOLE = {
    "git": "5.10.1 git-client:6.6.0,mailer:534.v1b_36f5864073;resolution:=optional,"
    "scm-api:728.vc30dcf7a_0df5,credentials:1480.v2246fd131e83",
    "git-client": "6.6.1",
    "scm-api": "728.vc30dcf7a_0df5",
    "credentials": "1506.v948b_b_b_7dec44",
}


def test_plugins_that_have_what_they_ask_for_pass(tmp_path: Path) -> None:
    done = check_plugins(tmp_path, WHOLE)
    assert done.returncode == 0, done.stderr
    assert "4 plugins have what they ask for of each other and of Jenkins 2.568.3" in done.stdout


@pytest.mark.parametrize(
    ("difference", "fault"),
    [
        ({"git-client": "6.5.9"}, "git 5.10.1 needs git-client 6.6.0 or newer, and it is 6.5.9."),
        (
            {"credentials": "1408.va_622a_b_f5b_1b_1"},
            "needs credentials 1480.v2246fd131e83 or newer",
        ),
        ({"scm-api": None}, "git 5.10.1 needs scm-api 728.vc30dcf7a_0df5, which is not there."),
        # An optional one that is there has to be new enough all the same.
        ({"mailer": "500.v1"}, "needs mailer 534.v1b_36f5864073 or newer, and it is 500.v1."),
        ({"git": "5.10.2"}, "git is 5.10.2, and plugins.txt says 5.10.1"),
        ({"git": None}, "git is in plugins.txt and was not downloaded."),
    ],
)
def test_a_plugin_that_lacks_something_fails_the_build_of_the_controller(
    tmp_path: Path, difference: dict[str, str | None], fault: str
) -> None:
    changed_set = WHOLE | difference
    done = check_plugins(tmp_path, {k: v for k, v in changed_set.items() if v is not None})
    assert done.returncode == 1
    assert fault in done.stderr


def test_a_plugin_for_a_newer_jenkins_fails_the_build_of_the_controller(tmp_path: Path) -> None:
    done = check_plugins(tmp_path, WHOLE, core="2.528.3")
    assert done.returncode == 1
    assert "git 5.10.1 needs Jenkins 2.541.1, and this is 2.528.3." in done.stderr
    assert 'check-plugins "$JENKINS_VERSION"' in (JENKINS / "Dockerfile").read_text()


def test_the_configuration_uses_only_what_the_plugins_offer() -> None:
    configuration = casc()
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(configuration, schema())
    used = plugins_of(configuration, schema()) - {"core"}
    assert used == {
        "configuration-as-code",
        "credentials",
        "plain-credentials",
        "matrix-auth",
        "job-dsl",
        "github",
    }
    assert used <= plugins().keys()


@pytest.mark.parametrize(
    ("what", "where", "value"),
    [
        ("an unknown key", ("jenkins", "securityRealms"), {}),
        ("a sign-up", ("jenkins", "securityRealm", "local", "allowsSignup"), True),
        ("builds on the controller", ("jenkins", "numExecutors"), 2),
        (
            "a password in the file",
            ("jenkins", "securityRealm", "local", "users", 0, "password"),
            "x",
        ),
        ("an address in the file", ("unclassified", "location", "url"), "http://x"),
        (
            "anonymous rights",
            ("jenkins", "authorizationStrategy", "globalMatrix", "entries", 0, "user", "name"),
            "anonymous",
        ),
        ("no webhook secret", ("unclassified", "gitHubPluginConfig", "hookSecretConfigs"), []),
    ],
)
def test_the_check_of_the_configuration_can_fail(
    what: str, where: tuple[str | int, ...], value: Any
) -> None:
    configuration = copy.deepcopy(casc())
    inner: Any = configuration
    for step in where[:-1]:
        inner = inner[step]
    inner[where[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(configuration, schema())


def test_all_that_the_jenkinsfile_calls_is_installed() -> None:
    for step, plugin in STEPS.items():
        assert re.search(rf"\b{step}\b", JENKINSFILE), f"{step} is no longer used"
        assert plugin in plugins(), f"{step} needs {plugin}"


def test_credentials_and_agent_of_the_jenkinsfile_are_those_of_the_controller() -> None:
    named = set(re.findall(r"credentials(?:Id: |\()'([^']+)'", JENKINSFILE))
    kinds = credentials(casc())
    clusters = {"kubeconfig-staging", "kubeconfig-production"}
    assert named == clusters | {"dockerhub", "notify-url", "cosign-key", "cosign-password"}
    assert named <= kinds.keys()
    labels = set(re.findall(r"label '([^']+)'", JENKINSFILE))
    nodes = [node["permanent"] for node in casc()["jenkins"]["nodes"]]
    assert labels == {label for node in nodes for label in node["labelString"].split()}
    everywhere = {
        one["key"]: one["value"]
        for part in casc()["jenkins"]["globalNodeProperties"]
        for one in part["envVars"]["env"]
    }
    assert everywhere["PRODUCTION_APPROVERS"] == "${PRODUCTION_APPROVERS:-admin}"
    assert set(re.findall(r"\benv\.([A-Z_]+) \?:", JENKINSFILE)) >= everywhere.keys()
    users = {user["id"] for user in casc()["jenkins"]["securityRealm"]["local"]["users"]}
    assert "admin" in users


def test_the_multibranch_job_is_made_of_what_is_installed(
    harness: tuple[dict[str, Run], list[dict[str, Any]]],
) -> None:
    _, calls = harness
    last = {call["path"].split("/")[-1]: call["arguments"] for call in calls}
    for method, plugin in JOB_METHODS.items():
        assert method in last
        assert plugin in plugins()
    assert last["multibranchPipelineJob"] == ["keyrack"]
    assert last["scriptPath"] == ["Jenkinsfile"]
    assert last["credentialsId"][0] in credentials(casc())
    # Pull requests of forks would run a stranger's code: they are not discovered.
    assert "gitHubForkDiscovery" not in last


def test_the_webhook_is_registered_and_its_calls_are_signed() -> None:
    settings = casc()["unclassified"]["gitHubPluginConfig"]
    everything = casc()["credentials"]["system"]["domainCredentials"][0]["credentials"]
    strings = {entry["string"]["id"]: entry["string"] for entry in everything if "string" in entry}
    assert settings["configs"][0]["manageHooks"] is True
    assert settings["configs"][0]["credentialsId"] in strings
    secret = settings["hookSecretConfigs"][0]["credentialsId"]
    assert strings[secret]["secret"] == "${WEBHOOK_SECRET}"


def controller(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run start.sh with something in place of tini, which says what it would start."""
    (tmp_path / "secrets").mkdir(exist_ok=True)
    script = (JENKINS / "start.sh").read_text()
    assert "/usr/bin/tini" in script
    copied = tmp_path / "start.sh"
    copied.write_text(script.replace("/usr/bin/tini", "echo STARTED"))
    return subprocess.run(
        ["bash", copied],
        env={
            "PATH": os.environ["PATH"],
            "SECRETS": str(tmp_path / "secrets"),
            "JENKINS_HOME": str(tmp_path / "home"),
            "CASC_TEMPLATE": str(JENKINS / "jenkins.yaml"),
        }
        | variables,
        capture_output=True,
        text=True,
        check=False,
    )


ENOUGH = {
    "JENKINS_URL": "https://ci.example.org/",
    "ADMIN_PASSWORD": "correct horse battery",
    "AGENT_PASSWORD": "correct horse battery",
    "REPOSITORY_OWNER": "example",
    "REPOSITORY_NAME": "keyrack",
    "WEBHOOK_SECRET": "correct horse battery",
}


def test_the_controller_starts_with_what_it_needs_and_says_what_lacks(tmp_path: Path) -> None:
    done = controller(tmp_path, **ENOUGH)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("STARTED -- /usr/local/bin/jenkins.sh")
    assert "DOCKERHUB_TOKEN is not set: no image is pushed" in done.stderr
    assert "correct horse" not in done.stderr


@pytest.mark.parametrize("missing", sorted(ENOUGH))
def test_the_controller_does_not_start_without(tmp_path: Path, missing: str) -> None:
    rest = {name: value for name, value in ENOUGH.items() if name != missing}
    done = controller(tmp_path, **rest)
    assert done.returncode == 2
    assert f"{missing} is missing" in done.stderr
    assert "STARTED" not in done.stdout
    (tmp_path / "secrets" / missing).write_text(ENOUGH[missing])
    assert controller(tmp_path, **rest).returncode == 0, "a file does as well"


def test_the_controller_refuses_short_passwords_and_no_addresses(tmp_path: Path) -> None:
    done = controller(tmp_path, **ENOUGH | {"ADMIN_PASSWORD": "admin", "JENKINS_URL": "ci"})
    assert done.returncode == 2
    assert "ADMIN_PASSWORD has 5 characters: give it at least 12" in done.stderr
    assert "JENKINS_URL must begin with https://." in done.stderr


PLAIN = "--httpPort=8080"
"""What the controller is started with where somebody else ends TLS."""


def listening(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the controller would listen on."""
    assert done.returncode == 0, done.stderr
    return done.stdout.split("jenkins.sh ", 1)[1].split()


def certificate(tmp_path: Path, *names: str) -> None:
    """Put a certificate for the names, and its key, among the controller's secrets."""
    secrets = tmp_path / "secrets"
    secrets.mkdir(exist_ok=True)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-noenc", "-days", "2", "-subj", "/CN=given"),
            *("-addext", f"subjectAltName={','.join(names)}"),
            *("-keyout", secrets / "TLS_KEY", "-out", secrets / "TLS_CERTIFICATE"),
        ],
        check=True,
        capture_output=True,
    )


def openssl(*words: str | Path) -> str:
    return subprocess.check_output(["openssl", *words], text=True, stderr=subprocess.STDOUT)


def test_the_controller_answers_https_and_plain_http_only_to_its_own_health_check(
    tmp_path: Path,
) -> None:
    done = controller(tmp_path, **ENOUGH, TLS_NAMES="10.20.0.10")
    store = tmp_path / "home/tls/store.p12"
    assert listening(done) == [
        PLAIN,
        "--httpListenAddress=127.0.0.1",
        "--httpsPort=8443",
        f"--httpsKeyStore={store}",
        "--httpsKeyStorePassword=changeit",
    ]
    # Java reads the store, and everybody's tools the certificate.
    listed = subprocess.check_output(
        ["keytool", "-list", "-keystore", store, "-storepass", "changeit"], text=True
    )
    assert "PrivateKeyEntry" in listed
    made = tmp_path / "home/tls/certificate.pem"
    for asked, name in (("-checkhost", "ci.example.org"), ("-checkip", "10.20.0.10")):
        assert "does match" in openssl("x509", "-in", made, "-noout", asked, name)
    (fingerprint,) = re.findall(r"SHA-256 ([0-9A-F:]{95})", done.stderr)
    assert fingerprint in openssl("x509", "-in", made, "-noout", "-fingerprint", "-sha256")
    kept = {path.name: path.stat().st_mode & 0o077 for path in store.parent.iterdir()}
    assert {name for name, mode in kept.items() if mode} == {"certificate.pem"}
    recipe = (JENKINS / "Dockerfile").read_text()
    assert "EXPOSE 8443" in recipe
    assert "http://127.0.0.1:8080/login" in recipe


def test_a_certificate_that_the_controller_made_stays_until_its_names_change(
    tmp_path: Path,
) -> None:
    made = tmp_path / "home/tls/certificate.pem"
    controller(tmp_path, **ENOUGH)
    first = made.read_text()
    controller(tmp_path, **ENOUGH)
    assert made.read_text() == first
    controller(tmp_path, **ENOUGH | {"JENKINS_URL": "https://[fd00::1]:8443/x"})
    assert made.read_text() != first
    assert "does match" in openssl("x509", "-in", made, "-noout", "-checkip", "fd00::1")


def test_the_controller_serves_the_certificate_that_it_is_given(tmp_path: Path) -> None:
    certificate(tmp_path, "DNS:*.example.org")
    given = (tmp_path / "secrets/TLS_CERTIFICATE").read_text()
    with (tmp_path / "secrets/TLS_CERTIFICATE").open("a") as file:
        file.write(given)  # with the one that signed it
    assert "--httpsPort=8443" in listening(controller(tmp_path, **ENOUGH))
    # What agents trust is that of the controller alone.
    assert (tmp_path / "home/tls/certificate.pem").read_text() == given


def test_a_certificate_that_browsers_would_refuse_is_refused_at_the_start(tmp_path: Path) -> None:
    certificate(tmp_path, "DNS:other.example.org")
    done = controller(tmp_path, **ENOUGH)
    assert done.returncode == 2
    assert "is not made out to ci.example.org" in done.stderr
    assert "STARTED" not in done.stdout

    certificate(tmp_path, "DNS:ci.example.org")
    good, key = tmp_path / "secrets/TLS_CERTIFICATE", tmp_path / "secrets/TLS_KEY"
    # Signed once more, so that it ended yesterday.
    openssl("x509", "-in", good, "-signkey", key, "-days", "-1", "-out", tmp_path / "old")
    (tmp_path / "old").rename(good)
    done = controller(tmp_path, **ENOUGH)
    assert done.returncode == 2
    assert "TLS_CERTIFICATE has expired: notAfter=" in done.stderr


def test_a_certificate_without_its_key_or_that_is_none_is_refused(tmp_path: Path) -> None:
    certificate(tmp_path, "DNS:ci.example.org")
    key = tmp_path / "secrets/TLS_KEY"
    key.write_text("none")
    assert "TLS_KEY is not the key" in controller(tmp_path, **ENOUGH).stderr
    key.unlink()
    assert "TLS_KEY is not the key" in controller(tmp_path, **ENOUGH).stderr
    (tmp_path / "secrets/TLS_CERTIFICATE").write_text("nonsense")
    assert "TLS_CERTIFICATE is no certificate" in controller(tmp_path, **ENOUGH).stderr


@pytest.mark.parametrize(
    "url", ["http://ci.example.org/", "http://localhost.example.org/", "http://127.example.org/"]
)
def test_plain_http_is_refused_on_every_address_but_loopback(tmp_path: Path, url: str) -> None:
    done = controller(tmp_path, **ENOUGH | {"JENKINS_URL": url})
    assert done.returncode == 2
    assert "passwords would pass in the clear" in done.stderr
    for own in ("http://localhost:8080/", "http://127.0.0.1/", "http://[::1]:8080/"):
        assert listening(controller(tmp_path, **ENOUGH | {"JENKINS_URL": own})) == [PLAIN]


def test_behind_a_proxy_that_ends_tls_the_controller_needs_no_certificate(tmp_path: Path) -> None:
    assert listening(controller(tmp_path, **ENOUGH, BEHIND_PROXY="1")) == [PLAIN]
    assert not (tmp_path / "home/tls").exists()


def configured(tmp_path: Path, **variables: str) -> dict[str, Any]:
    """The configuration that a controller with these variables starts with."""
    done = controller(tmp_path, **ENOUGH | variables)
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = yaml.safe_load((tmp_path / "home/casc/jenkins.yaml").read_text())
    return made


def test_without_developers_the_configuration_is_as_it_is_written(tmp_path: Path) -> None:
    assert configured(tmp_path) == casc()


def test_a_developer_builds_and_sees_and_configures_nothing(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/DEVELOPER_alice").write_text("a long password")
    made = configured(tmp_path, DEVELOPER_bob_2="another password")
    jsonschema.validate(made, schema())
    users = {user["id"]: user for user in made["jenkins"]["securityRealm"]["local"]["users"]}
    assert list(users) == ["admin", "agent", "alice", "bob_2"]
    assert users["alice"]["password"] == "${DEVELOPER_alice}"
    entries = made["jenkins"]["authorizationStrategy"]["globalMatrix"]["entries"]
    rights = {entry["user"]["name"]: set(entry["user"]["permissions"]) for entry in entries}
    assert rights["alice"] == rights["bob_2"]
    assert rights["alice"] == {"Overall/Read", "View/Read", "Job/Read", "Job/Build", "Job/Cancel"}
    assert rights["admin"] == {"Overall/Administer"}
    assert "a long password" not in (tmp_path / "home/casc/jenkins.yaml").read_text()


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"DEVELOPER_alice": "short"}, "DEVELOPER_alice has 5 characters"),
        ({"DEVELOPER_admin": "a long password"}, "DEVELOPER_admin is no name of a developer"),
        ({"DEVELOPER_Bob": "a long password"}, "DEVELOPER_Bob is no name of a developer"),
        ({"PRODUCTION_APPROVERS": "admin,carol"}, "names carol, who is neither admin nor"),
    ],
)
def test_a_developer_or_an_approver_that_cannot_be_is_refused(
    tmp_path: Path, variables: dict[str, str], fault: str
) -> None:
    done = controller(tmp_path, **ENOUGH | variables)
    assert done.returncode == 2
    assert fault in done.stderr


def test_a_developer_may_be_one_of_those_who_are_asked_for_production(tmp_path: Path) -> None:
    given = {"DEVELOPER_alice": "a long password", "PRODUCTION_APPROVERS": "admin,alice"}
    assert controller(tmp_path, **ENOUGH | given).returncode == 0


JAVA_ASKS = """
def address = System.getenv('JENKINS_URL') + '/computer'
def connection = new URL(address).openConnection()
println 'JAVA GOT ' + connection.responseCode
"""
"""What stands in for agent.jar: the real Java asks the controller."""

AS_GROOVY = """
for word; do [ "$word" != -jar ] || break; JAVA_OPTS="$JAVA_OPTS $word"; done
export JAVA_OPTS
exec groovy "$DIRECTORY/ask.groovy"
"""
"""What stands before -jar is Java's, and the rest the agent's."""


class Agent:
    """The program that install-jenkins.sh writes for an agent, and Groovy for agent.jar."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("bin", "run", "credentials"):
            (directory / name).mkdir()
        text = (ROOT / "scripts/install-jenkins.sh").read_text()
        (program,) = re.findall(r"<<'START'.*?\n(.*?)\nSTART\n", text, re.S)
        (directory / "program").write_text(program)
        (directory / "ask.groovy").write_text(JAVA_ASKS)
        java = directory / "bin/java"
        java.write_text(f"#!/bin/sh\nDIRECTORY={directory}; PATH={os.environ['PATH']}\n{AS_GROOVY}")
        java.chmod(0o755)
        (directory / "credentials/AGENT_PASSWORD").write_text("the password")

    def connect(self, url: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", self.directory / "program"],
            env=java_environment()
            | {
                "PATH": f"{self.directory}/bin:{os.environ['PATH']}",
                "JENKINS_URL": url,
                "AGENT_NAME": "docker-1",
                "RUNTIME_DIRECTORY": str(self.directory / "run"),
                "CREDENTIALS_DIRECTORY": str(self.directory / "credentials"),
                "JAVA_OPTS": "-XX:TieredStopAtLevel=1",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


def test_an_agent_trusts_the_certificate_of_its_controller_and_no_other(tmp_path: Path) -> None:
    controller(tmp_path, **ENOUGH | {"JENKINS_URL": "https://127.0.0.1/"})
    made = (tmp_path / "home/tls/certificate.pem").read_text()
    (tmp_path / "agent").mkdir()
    agent = Agent(tmp_path / "agent")
    with TlsController(tmp_path / "home/tls") as served:
        (agent.directory / "credentials/TLS_CERTIFICATE").write_text(made)
        done = agent.connect(served.url)
        assert "JAVA GOT 200" in done.stdout, done.stderr
        assert served.passwords == {"agent:the password"}

        served.passwords.clear()
        certificate(tmp_path, "IP:127.0.0.1")
        other = (tmp_path / "secrets/TLS_CERTIFICATE").read_text()
        (agent.directory / "credentials/TLS_CERTIFICATE").write_text(other)
        assert "certificate" in agent.connect(served.url).stderr
        (agent.directory / "credentials/TLS_CERTIFICATE").unlink()
        assert agent.connect(served.url).returncode != 0
        assert served.passwords == set()


def test_every_variable_of_the_configuration_is_checked_and_described() -> None:
    names = set(re.findall(r"\$\{([A-Z_]+)", (JENKINS / "jenkins.yaml").read_text()))
    names |= set(re.findall(r"\$\{SECRETS\}/([A-Z_]+)", (JENKINS / "jenkins.yaml").read_text()))
    names -= {"SECRETS", "NAME"}
    start = (JENKINS / "start.sh").read_text()
    checked = set(re.findall(r"^(?:require|advise) (\w+)", start, re.M))
    with_default = {"GITHUB_USER", "PRODUCTION_APPROVERS", "DOCKERHUB_REGISTRY"}
    assert names - with_default == checked
    described = set(re.findall(r"^\| `([A-Z_]+)`", (JENKINS / "README.md").read_text(), re.M))
    assert described == names | set(re.findall(r"\bvalue ([A-Z_]+)", start))
    recipe = (JENKINS / "Dockerfile").read_text()
    assert "SECRETS=/run/secrets" in recipe
    assert "--latest false" in recipe
