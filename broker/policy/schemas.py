"""JSON Schemas (2020-12) of the policy files, for editors: made of the models that load them.

Laws:

- Every file that loads is valid. The reverse cannot hold: whether a member exists, or a name is the organization's
  own, is told by `broker check` alone.
- Every field says what it is for, and nothing unknown passes where a file would not load with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import BaseModel

from broker import refusals
from broker.policy.case_shapes import CaseShape, CasesShape, TemplateShape
from broker.policy.shapes import (
    REQUIRABLE,
    TRIGGERS,
    AllotmentShape,
    CeilingShape,
    CeilingsShape,
    FreezeShape,
    IndexFreezeShape,
    IndexShape,
    IssuerShape,
    LifetimeShape,
    MemberId,
    MemberShape,
    OrganizationShape,
    ProjectShape,
    PublisherShape,
)
from broker.providers import PROVIDERS, Kind, Trust

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_NAMED: Final = ("properties", "patternProperties", "$defs")
"""Keywords whose keys are names of the file's, not of the schema's."""


def index_schema() -> Schema:
    """Of `index.yaml`."""
    schema = _model(IndexShape)
    issuer = _model(IssuerShape)
    issuer["properties"]["provider"]["enum"] = list(PROVIDERS)
    declared = [_model(kind.declaration) for kind in PROVIDERS.values() if kind.declaration is not None]
    issuer["properties"]["claims"] = _described({"anyOf": declared}, issuer["properties"]["claims"])
    _nest(schema, "issuers", issuer)
    schema["properties"]["lifetime"] = _described(_model(LifetimeShape), schema["properties"]["lifetime"])
    schema["properties"]["ceilings"] = _described(_ceilings(), schema["properties"]["ceilings"])
    schema["properties"]["freezes"]["items"] = _model(IndexFreezeShape)
    _nest(schema, "organizations", _model(AllotmentShape))
    return _root("index.yaml", schema)


def organization_schema() -> Schema:
    """Of `organizations/<name>.yaml`."""
    schema = _model(OrganizationShape)
    # What is no field of a member is the name of an issuer, and its value the member's id there.
    _nest(schema, "members", {**_model(MemberShape), "additionalProperties": _model(MemberId)})
    _nest(schema, "projects", {**_model(ProjectShape), "anyOf": _any_of("upload", "download")})
    _nest(schema, "publishers", _publisher())
    schema["properties"]["freezes"]["items"] = _model(FreezeShape)
    schema["$defs"] = {_kind(name): _publisher_of(provider.trust) for name, provider in PROVIDERS.items()}
    return _root("organizations/*.yaml", schema)


def cases_schema() -> Schema:
    """Of `tests/*.yaml`."""
    schema, case = _model(CasesShape), _model(CaseShape)
    case["properties"]["refuse"]["enum"] = [refusal.code for refusal in refusals.every()]
    case["allOf"] = [
        {"oneOf": [{"required": [one]}, {"required": [other]}]}
        for one, other in (("template", "claims"), ("allow", "refuse"))
    ]
    _nest(schema, "templates", _model(TemplateShape))
    _nest(schema, "cases", case)
    return _root("tests/*.yaml", schema)


SCHEMAS: Final[Mapping[str, Callable[[], Schema]]] = {
    "index": index_schema,
    "organization": organization_schema,
    "cases": cases_schema,
}
"""By the kind of file."""


def _ceilings() -> Schema:
    schema, one = _model(CeilingsShape), _model(CeilingShape)
    for level in (schema, one):
        for field, names in (("required", REQUIRABLE), *TRIGGERS.items()):
            level["properties"][field]["items"]["enum"] = list(names)
    _nest(schema, "organizations", one)
    return schema


def _publisher() -> Schema:
    """A publisher's kind is not told by its issuer's name, but by the name of its source, as each kind calls it.

    Then only that kind's fields are asked for, and a mistake is told as one of them, not as of all kinds at once.
    """
    told_by = dict.fromkeys(_told_by(provider.trust) for provider in PROVIDERS.values())
    return {
        "type": "object",
        "description": "One CI identity, and the projects that it may publish and read.",
        "required": ["issuer"],
        "anyOf": _any_of(*told_by),
        "allOf": [
            {
                "if": {"required": [field]},
                "then": {
                    "anyOf": [
                        {"$ref": f"#/$defs/{_kind(name)}"}
                        for name, provider in PROVIDERS.items()
                        if field in provider.trust.model_fields
                    ]
                },
            }
            for field in told_by
        ],
    }


def _told_by(trust: type[Trust]) -> str:
    """The first field that every publisher of the kind has: the name of its source."""
    return next(name for name, field in trust.model_fields.items() if field.is_required() and name != "issuer")


def _publisher_of(trust: type[Trust]) -> Schema:
    schema, common = _model(trust), _model(PublisherShape)
    schema["properties"] |= common["properties"]
    schema["required"] = list(dict.fromkeys([*schema["required"], *common["required"]]))
    schema["anyOf"] = _any_of("projects", "downloads")
    ids = [rule.field for rule in trust.rules if rule.kind is Kind.ID]
    # Where a kind names its ids otherwise, only the broker can tell whether they are all there.
    return {**schema, "oneOf": [{"required": ids}, {"required": ["pin"]}]} if ids else schema


def _any_of(*fields: str) -> list[Schema]:
    """At least one of them stands there."""
    return [{"required": [field]} for field in fields]


def _kind(name: str) -> str:
    return f"{name}-publisher"


def _root(files: str, schema: Schema) -> Schema:
    return {"$schema": DIALECT, "title": f"Policies of the broker: {files}", **schema}


def _model(model: type[BaseModel]) -> Schema:
    schema: Schema = _tidied(model.model_json_schema())
    return schema


def _nest(schema: Schema, section: str, entry: Schema) -> None:
    """Says what the entries of a section are, where the model leaves them to be looked at one by one."""
    mapping = schema["properties"][section]
    if "patternProperties" in mapping:
        mapping["patternProperties"] = dict.fromkeys(mapping["patternProperties"], entry)
    else:
        mapping["additionalProperties"] = entry


def _described(schema: Schema, field: Schema) -> Schema:
    return {**schema, "description": field["description"]}


def _tidied(node: Any) -> Any:
    """What pydantic says of the values in memory, said of what may stand in a file.

    A file has no null: a value is never empty. Titles only repeat names, and empty defaults say nothing.
    """
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    told = {
        key: {name: _tidied(one) for name, one in value.items()} if key in _NAMED else _tidied(value)
        for key, value in node.items()
        if key != "title" and not (key == "default" and value in (None, {}, []))
    }
    _without_null(told)
    if told.get("type") == "array" and "minLength" in told:  # of a validator before the tuple
        told["minItems"] = told.pop("minLength")
    if "patternProperties" in told:
        told["additionalProperties"] = False
    if told.get("type") == "string" and isinstance(told.get("default"), int):  # a time, kept in seconds
        told["default"] = f"{told['default']}s"
    return told


def _without_null(told: Schema) -> None:
    kinds = [kind for kind in told.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) > 1:
        told["anyOf"] = kinds
    elif kinds:
        del told["anyOf"]
        told |= {**kinds[0], **told}
