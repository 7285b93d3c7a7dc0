"""Every way to say no: one cause, one refusal, one code.

A refusal's docstring is its paragraph in `docs/reference/refusals.md`, which is generated from this file; `remedy`
tells the person who must mend it what to do. Statuses are numbers, so that nothing of HTTP is imported here:
422 a bad token or request, 403 a good one that is not allowed, 429 later, 503 the broker cannot decide now.

A refusal is an answer to a caller. Our own bugs are not refusals: they stay exceptions.
"""

from __future__ import annotations

from typing import ClassVar


class Refusal(Exception):
    """The base of every refusal.

    Args:
        detail: One sentence for the caller. It may hold values of the caller's own token, never a credential.
        expected: What a policy wanted instead. It goes into the audit record, and to the caller only where the
            token's owner id is one that the organization has pinned.
        retry_after_seconds: For refusals that pass with time.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    remedy: ClassVar[str]

    def __init__(self, detail: str = "", *, expected: str = "", retry_after_seconds: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail or self.title()
        self.expected = expected
        self.retry_after_seconds = retry_after_seconds

    @classmethod
    def title(cls) -> str:
        """The first sentence of the refusal's paragraph."""
        return (cls.__doc__ or "").strip().split("\n", 1)[0]


# --- The request -----------------------------------------------------------------------------------------------------


class MalformedRequest(Refusal):
    """The body is not a JSON object with a string `token`."""

    code, status = "malformed-request", 422
    remedy = 'Send `{"token": "<identity token>"}` as the body; the Content-Type does not matter.'


class RequestTooLarge(Refusal):
    """The request is larger than the broker reads on this route."""

    code, status = "request-too-large", 413
    remedy = "Send the identity token alone. For uploads, the operator's `BROKER_UPLOAD_LIMIT_BYTES` sets the bound."


class MalformedHttp(Refusal):
    """The bytes are no HTTP request."""

    code, status = "malformed-http", 400
    remedy = "Speak HTTP/1.1 to this port; over TLS where the broker has a certificate."


class NotFound(Refusal):
    """There is nothing at this path."""

    code, status = "not-found", 404
    remedy = (
        "Check the URL, its host too: the broker serves each index's upload path, reads beside it where the operator "
        "has them served, and the routes that the HTTP reference names."
    )


class MethodNotAllowed(Refusal):
    """The path exists, but not for this HTTP method."""

    code, status = "method-not-allowed", 405
    remedy = "Use the method that the HTTP reference names for the route."


class NotAcceptable(Refusal):
    """The Accept header asks for a media type that discovery does not have."""

    code, status = "not-acceptable", 406
    remedy = "Accept `application/vnd.pypi.pytp.v1+json`, or `*/*`."


class UnsupportedFeature(Refusal):
    """The mint request asks for a feature that discovery does not offer."""

    code, status = "unsupported-feature", 422
    remedy = "Ask only for features that `/.well-known/pytp` lists, or for none."


class UnsupportedScope(Refusal):
    """The exchange asks for a token with a scope that this index does not offer."""

    code, status = "unsupported-scope", 422
    remedy = "Ask for `upload`; or for `read`, where the operator has reads of this index served by scoped tokens."


class InvalidClient(Refusal):
    """The caller did not show an API token that may do this."""

    code, status = "invalid-client", 401
    remedy = (
        "Send an API token that `broker tokens new` made, with Basic credentials (its id and the token) or as Bearer."
    )


class InvalidTarget(Refusal):
    """The token exchange names another index than the broker's."""

    code, status = "invalid-target", 400
    remedy = "Leave `audience` and `resource` out, or send the audience or the upload URL."


class UnsupportedGrant(Refusal):
    """The token endpoint was asked for something else than a token exchange."""

    code, status = "unsupported-grant", 400
    remedy = "Send `grant_type=urn:ietf:params:oauth:grant-type:token-exchange` with an identity token (RFC 8693)."


# --- The identity token ----------------------------------------------------------------------------------------------


