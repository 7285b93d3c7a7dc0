"""The grammar of an upload's form: its boundary, the headers of its parts, and the fields there are.

Stricter than RFC 7578 on purpose: whatever two parsers could read in two ways is refused, and what passes is written
anew for the registry from the parsed parts only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from broker import refusals
from broker.gateway.spool import DIGESTS

CONTENT: Final = "content"
SIGNATURE: Final = "gpg_signature"

# fmt: off
SINGLE: Final = frozenset({
    ":action", "protocol_version", "metadata_version", "name", "version", "filetype", "pyversion", "comment",
    "summary", "description", "description_content_type", "home_page", "download_url", "author", "author_email",
    "maintainer", "maintainer_email", "license", "license_expression", "requires_python", "attestations",
    CONTENT, SIGNATURE, *DIGESTS,
})
"""Fields that stand in a form once."""

MULTIPLE: Final = frozenset({
    "keywords", "classifiers", "platform", "supported_platform", "project_url", "project_urls", "requires",
    "provides", "obsoletes", "requires_dist", "provides_dist", "obsoletes_dist", "requires_external",
    "provides_extra", "provides_extras", "dynamic", "license_file", "license_files", "import_name",
    "import_namespace",
})
"""Fields that may repeat. Sources: the core metadata specification, https://docs.pypi.org/api/upload/, and what uv,
twine, pdm (`provides_extras`), poetry, hatch and flit were seen to send (November 2026)."""
# fmt: on

SHORT: Final = frozenset(
    {":action", "protocol_version", "metadata_version", "name", "version", "filetype", "pyversion", *DIGESTS}
)
"""Fields that say what the file is. They are looked at, compared and recorded, so none is longer than a filename."""

_BOUNDARY = r"""(?:"([0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?])"|([0-9A-Za-z'+_.\-]{1,70}))"""
_CONTENT_TYPE = re.compile(rf"multipart/form-data[ \t]*;[ \t]*boundary={_BOUNDARY}", re.IGNORECASE)
_DISPOSITION = re.compile(
    rb'form-data; ?name="([\x21\x23-\x5b\x5d-\x7e]{1,64})"(?:; ?filename="([\x20\x21\x23-\x5b\x5d-\x7e]{1,255})")?',
    re.IGNORECASE,
)
_VISIBLE = re.compile(rb"[\x20-\x7e]{1,512}")


def read_boundary(content_type: str) -> bytes:
    """The boundary: 'multipart/form-data; boundary=x' -> b'x'.

    Raises:
        MalformedUpload: another type, another parameter, or no boundary by the grammar of RFC 2046 section 5.1.1.
    """
    found = _CONTENT_TYPE.fullmatch(content_type)
    if found is None:
        raise refusals.MalformedUpload("the Content-Type is not multipart/form-data with one valid boundary")
    return str(found[1] or found[2]).encode()


def read_headers(headers: Mapping[bytes, bytes]) -> tuple[str, str]:
    """A part's name and filename, the latter empty where it has none; from its headers, names in lower case.

    Raises:
        MalformedUpload: a header that could change the part's meaning, or one not of our grammar: no `filename*`, no
            repeated parameter, no quoted pairs.
        UnsupportedEncoding: a Content-Transfer-Encoding that is none of the three which change nothing.
    """
    extra = headers.keys() - {b"content-disposition", b"content-type", b"content-transfer-encoding"}
    if extra:
        raise refusals.MalformedUpload(f"a part has a header {min(extra).decode('ascii', 'replace')!r}")
    if not all(map(_VISIBLE.fullmatch, headers.values())):
        raise refusals.MalformedUpload("a part's header is empty, too long, or not of printable ASCII characters")
    if headers.get(b"content-transfer-encoding", b"binary").lower() not in {b"binary", b"8bit", b"7bit"}:
        raise refusals.UnsupportedEncoding("a part has a Content-Transfer-Encoding")
    found = _DISPOSITION.fullmatch(headers.get(b"content-disposition", b""))
    if found is None:
        raise refusals.MalformedUpload('a part\'s Content-Disposition is not `form-data; name="..."`')
    return found[1].decode(), (found[2] or b"").decode()
