"""Whether a model may have an alias: names of others and those of config.yaml are taken. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from inference.catalog import ModelRef
from models_admin.settings_store import Kept


def taken(
    alias: str,
    identity: str,
    models: Iterable[tuple[str, ModelRef]],
    configured: Mapping[str, str],
    kept: Mapping[str, Kept],
) -> str | None:
    """Why the model of ``identity`` cannot have ``alias``, as a sentence that goes on after it; None where it can.

    ``models`` are all that are known with the identity of each, ``configured`` the aliases of config.yaml, ``kept`` the
    settings of all by identity.
    """
    wanted, own, present = alias.lower(), identity.lower(), set[str]()
    for other, ref in models:
        present.add(other.lower())
        if other.lower() == own:
            if wanted in (ref.id.lower(), own):
                return "is the model's own name"
        elif wanted in (ref.id.lower(), other.lower()):
            return f"is the name of {ref.id}"
        elif wanted in (name.lower() for name in ref.aliases):
            return f"is a name of {ref.id}"
    for other, settings in kept.items():
        # What is kept for a model that is not known any more holds no name back.
        if (
            other != own
            and other in present
            and wanted in (name.lower() for name in settings.values.get("aliases", ()))
        ):
            return f"is an alias of {settings.name}"
    targets = {name.lower(): target for name, target in configured.items()}
    if wanted in targets and targets[wanted].lower() != own:
        return f"stands in config.yaml for {targets[wanted]}"
    return None