class MalformedToken(Refusal):
    """The token is not a signed JWT in compact form."""

    code, status = "malformed-token", 422
    remedy = "Send the token exactly as the CI provider gave it."


class UnknownIssuer(Refusal):
    """The token's issuer is none that the index operator trusts."""

    code, status = "unknown-issuer", 422
    remedy = "The operator lists trusted issuers in `policies/index.yaml`; compare `iss` with their URLs."


class IssuerDisabled(Refusal):
    """The index operator has switched this issuer off."""

    code, status = "issuer-disabled", 403
    remedy = "Ask the index operator; `disabled: true` stands at the issuer in `policies/index.yaml`."


class UnknownKey(Refusal):
    """The issuer does not publish the key that the token names."""

    code, status = "unknown-key", 422
    remedy = "Fetch a fresh identity token: the issuer may have rotated its keys since this one was signed."


class KeysUnavailable(Refusal):
    """The issuer's keys cannot be had, so nothing of it can be verified now."""

    code, status = "keys-unavailable", 503
    remedy = "Try again shortly. If it stays, the operator finds the cause in `/readyz` and in the log."


class InvalidSignature(Refusal):
    """The signature does not fit the issuer's key, or its algorithm is not one the issuer is trusted with."""

    code, status = "invalid-signature", 422
    remedy = "Send the token unchanged; an altered or self-made token never passes."


class WrongAudience(Refusal):
    """The token was made for another service."""

    code, status = "wrong-audience", 422
    remedy = "Ask the CI provider for a token with the audience that `GET /_/oidc/audience` answers, as one string."


class ExpiredToken(Refusal):
    """The token's time is over."""

    code, status = "expired-token", 422
    remedy = "Fetch the identity token right before the exchange."


class TokenNotYetValid(Refusal):
    """The token claims to be from the future."""

    code, status = "token-not-yet-valid", 422
    remedy = "Check the clocks of the CI provider and of the broker; a few seconds of difference are allowed for."


class TokenLifetime(Refusal):
    """The token lives longer than the operator lets tokens of this issuer live."""

    code, status = "token-lifetime", 422
    remedy = "Shorten the token's life (GitLab: the job's timeout), or ask the operator to raise `longest_token`."


class MissingClaim(Refusal):
    """The token lacks a claim that a safe binding needs."""

    code, status = "missing-claim", 422
    remedy = "Ask the CI provider for the claim, or update a self-managed instance that does not send it yet."


class InvalidClaim(Refusal):
    """A claim has a form that the provider never gives it: nothing is coerced or guessed."""

    code, status = "invalid-claim", 422
    remedy = "Compare the named claim with the provider's documentation; report it if the provider really sends this."


class ForbiddenTrigger(Refusal):
    """The job was started by an event that outsiders can cause."""

    code, status = "forbidden-trigger", 403
    remedy = "Publish from a push, a tag, a release or a manual run; never from pull requests or comments."


class ForkedSource(Refusal):
    """The job runs for a fork, not for the project that the token names."""

    code, status = "forked-source", 403
    remedy = "Run the publishing job in the project itself."


# --- The organization's word -----------------------------------------------------------------------------------------


class NoPublisher(Refusal):
    """No organization has declared a trusted publisher for this CI identity."""

    code, status = "no-publisher", 403
    remedy = (
        "Compare what the token says (`broker explain`, or the audit record) with the publisher: repository, workflow, "
        "environment, ref, event."
    )


class PublisherReadsOnly(Refusal):
    """The trusted publisher that fits is for reading alone, and an upload token was asked for."""

    code, status = "publisher-reads-only", 403
    remedy = "Ask for a token that reads, or have an admin of the organization add `projects` to the publisher."


class PublisherExpired(Refusal):
    """The trusted publisher that fits was declared only until a day that is past."""

    code, status = "publisher-expired", 403
    remedy = "An admin of the organization extends `until` in the publisher, or removes it."


