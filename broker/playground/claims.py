"""What providers sign at this moment: the examples of `broker/providers/`, each a token of its own.

Each function makes the claims of a *valid* run, and takes what is to be different by the claim's name; `...` leaves a
claim out. What follows from a changed claim follows too, as `broker/providers/examples.py` has it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker.providers import PROVIDERS
from broker.providers.examples import changed, issued_at

AUDIENCE: Final = "acme-index"
"""What the playground's broker wants in `aud`. It begins with a letter: GitLab makes a variable's name of it."""

GITHUB_URL: Final = "https://token.actions.githubusercontent.com"
GITLAB_URL: Final = "https://gitlab.com"
GOOGLE_URL: Final = "https://accounts.google.com"


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
    return claims_now("github", {"jti": str(uuid.uuid4()), "workflow_file": workflow_file, **changes})


def gitlab_claims(**changes: object) -> dict[str, Any]:
    """The claims of a job in acme/tools/widgets, started by alice's push of the protected tag v1.0.0.

    Args:
        changes: Claims to be different, or `...` to leave one out.
    """
    return claims_now("gitlab", {"jti": str(uuid.uuid4()), **changes})


def google_claims(**changes: object) -> dict[str, Any]:
    """The claims of acme's release bot, a service account. There is no `jti`.

    Args:
        changes: Claims to be different, or `...` to leave one out.
    """
    return claims_now("google", changes)


def claims_now(provider: str, changes: Mapping[str, object]) -> dict[str, Any]:
    """The claims of a valid run of any provider, issued at this moment."""
    moment = issued_at(changes, otherwise=int(time.time()))
    claims = PROVIDERS[provider].example({"aud": AUDIENCE, **changes, "iat": moment})
    return changed(claims, {"iat": changes.get("iat", moment)})
