"""Stands in for docker, helm or kubectl, by whose name it is called: notes calls, answers by rules.

In the directory STUBS, `rules.json` is a list of [pattern, answer]; the first pattern found in the
call decides. An answer has `status`, `stdout`, `stderr`, and `wait` for one that goes on running.
Calls are noted in `calls.jsonl`, with what came on standard input and the variables that matter.
"""

import json
import os
import re
import sys
import time
from pathlib import Path

STUBS = Path(os.environ["STUBS"])
NOTED = ("KUBECONFIG", "DOCKER_CONFIG")


def main() -> int:
    """Note the call and answer it."""
    call = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    stdin = sys.stdin.read() if "--password-stdin" in sys.argv else ""
    noted = {"call": call, "stdin": stdin} | {name: os.environ.get(name, "") for name in NOTED}
    with (STUBS / "calls.jsonl").open("a") as file:
        file.write(json.dumps(noted) + "\n")
    rules = json.loads((STUBS / "rules.json").read_text())
    answer = next((given for pattern, given in rules if re.search(pattern, call)), {})
    sys.stdout.write(answer.get("stdout", ""))
    sys.stdout.flush()
    sys.stderr.write(answer.get("stderr", ""))
    time.sleep(answer.get("wait", 0))
    return int(answer.get("status", 0))


sys.exit(main())
