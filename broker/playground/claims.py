"""What the three providers sign, whole: every claim of a real token, with its name, JSON type and form.

Each function makes the claims of a *valid* run, and takes what is to be different by the claim's name; `...` leaves a
claim out. Claims that follow from a changed one follow (a new `ref` is in `workflow_ref` and `sub` too), unless they
are given themselves. Nothing else is touched, so a test that changes one thing changes one thing.

Sources (read 2026-11): https://docs.github.com/en/actions/reference/security/oidc,
https://docs.gitlab.com/ci/secrets/id_token_authentication/,
https://developers.google.com/identity/openid-connect/openid-connect.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

AUDIENCE: Final = "acme-index"
"""What the playground's broker wants in `aud`. It begins with a letter: GitLab makes a variable's name of it."""

GITHUB_URL: Final = "https://token.actions.githubusercontent.com"
GITLAB_URL: Final = "https://gitlab.com"
GOOGLE_URL: Final = "https://accounts.google.com"

_SHA: Final = "714a629c0b401fdce83e847fc9589983fc6f46bc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who starts runs. The same person has another id with each provider."""

    login: str
    github_id: str
    gitlab_id: str

    @property
    def on_github(self) -> dict[str, str]:
        """The claims that say so on GitHub."""
        return {"actor": self.login, "actor_id": self.github_id}

    @property
    def on_gitlab(self) -> dict[str, str]:
        """The claims that say so on GitLab."""
        return {
            "user_login": self.login,
            "user_id": self.gitlab_id,
            "user_email": f"{self.login}@acme.example",
        }


ALICE: Final = Person(login="alice", github_id="1001", gitlab_id="77")
BOB: Final = Person(login="bob", github_id="1002", gitlab_id="78")
CAROL: Final = Person(login="carol", github_id="1003", gitlab_id="79")
MALLORY: Final = Person(login="mallory", github_id="6666", gitlab_id="666")
"""A member of nothing."""


def github_claims(*, workflow_file: str = "release.yml", **changes: object) -> dict[str, Any]:
    """The claims of a job in acme-corp/widgets, started by alice's push of the tag v1.0.0, in the environment `pypi`.

    Args:
        workflow_file: The calling workflow's file in `.github/workflows`; `workflow` is its display name.
        changes: Claims to be different, or `...` to leave one out.
    """
    facts = _facts(
        {
            "repository": "acme-corp/widgets",
            "repository_id": "424242424",
            "repository_owner_id": "65600975",
            "ref": "refs/tags/v1.0.0",
            "sha": _SHA,
            "environment": "pypi",
        },
        changes,
    )
    repository, sha = facts["repository"], facts["sha"]
    owner, _, name = repository.partition("/")
    # `ref` is empty when a bare commit is deployed; references then end in the commit.
    reference = f"{repository}/.github/workflows/{workflow_file}@{facts['ref'] or sha}"
    has_environment = changes.get("environment") is not ...
    context = f"environment:{facts['environment']}" if has_environment else f"ref:{facts['ref']}"
    issued_at = _issued_at(changes)
    claims: dict[str, Any] = {
        "jti": str(uuid.uuid4()),
        "iss": GITHUB_URL,
        "aud": AUDIENCE,
        # The immutable form, which repositories have since July 2026.
        "sub": f"repo:{owner}@{facts['repository_owner_id']}/{name}@{facts['repository_id']}:{context}",
        "iat": issued_at,
        "nbf": issued_at - 600,
        "exp": issued_at + 300,
        "repository": repository,
        "repository_id": facts["repository_id"],
        "repository_owner": owner,
        "repository_owner_id": facts["repository_owner_id"],
        "repository_visibility": "private",
        "enterprise": "acme",
        "enterprise_id": "8151",
        **ALICE.on_github,
        "workflow": "Release",
        "workflow_ref": reference,
        "workflow_sha": sha,
        "job_workflow_ref": reference,
        "job_workflow_sha": sha,
        "event_name": "push",
        "ref": facts["ref"],
        "ref_type": "branch" if facts["ref"].startswith("refs/heads/") else "tag",
        "ref_protected": "true",
        "sha": sha,
        "base_ref": "",
        "head_ref": "",
        "environment": facts["environment"],
        "environment_node_id": "EN_kwDOGUmgms7KAQ5T" if has_environment else ...,
        "run_id": "17423456789",
        "run_number": "42",
        "run_attempt": "1",
        "check_run_id": "49466334455",
        "runner_environment": "github-hosted",
    }
    return _changed(claims, changes)