class OrganizationSuspended(Refusal):
    """The organization that declared the publisher is suspended."""

    code, status = "organization-suspended", 403
    remedy = "Ask the organization's owners; `suspended: true` stands in its policy file."


class OrganizationFrozen(Refusal):
    """The organization that declared the publisher publishes nothing for now: it, or the index operator, froze it."""

    code, status = "organization-frozen", 403
    remedy = (
        "Publish when the freeze is over, or ask whoever declared it to end it: `freezes` stands in the organization's "
        "policy file, or in `policies/index.yaml`."
    )


class OrganizationNotAdmitted(Refusal):
    """The index is for other organizations: the operator says who may use which."""

    code, status = "organization-not-admitted", 403
    remedy = "Publish to your organization's own index; or ask the operator to add it to `organizations` of this one."


class IdentityChanged(Refusal):
    """The names fit a publisher, but the immutable ids do not: the name now belongs to somebody else."""

    code, status = "identity-changed", 403
    remedy = "If a repository or account was re-created on purpose, an admin updates the pinned ids."


class UnknownActor(Refusal):
    """Whoever started the run is no member of the organization."""

    code, status = "unknown-actor", 403
    remedy = "A member starts the run, or an admin adds the actor's immutable id to the organization's members."


class MemberSuspended(Refusal):
    """The member behind the run is suspended."""

    code, status = "member-suspended", 403
    remedy = "Ask an admin of the organization."


class MemberExpired(Refusal):
    """The membership behind the run ended."""

    code, status = "member-expired", 403
    remedy = "An admin of the organization extends the member's `until`."


class SwitchedOff(Refusal):
    """What the token comes from is switched off for now: its issuer, organization or publisher, or the whole index.

    The index operator threw that switch, or one of the organization's owners.
    """

    code, status = "switched-off", 403
    remedy = (
        "Ask the index operator, or an owner of the organization: `broker disabled` shows why, and `broker enable` "
        "switches it on again."
    )


class MemberNotPermitted(Refusal):
    """The actor is a member, but has no right to upload to what the publisher publishes, or to read what it reads."""

    code, status = "member-not-permitted", 403
    remedy = "An admin names the member or their team under `upload` of the project, or under `download`."


class MachineRequired(Refusal):
    """Nobody pressed a button for this run, and the member it runs as is not marked as a machine."""

    code, status = "machine-required", 403
    remedy = "Start the run by hand, or have an admin mark the member `machine: true`."


class PrefixNotExpressible(Refusal):
    """The registry's own upload tokens name projects one by one, and the grant holds a prefix such as `acme-*`."""

    code, status = "prefix-not-expressible", 403
    remedy = "An admin names the publisher's `projects` exactly, or the operator has uploads go through the gateway."


# --- Limits and state ------------------------------------------------------------------------------------------------


class RateLimited(Refusal):
    """Too many came in a short time: exchanges, attempts that were refused, or changes by one owner's API token."""

    code, status = "rate-limited", 429
    remedy = (
        "Wait as long as Retry-After says. The detail says what is counted: exchanges of one repository, organization "
        "or issuer, changes of one API token, or what is refused of one address, which others may share."
    )


class ReplayedToken(Refusal):
    """The identity token was exchanged before."""

    code, status = "replayed-token", 422
    remedy = "Fetch a fresh identity token for each exchange; if you did, somebody else has used yours."


class StateForgot(Refusal):
    """The identity token is older than the broker's memory, which was lost: it may have been exchanged before."""

    code, status = "state-forgot", 422
    remedy = (
        "Fetch a fresh identity token; where a job gets only one, as in GitLab, start the job again. The operator "
        "finds out what emptied the broker's state."
    )


class StateUnavailable(Refusal):
    """The broker cannot reach what it must remember, so it grants nothing."""

    code, status = "state-unavailable", 503
    remedy = "Try again shortly. The operator finds the cause in `/readyz` and in the log."


class BrokerEnding(Refusal):
    """The broker was ended, and the request was not through when the time for that was up."""

    code, status = "broker-ending", 503
    remedy = "Send it again: another replica answers, or this one when it is back."


