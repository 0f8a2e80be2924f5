"""``lmx migrate lmstudio``: shows the plan, writes it, takes LM Studio's port over, and takes it all back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lmx_site import paths
from lmx_site.client import Client, ClientError, running_url
from lmx_site.config_edit import EditError, edited, read_text, restore, save, values_of
from lmx_site.config_yaml import KeyPath
from lmx_site.listen import holder, is_taken
from lmx_site.lmstudio_plan import Plan, Row, make_plan
from lmx_site.terminal import table
from models_admin import lmstudio

Say = Callable[[str], Any]
_PORT: KeyPath = ("server", "port")


def run(
    file: Path,
    place: Path | None,
    say: Say,
    *,
    dry_run: bool,
    cut_over: bool,
    open_lan: bool = False,
    key: str | None = None,
) -> None:
    """Carry over what can be into ``file``, all or nothing. ``place`` is LM Studio's home. Raises ``EditError``.

    ``open_lan``: the network may use the models without a key, if it may with LM Studio.
    """
    plan = make_plan(_home(place), values := values_of(file), open_lan=open_lan)
    if cut_over:
        _take_port(plan, values)
    for line in _shown(plan):
        say(line)
    say("")
    if dry_run:
        say(f"Nothing was written: this is what would be done with {file}.")
    elif plan.changes:
        copy = save(file, edited(read_text(file), plan.changes))
        say(f"Written: {file}. What was there is kept in {copy}; 'lmx migrate lmstudio --undo' puts it back.")
        say("It takes effect when the server is started again.")
    else:
        say(f"There is nothing to write: {file} has all of it.")
    if cut_over:
        for line in _cut_over(plan, key, dry_run=dry_run):
            say(line)


def undo(file: Path, say: Say, *, force: bool = False) -> None:
    """Put back what the last run replaced; with ``force`` also over later changes. Raises ``EditError``."""
    copy, undone = restore(file, force=force)
    say(f"{file} is as it was before ({copy.name}).")
    if undone is not None:
        say(f"What it was until now is in {undone}.")
    say("It takes effect when the server is started again.")


def _home(place: Path | None) -> Path:
    if place is not None:
        home = place.expanduser().absolute()
        if not home.is_dir():
            raise EditError(f"{home} is no directory: name LM Studio's home, which has settings.json in it")
        return home
    found = lmstudio.find_home()
    if found is None:
        raise EditError("LM Studio is not here: there is no ~/.lmstudio and no ~/.cache/lm-studio; name it by --from")
    return found


def _shown(plan: Plan) -> Iterator[str]:
    yield f"LM Studio's home: {plan.home}"
    yield ""
    if plan.rows:
        cells = [[row.name, row.theirs, row.ours, row.done] for row in plan.rows]
        yield from table(["SETTING", "LM STUDIO", "HERE", "TO DO"], cells)
    else:
        yield "There is nothing to carry over."
    if ("security", "trust_lan") in plan.changes:
        yield ""
        yield "Other machines may then use the models without a key, as with LM Studio; security.api_key asks for one."
    if plan.left:
        yield ""
        yield "Not carried over:"
        yield from (f"  {what}: {why}" for what, why in plan.left)


def _take_port(plan: Plan, values: dict[str, Any]) -> None:
    """Make it LM Studio's port, whatever config.yaml says: that is what cutting over means."""
    section = values.get("server")
    there = section.get("port", 1234) if isinstance(section, dict) else 1234
    plan.rows = [row for row in plan.rows if row.name != "port"]
    plan.left = [pair for pair in plan.left if not pair[0].startswith("port: ")]
    done = "as it is" if there == plan.port else "write"
    plan.rows.insert(0, Row("port", str(plan.port), f"server.port: {plan.port}", done))
    plan.changes.pop(_PORT, None)
    if done == "write":
        plan.changes[_PORT] = plan.port


def _cut_over(plan: Plan, key: str | None, *, dry_run: bool) -> Iterator[str]:
    """What the owner has to do, and what answers now."""
    yield ""
    yield "To switch off in LM Studio, else it takes the port again:"
    yield "  its server: Developer, Status off ('lms server stop')"
    yield "  its login item: Settings, 'Run LLM server on login' off, and LM Studio among the login items of macOS"
    if plan.autostart:
        yield f"  the start of its server with the program (autoStartOnLaunch is on in {plan.home})"
    ours = running_url(paths.home())
    taken = is_taken("127.0.0.1", plan.port)
    if taken and ours is not None and ours.rpartition(":")[2].strip("/") == str(plan.port):
        yield f"Port {plan.port}: this server has it."
    elif taken:
        yield f"Port {plan.port} is taken by {holder('127.0.0.1', plan.port)}: stop that before 'lmx serve'."
    else:
        yield f"Port {plan.port} is free."
    if dry_run:
        return
    if ours is None or plan.changes:
        yield "When the server was started again, the same command asks every name for one token."
        return
    yield from _asked(ours, key)


def _asked(url: str, key: str | None) -> Iterator[str]:
    """One token of each alias that the running server has."""
    try:
        with Client(url, key) as client:
            listed = client.get("/admin/models/list")["models"]
            kinds = {model["id"]: model["type"] for model in client.get("/v1/models")["data"]}
            names = [(alias, model["model_id"]) for model in listed for alias in model["aliases"]]
            yield f"Asking {url} for one token by each of {len(names)} names:"
            for alias, model in names:
                yield f"  {alias}: {_one_token(client, alias, model, kinds.get(model))}"
    except (ClientError, KeyError, TypeError) as error:
        yield f"The names cannot be checked: {error}"


def _one_token(client: Client, alias: str, model: str, kind: str | None) -> str:
    try:
        if kind == "embeddings":
            client.post("/v1/embeddings", {"model": alias, "input": "a"})
        else:
            client.post("/v1/completions", {"model": alias, "prompt": "a", "max_tokens": 1})
    except ClientError as error:
        return f"does not answer: {error}"
    return f"{model} answers"