def gitlab_claims(**changes: object) -> dict[str, Any]:
    """The claims of a job in acme/tools/widgets, started by alice's push of the protected tag v1.0.0.

    Args:
        changes: Claims to be different, or `...` to leave one out.
    """
    facts = _facts(
        {
            "iss": GITLAB_URL,
            "project_path": "acme/tools/widgets",
            "project_id": "20",
            "namespace_id": "72",
            "ref": "v1.0.0",
            "ref_type": "tag",
            "sha": _SHA,
        },
        changes,
    )
    path, ref, sha = facts["project_path"], facts["ref"], facts["sha"]
    namespace = path.rpartition("/")[0]
    kind = facts["ref_type"]
    facts = _facts({**facts, "ref_path": f"refs/{'heads' if kind == 'branch' else 'tags'}/{ref}"}, changes)
    issued_at = _issued_at(changes)
    claims: dict[str, Any] = {
        "namespace_id": facts["namespace_id"],
        "namespace_path": namespace,
        "project_id": facts["project_id"],
        "project_path": path,
        "project_visibility": "private",
        "job_project_id": facts["project_id"],
        "job_project_path": path,
        "job_namespace_id": facts["namespace_id"],
        "job_namespace_path": namespace,
        **ALICE.on_gitlab,
        "user_access_level": "maintainer",
        "user_identities": [{"provider": "github", "extern_uid": ALICE.github_id}],
        "groups_direct": ["acme/tools"],
        "pipeline_id": "574",
        "pipeline_source": "push",
        "job_id": "302",
        "job_source": "push",
        "ref": ref,
        "ref_type": kind,
        "ref_path": facts["ref_path"],
        "ref_protected": "true",
        "environment": "pypi",
        "environment_protected": "true",
        "environment_action": "start",
        "deployment_tier": "production",
        "runner_id": 12270835,
        "runner_environment": "gitlab-hosted",
        "sha": sha,
        "ci_config_ref_uri": f"{facts['iss'].partition('://')[2]}/{path}//.gitlab-ci.yml@{facts['ref_path']}",
        "ci_config_sha": sha,
        "jti": str(uuid.uuid4()),
        "iss": facts["iss"],
        "iat": issued_at,
        "nbf": issued_at - 5,
        "exp": issued_at + 3600,
        "sub": f"project_path:{path}:ref_type:{kind}:ref:{ref}",
        "aud": AUDIENCE,
    }
    return _changed(claims, changes)


def google_claims(**changes: object) -> dict[str, Any]:
    """The claims of acme's release bot, a service account. There is no `jti`.

    Args:
        changes: Claims to be different, or `...` to leave one out.
    """
    facts = _facts({"sub": "112233445566778899"}, changes)
    issued_at = _issued_at(changes)
    claims: dict[str, Any] = {
        "iss": GOOGLE_URL,
        "aud": AUDIENCE,
        "azp": facts["sub"],
        "sub": facts["sub"],
        "email": "release-bot@acme-builds.iam.gserviceaccount.com",
        "email_verified": True,
        "iat": issued_at,
        "exp": issued_at + 3600,
    }
    return _changed(claims, changes)


def _facts(defaults: Mapping[str, str], changes: Mapping[str, object]) -> dict[str, str]:
    """What other claims follow from. A change to another type than text has no followers: they keep the default."""
    told = {name: value for name in defaults if isinstance(value := changes.get(name), str)}
    return {**defaults, **told}


def _issued_at(changes: Mapping[str, object]) -> int:
    told = changes.get("iat")
    return int(told) if isinstance(told, int | float) and not isinstance(told, bool) else int(time.time())


def _changed(claims: Mapping[str, Any], changes: Mapping[str, object]) -> dict[str, Any]:
    return {name: value for name, value in {**claims, **changes}.items() if value is not ...}