class PoliciesStale(Refusal):
    """The policy files have been broken for so long that the last good ones decide no more."""

    code, status = "policies-stale", 503
    remedy = (
        "The operator finds the mistakes in the log and with `broker check`, and the stated time in "
        "`BROKER_POLICIES_STALE_AFTER_HOURS`. Try again once they are mended."
    )


# --- The upload token ------------------------------------------------------------------------------------------------


class NoCredentials(Refusal):
    """The request carries no token."""

    code, status = "no-credentials", 401
    remedy = "Upload, or install, with the user name `__token__` and a minted token as the password."


class InvalidUploadToken(Refusal):
    """The credential is not a token that this broker minted for this index."""

    code, status = "invalid-upload-token", 403
    remedy = "Mint a token at this host and send it unchanged, with the user name `__token__`."


class ExpiredUploadToken(Refusal):
    """The token's time is over."""

    code, status = "expired-upload-token", 403
    remedy = "Mint a new one right before the upload, or the install."


class RevokedToken(Refusal):
    """The token was revoked; clients do so at the end of a run.

    Or the broker lost its state since the mint, and with it what was revoked: then no token from before is taken.
    """

    code, status = "revoked-token", 403
    remedy = (
        "Mint a new one, with a fresh identity token. In GitLab, ask for one `id_tokens` entry for each publish step."
    )


class WrongScope(Refusal):
    """The token is for another use: one that uploads reads nothing, and one that reads uploads nothing."""

    code, status = "wrong-scope", 403
    remedy = "Mint a token with `scope` `upload` to publish, and another with `scope` `read` to install."


class TokenNarrowed(Refusal):
    """The upload token was narrowed to another release, or to other files."""

    code, status = "token-narrowed", 403
    remedy = "Mint a token without `version` and `sha256`, or with those of the file."


class UsedUpToken(Refusal):
    """The upload token was good for a number of uploads, and they were made."""

    code, status = "used-up-token", 403
    remedy = "Mint another, or one for as many files as the release has."


class ProjectNotGranted(Refusal):
    """The upload token does not cover this project."""

    code, status = "project-not-granted", 403
    remedy = "Compare the project's name with the publisher's `projects` and with the member's rights."


class NamespaceReserved(Refusal):
    """The project's name belongs to another organization of this index."""

    code, status = "namespace-reserved", 409
    remedy = "Choose a name in your own organization's namespaces and projects, or ask the index operator."


# --- The upload ------------------------------------------------------------------------------------------------------


class MalformedUpload(Refusal):
    """The body is not a well-formed multipart form as package clients send it."""

    code, status = "malformed-upload", 400
    remedy = "Upload with uv, twine, pdm or another package client."


class UnsupportedEncoding(Refusal):
    """The body is compressed or transferred in a way that hides its length."""

    code, status = "unsupported-encoding", 415
    remedy = "Send the form without Content-Encoding."


class TruncatedUpload(Refusal):
    """The body ended before the form did."""

    code, status = "truncated-upload", 400
    remedy = "Upload again; something on the way cut the connection."


class SlowUpload(Refusal):
    """The body came more slowly than uploads may, or took longer than the longest may."""

    code, status = "slow-upload", 408
    remedy = (
        "Upload again over a better connection; the operator's `BROKER_UPLOAD_BYTES_PER_SECOND` sets the slowest pace."
    )


class UnknownField(Refusal):
    """The form has a field that no package client sends."""

    code, status = "unknown-field", 400
    remedy = "Upload with a current package client; tell us if a current one sends this field."


class RepeatedField(Refusal):
    """The form has a field twice that may stand there once."""

    code, status = "repeated-field", 400
    remedy = "Upload with a package client, one file a request."


class MissingField(Refusal):
    """The form lacks a field that every upload has."""

    code, status = "missing-field", 400
    remedy = (
        "Upload with a current package client: `name`, `version`, `filetype`, `sha256_digest` and `content` are needed."
    )


