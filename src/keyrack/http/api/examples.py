"""An example of every body that is answered, as a fresh service answers the examples of `routes`.

The OpenAPI document, the reference and `docs/http-api.md` show them. A test runs the requests and
compares what comes with what is here, so whoever adds an operation adds what it answers.
"""

from __future__ import annotations

from typing import Any, Final

_REVISION: Final = "1796038767683301"
_TOKEN: Final[dict[str, Any]] = {
    "id": "OjCJjnFw",
    "name": "ci",
    "source": "store",
    "policies": [],
    "rules": ["all keys:ci/*"],
    "expires": "2026-12-01T11:39:31Z",
    "disabled": False,
    "rate": None,
    "watches": None,
    "from": [],
    "created": "2026-11-30T11:39:31Z",
    "created_by": "file:eKpLlxYu",
    "last_used": None,
    "rotating_until": None,
}
_SHOWN: Final = {**_TOKEN, "decides": ["all keys:ci/*"]}
_TEXT: Final = "krk_OjCJjnFwcDlGifRfeCLr6yL9ABfXTUmoIXkZBqOwm0w48QM"
_PENDING: Final = {"pending": 1}
_FENCE: Final = {"name": "jobs", "keys": "jobs/*", "lock": "jobs", "source": "store"}
_QUOTA: Final = {
    "name": "team-a",
    "prefix": "team-a/",
    "max_bytes": 50_000_000,
    "max_keys": 100_000,
    "bytes": 1_204_517,
    "keys": 2310,
    "counted": True,
}
_PAGE: Final = '<!doctype html>\n<html lang="en">...</html>\n'
_WATCHED: Final = """\
retry: 1000

id: 1796038767683306
event: synced
data: {"revision":"1796038767683306"}

id: 1796038767683307
event: set
data: {"key":"config","revision":"1796038767683307","time":"2026-11-30T11:39:28.415Z"}

"""
_METRICS: Final = """\
# HELP keyrack_http_requests_total Requests answered.
# TYPE keyrack_http_requests_total counter
keyrack_http_requests_total{code="200",operation="get"} 1.0
"""

