"""Stands in for aws, terraform, kubectl or helm, by whose name it is called.

In the directory STUBS, `rules.json` is a list of [pattern, answer]; the first pattern found in the
call decides what is printed and how it ends. Calls are noted in `calls.jsonl`, with what they read
(standard input or a file://), and the region.
"""

import json
import os
import re
import sys
from pathlib import Path

STUBS = Path(os.environ["STUBS"])


def main() -> int:
    """Note the call and answer it."""
    call = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    document = re.search(r"file://(\S+)", call)
    read = Path(document[1]).read_text() if document else ""
    read = sys.stdin.read() if sys.argv[-1] == "-" else read
    region = os.environ.get("AWS_DEFAULT_REGION", "")
    noted = {"call": call, "read": read, "region": region}
    with (STUBS / "calls.jsonl").open("a") as file:
        file.write(json.dumps(noted) + "\n")
    rules = json.loads((STUBS / "rules.json").read_text())
    answer = next((given for pattern, given in rules if re.search(pattern, call)), {})
    sys.stdout.write(answer.get("stdout", ""))
    sys.stderr.write(answer.get("stderr", ""))
    return int(answer.get("status", 0))


sys.exit(main())