class WrongAction(Refusal):
    """The form asks the registry for something other than an upload of a file."""

    code, status = "wrong-action", 400
    remedy = "Only `:action=file_upload` passes; removing and registering are done at the registry."


class FilenameMismatch(Refusal):
    """The file's name is no distribution's name, or does not agree with the form's name, version and file type."""

    code, status = "filename-mismatch", 400
    remedy = "Build the distribution with a standard back end, and upload it under the name it was built with."


class MetadataMismatch(Refusal):
    """The metadata inside the archive is missing, or does not agree with the form."""

    code, status = "metadata-mismatch", 400
    remedy = "Build the distribution again with a standard back end, and upload it unchanged."


class DigestMismatch(Refusal):
    """The file is not the one whose digest the form states."""

    code, status = "digest-mismatch", 400
    remedy = "Upload again; the file was altered on the way, or after its digest was taken."


class FileExists(Refusal):
    """A file of this name is in the registry, with other bytes, and a file is written once."""

    code, status = "file-exists", 400
    remedy = "Publish a new version, or a new build of a wheel; the same file again would be taken as done."


class ReleaseClosed(Refusal):
    """The release is too old to take new files, by the operator's rule."""

    code, status = "release-closed", 403
    remedy = "Publish a new version. `BROKER_RELEASE_DAYS` says how long a release takes files after its first one."


class UploadInProgress(Refusal):
    """Another upload of a file of this name is not finished, or it is not known yet what became of it."""

    code, status = "upload-in-progress", 503
    remedy = "Wait as long as Retry-After says, and upload again; after a crash it can take a few minutes."


class UploadsBusy(Refusal):
    """Uploads under way hold all places, or as many as your publisher may hold beside others."""

    code, status = "uploads-busy", 503
    remedy = (
        "Wait as long as Retry-After says, and upload again; the operator's `BROKER_UPLOADS_AT_ONCE` says how many."
    )


class UploadQuota(Refusal):
    """Uploads under way hold all the space that they may, or all that your publisher may hold beside others."""

    code, status = "upload-quota", 507
    remedy = "Wait as long as Retry-After says, and upload again; `BROKER_SPOOL_LIMIT_BYTES` says how much there is."


class UploadStorage(Refusal):
    """The broker has no space left to hold the file while it is checked."""

    code, status = "upload-storage", 507
    remedy = "Try again later; the operator makes room where `BROKER_SPOOL` points."


# --- Reading ---------------------------------------------------------------------------------------------------------


class ReadsBusy(Refusal):
    """Whoever reads for this publisher, or its organization, has as many files under way as it may."""

    code, status = "reads-busy", 503
    remedy = "Try again as soon as Retry-After says, and close what is open and not read."


class NotInIndex(Refusal):
    """The index has no such project or file, or the token does not cover it: which of the two is not told."""

    code, status = "not-in-index", 404
    remedy = "Compare the name with the publisher's `downloads` and `projects`, and with the member's rights."


class NotForwarded(Refusal):
    """Forward-auth was asked without the method and the path that it should decide on."""

    code, status = "not-forwarded", 403
    remedy = (
        "The operator takes the proxy's configuration from `deploy/`, and names that proxy in `BROKER_FORWARD_AUTH`."
    )


class NotARead(Refusal):
    """The request behind forward-auth is no read: an upload, most often, which must go through the broker's gateway."""

    code, status = "not-a-read", 403
    remedy = "Publish at the broker's upload URL. Forward-auth sees no body, and the body names an upload's project."


class UnscopedPath(Refusal):
    """Forward-auth cannot tell which one project the path reads."""

    code, status = "unscoped-path", 404
    remedy = (
        "Ask for a project's page or for one of its files, as the registry links them, without a query. A list of all "
        "projects cannot be filtered by forward-auth: the broker's own `simple/` serves one."
    )


# --- The API ---------------------------------------------------------------------------------------------------------