ANSWERS: Final[dict[str, dict[int, Any]]] = {
    "set": {200: {"status": "success", "message": "key-value pair is set successfully"}},
    "get": {200: {"key": "key_1", "value": "value_1"}},
    "key_get": {200: "hello", 206: "ell"},
    "keys_list": {
        200: {
            "keys": [
                {
                    "key": "config",
                    "revision": _REVISION,
                    "type": "application/json",
                    "size": 11,
                    "ttl": None,
                }
            ],
            "next": None,
            "revision": _REVISION,
        }
    },
    "keys_delete": {
        200: {"deleted": 1, "revision": _REVISION, "dry_run": True, "sample": ["config"]}
    },
    "key_delete": {
        200: {
            "deleted": 1,
            "revision": _REVISION,
            "undo": _REVISION,
            "until": "2026-11-30T11:49:28.415Z",
        }
    },
    "undos": {
        200: {
            "undos": [
                {
                    "undo": _REVISION,
                    "deleted": 2,
                    "left": 2,
                    "restored": 0,
                    "ended": 0,
                    "gone": 0,
                    "since": "2026-11-30T11:39:28.415Z",
                    "until": "2026-11-30T11:49:28.415Z",
                    "prefix": "config",
                }
            ],
            "next": None,
        }
    },
    "undo": {
        200: {
            "undo": _REVISION,
            "deleted": 2,
            "restored": 2,
            "kept_newer": 0,
            "ended": 0,
            "gone": 0,
            "until": "2026-11-30T11:49:28.415Z",
            "revision": "1796038767683304",
        }
    },
    "batch": {
        200: {
            "results": [
                {"op": "check", "key": "a"},
                {"op": "set", "key": "a", "revision": _REVISION, "existed": False},
                {
                    "op": "add",
                    "key": "n",
                    "revision": "1796038767683302",
                    "existed": False,
                    "value": "5",
                },
            ]
        }
    },
    "counter": {200: {"key": "visits", "value": "1", "revision": _REVISION}},
    "lock_acquire": {
        201: {"name": "report", "owner": "job-7", "token": _REVISION, "ttl": 30.0},
        200: {"name": "report", "owner": "job-7", "token": _REVISION, "ttl": 30.0},
    },
    "locks_list": {
        200: {"locks": [{"name": "report", "owner": "job-7", "ttl": 29.946}], "next": None}
    },
    "lock_show": {200: {"name": "report", "owner": "job-7", "ttl": 29.946}},
    "terraform_read": {200: {"version": 4, "serial": 1}},
    "terraform_lock_show": {
        200: {
            "ID": "0a1b",
            "Operation": "",
            "Info": "",
            "Who": "ci",
            "Version": "",
            "Created": "",
            "Path": "",
        }
    },
    "terraform_versions": {
        200: {
            "name": "prod",
            "versions": [
                {
                    "version": _REVISION,
                    "replaced": "2026-11-30T11:39:28Z",
                    "size": 24,
                    "serial": 1,
                    "terraform_version": None,
                }
            ],
        }
    },
    "fences_list": {200: {"fences": [_FENCE]}},
    "fence_show": {200: _FENCE},
    "fence_put": {202: _PENDING},
    "fence_drop": {202: _PENDING},
    "quotas_list": {200: {"quotas": [_QUOTA]}},
    "quota_show": {200: _QUOTA},
    "watch": {200: _WATCHED},
    "key_events": {
        200: {
            "key": "greeting",
            "events": [
                {
                    "event": "delete",
                    "key": "greeting",
                    "revision": "1796038767683298",
                    "time": "2026-11-30T11:39:28.415Z",
                },
                {
                    "event": "set",
                    "key": "greeting",
                    "revision": "1796038767683297",
                    "time": "2026-11-30T11:39:28.394Z",
                },
            ],
            "since": "1796038767683295",
        }
    },
    "export": {200: {"key": "config", "value": {"level": 2}}},
    "import": {200: {"imported": 1, "failed": 0, "errors": [], "stopped": False}},
    "slow": {
        200: {
            "limit_ms": 10.0,
            "entries": [
                {
                    "operation": "set",
                    "ms": 41.382,
                    "time": 1796038767683301000,
                    "worker": 1,
                    "key": "config",
                    "status": None,
                    "refusal": None,
                    "lock_ms": 38.02,
                    "disk_ms": 0.0,
                    "token": None,
                    "bytes": 11,
                    "together": 3,
                    "reads": 0,
                    "writes": 0,
                }
            ],
        }
    },
    "hot": {
        200: {
            "seconds": 2.0,
            "requests": 5210,
            "error": 0.0,
            "keys": [{"key": "config", "rate": 1210.5}],
            "missing_workers": [],
        }
    },
    "big": {200: {"total": {"keys": 3, "bytes": 163}}},
    "clients_list": {
        200: {
            "connections": 1,
            "clients": [
                {
                    "id": "0-17",
                    "worker": 0,
                    "address": "127.0.0.1:42066",
                    "tls": False,
                    "age": 0.0,
                    "idle": 0.0,
                    "state": "working",
                    "request": "GET /v1/clients",
                    "queued": 0,
                    "owed": 0,
                    "held": 0,
                    "token": None,
                    "agent": "curl/8.5.0",
                }
            ],
            "missing_workers": [],
        }
    },
    "auth_tokens_list": {200: {"tokens": [_TOKEN], "next": None}},
    "auth_token_create": {201: {"token": _TEXT, **_TOKEN}},
    "auth_token_show": {200: _SHOWN},
    "auth_token_change": {200: {**_SHOWN, "disabled": True}, 202: {**_SHOWN, "disabled": True}},
    "auth_token_rotate": {200: {"token": _TEXT, **_TOKEN}},
    "auth_token_revoke": {202: _PENDING},
    "auth_policies_list": {
        200: {
            "policies": [
                {
                    "name": "metrics",
                    "rules": ["metrics"],
                    "source": "built-in",
                    "rate": None,
                    "watches": None,
                }
            ]
        }
    },
    "auth_policy_delete": {202: _PENDING},
    "auth_self": {
        200: {
            "id": "eKpLlxYu",
            "name": "KEYRACK_TOKEN",
            "source": "file",
            "policies": ["admin"],
            "rules": ["admin", "metrics", "all keys:*", "all locks:*"],
            "expires": None,
            "anonymous": False,
        }
    },
    "auth_check": {200: {"results": [{"allowed": True, "rule": "all keys:*", "policy": "admin"}]}},
    "auth_ticket_create": {
        201: {
            "ticket": "krt_WzEsImVLcExseFl1IiwiNWQyZDFkOWMyNGVjIixbInJlYWQga2V5czphcHAvcmVwb3J0"
            "Il0sMTc5NjAzODgzMl0.y6NrjhUUc1LTUCuTtc1GVw",
            "expires": "2026-11-30T11:40:32Z",
        }
    },
    "auth_tickets_rotate": {202: _PENDING},
    "healthz": {200: "ok\n"},
    "readyz": {200: "ready\n"},
    "info": {
        200: {
            "name": "keyrack",
            "engine": {"engine": "embedded", "durable": False, "eviction": False},
            "keys": 5,
            "memory": {"limit": 134217728, "used": 114688, "free": 134103040},
            "workers": 1,
            "uptime_seconds": 3.953,
        }
    },
    "limits": {200: {"key_bytes": 511, "value_bytes": 1048576, "body_bytes": 8388608}},
    "metrics": {200: _METRICS},
    "openapi": {200: {"openapi": "3.1.0", "info": {"title": "Keyrack"}, "paths": {}}},
    "docs": {200: _PAGE},
    "home": {200: _PAGE},
}
"""By operation and status: JSON as it is parsed, a line of NDJSON as its object, else a text."""
