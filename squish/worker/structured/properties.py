"""What a schema says of an object's properties: which are required, and what their names can be. Pure."""

from __future__ import annotations

from typing import Any

from squish.worker.structured import alternatives


def with_required(schema: dict[str, Any]) -> dict[str, Any]:
    """A property that says of itself whether it is required, as in the first drafts, is said so by its object."""
    known, listed = alternatives.properties(schema), schema.get("required", [])
    says = {name: each["required"] for name, each in known.items() if isinstance(each, dict) and _is_switch(each)}
    if not says or not isinstance(listed, list):
        return schema
    plain = {name: {k: v for k, v in known[name].items() if k != "required"} for name in says}
    required = [*listed, *(name for name, wanted in says.items() if wanted and name not in listed)]
    return {**schema, "properties": {**known, **plain}, "required": required}


def _is_switch(schema: dict[str, Any]) -> bool:
    return isinstance(schema.get("required"), bool)


def listed_names(names: Any) -> list[Any] | None:
    """All names, when they are listed and nothing else is said of them."""
    return alternatives.values(names) if isinstance(names, dict) and names.keys() <= {"type", "enum", "const"} else None


def name_pattern(names: Any) -> str | None:
    """The pattern of names, when that is all that is known of them."""
    if not isinstance(names, dict) or names.get("type", "string") != "string":
        return None
    kept = {key: value for key, value in names.items() if key != "type"}
    if set(kept) == {"pattern"} and isinstance(kept["pattern"], str):
        return str(kept["pattern"])
    lengths = kept.keys() <= {"minLength", "maxLength"} and all(isinstance(each, int) for each in kept.values())
    return rf"^[\s\S]{{{kept.get('minLength', 0)},{kept.get('maxLength', '')}}}$" if kept and lengths else None