class NoApiToken(Refusal):
    """The request to the API shows no API token."""

    code, status = "no-api-token", 401
    remedy = (
        "Send `Authorization: Bearer broker_...`, once; "
        "`broker tokens new NAME --role owner --organization ORGANIZATION` makes an API token."
    )


class InvalidApiToken(Refusal):
    """What is shown as an API token is none, or one that was removed."""

    code, status = "invalid-api-token", 401
    remedy = "Send the API token unchanged; the operator sees with `broker tokens list` which there are."


class ExpiredApiToken(Refusal):
    """The API token's time is over."""

    code, status = "expired-api-token", 401
    remedy = "The operator makes another with `broker tokens new`, and says with `--days` for how long."


class RoleNotPermitted(Refusal):
    """The API token is good, and its role does not allow this."""

    code, status = "role-not-permitted", 403
    remedy = "The operator makes an API token of the role that this is for: `broker tokens new NAME --role ROLE`."


class ForeignOrganization(Refusal):
    """The API token is for one organization, and another is asked for: whether there is one is not told."""

    code, status = "foreign-organization", 403
    remedy = "Ask for the API token's own organization, which `GET /api/token` tells; or have one made for the other."


class InvalidQuery(Refusal):
    """The query asks for something that the route does not have, or in a form that it does not read."""

    code, status = "invalid-query", 422
    remedy = "Compare the query string with the HTTP reference; what is not understood is never passed over."


class InvalidCursor(Refusal):
    """The cursor is none that the broker gave for this very query."""

    code, status = "invalid-cursor", 422
    remedy = (
        "Send it unchanged, with the organization and the filters that it was given for; or begin anew without one. "
        "It ends with the signing key of the time that it was given."
    )


class ApiBusy(Refusal):
    """So many queries of this API token, or of all, are under way that there is no place for one more."""

    code, status = "api-busy", 429
    remedy = "Wait as long as Retry-After says; ask for one page after the other, and read exports as fast as you can."


class InvalidBody(Refusal):
    """The body is not the JSON object that this route of the API reads."""

    code, status = "invalid-body", 422
    remedy = "Send the fields that the HTTP reference names, each of its type, and no others."


class UnknownSubject(Refusal):
    """What is to be revoked or switched is nothing that there can be, or that the policies have."""

    code, status = "unknown-subject", 422
    remedy = (
        "Write it as the policies and the audit records do: `publisher acme/widgets-release`. What policies have no "
        "more, an operator can still revoke and switch."
    )


class SwitchHeld(Refusal):
    """The index operator threw this switch, and an owner of the organization cannot lift it."""

    code, status = "switch-held", 403
    remedy = "Ask the index operator; `GET /api/switches` shows the reason."


# --- The registry ----------------------------------------------------------------------------------------------------


class RegistryUnavailable(Refusal):
    """The registry behind the broker did not answer."""

    code, status = "registry-unavailable", 502
    remedy = (
        "Try again: before an upload is sent anew, the broker finds out whether the file arrived. "
        "The operator looks at the registry."
    )


class RegistryCredential(Refusal):
    """The registry refused the broker's own credential, not yours."""

    code, status = "registry-credential", 502
    remedy = "The operator renews `BROKER_REGISTRY_USERNAME` and `BROKER_REGISTRY_PASSWORD`, or `BROKER_DEVPI_TOKEN`."


class RegistryIndex(Refusal):
    """The registry's simple index does not say clearly whether the file is there, so nothing is sent on."""

    code, status = "registry-index", 502
    remedy = "The operator compares `BROKER_REGISTRY_INDEX_URL` with where the registry lists a project's files."


class RegistryDamaged(Refusal):
    """The registry failed in the middle of the upload, and has the file with other bytes than were sent."""

    code, status = "registry-damaged", 502
    remedy = "The operator removes the file from the registry; then upload it again."


def every() -> list[type[Refusal]]:
    """Every refusal there is, in the order of this file."""
    return Refusal.__subclasses__()
