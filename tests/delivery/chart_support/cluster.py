"""An API server that only knows what it is given: what Helm needs to look objects up."""

from __future__ import annotations

import http.server
import json
import threading
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

    from delivery.chart_support.charts import Object

_KINDS = {
    "v1": {
        "Secret": "secrets",
        "PersistentVolumeClaim": "persistentvolumeclaims",
        "Service": "services",
        "ServiceAccount": "serviceaccounts",
        "Pod": "pods",
    },
    "apps/v1": {"StatefulSet": "statefulsets", "Deployment": "deployments"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses"},
}


class Cluster:
    """Answers on loopback until `close`; `kubeconfig` leads there."""

    def __init__(self, directory: Path, *known: Object) -> None:
        answers = _discovery()
        for one in known:
            place = _list(one["apiVersion"], one["metadata"]["namespace"], one["kind"])
            answers[f"{place}/{one['metadata']['name']}"] = one | {"metadata": _owned(one)}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = answers.get(self.path.partition("?")[0])
                missing = {"kind": "Status", "apiVersion": "v1", "code": 404, "reason": "NotFound"}
                body = json.dumps(missing if found is None else found).encode()
                self.send_response(404 if found is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.kubeconfig = directory / "kubeconfig"
        self.kubeconfig.write_text(_config(self._server.server_address[1]))

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _owned(one: Object) -> Object:
    """Return the metadata of an object that the release `kr` has made."""
    metadata: Object = one["metadata"]
    owner = {"meta.helm.sh/release-name": "kr", "meta.helm.sh/release-namespace": "team"}
    managed = {"app.kubernetes.io/managed-by": "Helm"}
    return metadata | {
        "annotations": metadata.get("annotations", {}) | owner,
        "labels": metadata.get("labels", {}) | managed,
    }


def _config(port: int) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
        }
    )


def _base(version: str) -> str:
    return f"/api/{version}" if "/" not in version else f"/apis/{version}"


def _list(version: str, namespace: str, kind: str) -> str:
    return f"{_base(version)}/namespaces/{namespace}/{_KINDS[version][kind]}"


def _discovery() -> dict[str, Any]:
    """Return what a client asks for before anything else: versions, groups, kinds."""
    groups = []
    answers: dict[str, Any] = {
        "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
    }
    for version, kinds in _KINDS.items():
        answers[_base(version)] = {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": version,
            "resources": [
                {"name": name, "kind": kind, "namespaced": True, "verbs": ["get", "list"]}
                for kind, name in kinds.items()
            ],
        }
        if "/" in version:
            group, _, short = version.partition("/")
            served = {"groupVersion": version, "version": short}
            groups.append({"name": group, "versions": [served], "preferredVersion": served})
    answers["/apis"] = {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    return answers
