"""The configuration: YAML file and command line to one frozen, typed ``Config``, and back to YAML.

Nothing else in the project reads YAML, the command line or the environment. Importing this package does not
import torch, so a mistake is reported at once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from config.command_line import parse
from config.consistency import check, idle, remarks
from config.errors import ConfigError, invalid_value, show
from config.fast import PARTS, fast
from config.keys import extra
from config.like import PROJECTS, like, recognised, still_different
from config.schema import GUIDANCE_NAMES, SECTIONS, Config, keys_of, section_of
from config.yaml_file import PRESET_FOLDER, Values, read
from utils.run_folder import RunFolder

__all__ = [
    "GUIDANCE_NAMES",
    "Config",
    "ConfigError",
    "changed",
    "changes",
    "differences",
    "dump",
    "load",
    "of_file",
    "of_new_run",
    "preset_of",
    "run_to_resume",
]

DEFAULT_FILE = "config/quickstart.yaml"
CONSISTENT3D_SCALE = 100.0
"""ω at the start, in the files of Consistent3D that `cds_variant` released follows."""
ABOUT_NO_RUN = {
    "resume",
    "start_checkpoint",
    "force",
    "quiet",
    "view",
    "view_port",
    "checkpoint_iterations",
    "checkpoint_minutes",
    "opt_path",
}
"""Keys that change no result."""

logger = logging.getLogger(__name__)


def load(argv: Sequence[str]) -> Config:
    """Load the configuration of the command line ``argv`` (without the program's name).

    ``--opt FILE`` names a YAML file, by default that of the run that is resumed, or else the quickstart's;
    every other flag wins over the file. ``--like PROJECT`` fills in what both leave open, as another project has it.
    ``--help`` prints the flags and exits. Keys without effect here are named in one warning of the logger
    ``config``. Raises ``ConfigError`` with one sentence for whatever does not fit.
    """
    if "--help" in argv or "-h" in argv:
        # Built only on request: it reads every field.
        from config.help_text import help_text

        print(help_text())
        raise SystemExit(0)
    path, flags = parse(argv)
    resumed = run_to_resume(flags[""].get("resume"), flags[""].get("start_checkpoint"))
    default = resumed.config if resumed else PRESET_FOLDER / "quickstart.yaml"
    file = read(default if path is None else path)
    file["ModelParams"].setdefault("opt_path", path or DEFAULT_FILE)
    resumes = resumed is not None and path is None
    config = _as_a_project(file, flags, resumes=resumes)
    quick = config.fast and not resumes
    if config.fast:
        config = _faster(config, flags, resumes=resumes)
    if not config.guidance.text.strip():
        raise ConfigError("GuidanceParams.text is '', but must be the prompt, as in --text 'a red mug'.")
    check(config)
    _warn_of_unused(config)
    for remark in remarks(config, fast=quick):
        logger.warning("%s", remark)
    return config


def _as_a_project(file: Values, flags: Values, *, resumes: bool) -> Config:
    """Return the configuration of a file and of flags, as the project that ``like`` names would have it.

    One line reports what that has set and what still differs, or that the file looks like a project's. ``like`` is
    null in the result, whose keys have the outcome. A file of a run that ``resumes`` has it already.
    """
    plain = _configured({section: {**keys, **flags[section]} for section, keys in file.items()})
    named, chosen = "like" in file[""] or "like" in flags[""], plain.like
    plain = plain.model_copy(update={"like": None})
    if resumes:
        if chosen is not None:
            logger.warning(
                "like (%s) is accepted without effect: the run that is resumed names every key.", chosen
            )
        return plain
    key = chosen if named else recognised(file)
    if key is None:
        return plain
    config = _configured(like(key, file, flags, plain)).model_copy(update={"like": None})
    sets = ", ".join(f"{label} {new} (was {old})" for label, old, new in changed(plain, config))
    if named:
        others = ", ".join(still_different(key, file, flags, config))
        logger.warning(
            "--like %s sets %s; still different from %s: %s.",
            key, sets or "nothing", PROJECTS[key].name, others or "no key",
        )  # fmt: skip
        return config
    if sets:
        logger.warning(
            "%s looks like a file of %s: --like %s would set %s; --like null hides this line.",
            file["ModelParams"]["opt_path"], PROJECTS[key].name, key, sets.replace("(was ", "(here "),
        )  # fmt: skip
    return plain


def _faster(config: Config, flags: Values, *, resumes: bool) -> Config:
    """Return the configuration with what `fast` sets, but for the flags' keys. In the result `fast` is false: its keys have the
    outcome, as those of a run that `resumes` have it already."""
    plain = config.model_copy(update={"fast": False})
    if resumes:
        logger.warning("fast (true) is accepted without effect: the run that is resumed names every key.")
        return plain
    values = _values(plain)
    for (section, name), value in fast(plain).items():
        if name not in flags[section]:
            values[section][name] = value
    quick = _validate(values)
    differs = {label.split(".")[-1]: (old, new) for label, old, new in changed(plain, quick)}
    iterations = differs.pop("iterations", None)
    without = {"w_self": " (SCTD lacks its self-consistency, Eq. 10)"}
    parts = [f"{name} {differs[name][1]}{without.get(name, '')}" for _, name in PARTS if name in differs]
    if iterations is not None:
        parts.insert(
            0, f"{iterations[1]} iterations in place of {iterations[0]}, other counts of iterations alike"
        )
    logger.info("fast: %s; --fast false runs the file as it is.", ", ".join(parts) or "nothing changes")
    return quick


def _configured(values: Values) -> Config:
    config = _validate(values)
    if config.guidance.sds and "guidance_type" not in values[""]:
        config = config.model_copy(update={"guidance_type": "sds"})
    released_cds = config.guidance_type == "cds" and config.guidance.cds_variant == "released"
    if released_cds and "guidance_scale" not in values["GuidanceParams"]:
        own = config.guidance.model_copy(update={"guidance_scale": CONSISTENT3D_SCALE})
        config = config.model_copy(update={"guidance": own})
    return config


def run_to_resume(resume: str | None, start_checkpoint: str | None) -> RunFolder | None:
    """Return the run that these two keys of a ``Config`` name, None if it is a new one.

    Raises ``ConfigError`` if they contradict each other, or if there is no run.
    """
    if resume is None and start_checkpoint is None:
        return None
    for name, value in (("resume", resume), ("start_checkpoint", start_checkpoint)):
        if value is not None and not str(value).strip():
            raise ConfigError(f"{name} is {show(value)}, but must be the path of what is resumed.")
    root = Path(str(resume) if start_checkpoint is None else start_checkpoint).absolute()
    run = RunFolder(root if start_checkpoint is None else root.parent.parent)
    if start_checkpoint is not None and resume is not None and run.root != Path(resume).absolute():
        raise ConfigError(
            f"start_checkpoint is {show(start_checkpoint)}, but it must be a checkpoint in {resume}, which is resumed."
        )
    if not run.config.is_file():
        raise ConfigError(
            f"{run.root} holds no {run.config.name}, but what is resumed must be a run's folder, "
            "such as outputs/quickstart/a-car."
        )
    return run


def of_file(path: str | os.PathLike[str]) -> Config:
    """Load the configuration from a file such as a finished run's config.yaml.

    It may be one that cannot run here, now: its start may be gone. Raises ``ConfigError``.
    """
    return _validate(read(path))


def _validate(values: Values) -> Config:
    tree: dict[str, Any] = {**values[""], **{held: values[name] for name, held in SECTIONS.items()}}
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    raise invalid_value(first)


def _warn_of_unused(config: Config) -> None:
    """Name the keys whose value requests something that this project, or the chosen method, does not do."""
    ignored = []
    for label, field, value in _all_keys(config):
        marks = extra(field)
        acts_as = field.default if marks["acts_as"] is None else marks["acts_as"]
        if marks["unused"] and value != acts_as:
            ignored.append(f"{label} ({show(value)})")
    ignored += idle(config)
    if ignored:
        verb = "is" if len(ignored) == 1 else "are"
        logger.warning("%s %s accepted without effect.", ", ".join(ignored), verb)


def _values(config: Config) -> Values:
    tree = config.model_dump()
    return {
        "": {key: tree[key] for key in keys_of("")},
        **{name: tree[held] for name, held in SECTIONS.items()},
    }


def dump(config: Config) -> str:
    """YAML text with every key of ``config``; loading it gives an equal ``Config``."""
    values = _values(config)
    named = {**values.pop(""), **values}
    return yaml.dump(named, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _all_keys(config: Config) -> Iterator[tuple[str, FieldInfo, Any]]:
    """Yield ``Section.key``, its declaration and its value, for every key."""
    for section in ("", *SECTIONS):
        held = getattr(config, SECTIONS[section]) if section else config
        for name in keys_of(section):
            label = f"{section}.{name}" if section else name
            yield label, section_of(section).model_fields[name], getattr(held, name)


def differences(config: Config) -> list[str]:
    """List the keys whose value is not the default, as ``key value``."""
    return [
        f"{label.split('.')[-1]} {show(value)}"
        for label, field, value in _all_keys(config)
        if value != field.default
    ]


def changed(before: Config, after: Config) -> list[tuple[str, str, str]]:
    """List the keys that make ``after`` another run than ``before``: ``Section.key`` and both values, as text."""
    return [
        (label, show(old), show(new))
        for (label, _, old), (_, _, new) in zip(_all_keys(before), _all_keys(after))
        if label.split(".")[-1] not in ABOUT_NO_RUN and new != old
    ]


def changes(before: Config, after: Config) -> list[str]:
    """List what ``changed`` finds, each as ``Section.key value (was value)``."""
    return [f"{label} {new} (was {old})" for label, old, new in changed(before, after)]


def preset_of(config: Config) -> tuple[str, Config] | None:
    """The file among those that come with the project that a run has begun with, such as config/quickstart.yaml, and what
    it has; None for a file of the user's own."""
    folder = PRESET_FOLDER.parent
    file = (folder / (config.model.opt_path or DEFAULT_FILE)).resolve()
    if not (file.is_relative_to(PRESET_FOLDER.resolve()) and file.is_file()):
        return None
    try:
        return file.relative_to(folder.resolve()).as_posix(), of_file(file)
    except ConfigError:  # it has been edited meanwhile
        return None


def of_new_run(config: Config) -> Config:
    """Return the configuration without the keys that continue another run or serve only whoever started it."""
    return config.model_copy(update={"resume": None, "start_checkpoint": None, "force": False, "view": False})


class _Dumper(yaml.SafeDumper):
    """YAML dumper that writes tuples as ``[a, b]`` on one line."""


_Dumper.add_representer(
    tuple, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)
