"""Suite of what is evaluated: prompts × methods × seeds from a YAML file, or the finished runs of some folders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

import config as configuration
from config import Config, ConfigError
from config.errors import nearest, show
from evaluation.runs import WORKSPACE, Outcome, key_of

LEAN = {
    "workspace": WORKSPACE,
    "quiet": True,
    "save_video": False,
    "save_process": False,
    "test_ratio": 1,
    "save_ratio": 1,
}
"""Settings of a run of which the asset is wanted and little else."""

Settings = Mapping[str, Any]
"""Values by the names of the command line's flags."""

KEYS = ("base", "prompts", "seeds", "settings", "methods", "vary", "leave_out", "lead", "published")


@dataclass(frozen=True)
class Run:
    """Run of a suite."""

    method: str
    prompt: str
    seed: int
    config: Config = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.method}, {self.prompt}, seed {self.seed}"

    @property
    def key(self) -> str:
        return key_of(self.config)


@dataclass(frozen=True)
class Suite:
    """Runs to be compared in one table.

    runs: in the order in which they are made, one seed after the other, so that an interrupted table is even;
    methods: all, in the order of the table; lead: the one that the others are compared with; varied: the keys
    whose values follow the method's own name; absent: why a method has no runs; published: a method's figures
    elsewhere, by column, and `source`: where.
    """

    name: str
    methods: tuple[str, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    lead: str
    varied: tuple[str, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    source: str = ""

    @property
    def config(self) -> Config:
        """The configuration of the first run: what all have in common, such as the prior, can be read there."""
        return self.runs[0].config


def load(path: Path) -> Suite:
    """Read a suite.

    `base`: the configuration file of all runs; `prompts`: a list, or a text file with one on each line; `seeds`;
    `settings`: of all runs; `methods`: each name's own settings; `vary`: lists of values of which every combination
    makes a method of its own; `leave_out`: combinations that are not wanted, with a reason; `lead`: the method that the
    others are compared with (the last); `published`: figures of the methods by column, and their `source`. In settings `{prompt}`
    stands for the prompt, such as in the name of a file. Raises ConfigError, one sentence.
    """
    content = _mapping(_read(path), str(path))
    for key in content:
        if key not in KEYS:
            raise ConfigError(
                f"{path}: {show(key)} is no key of a suite; the nearest is {nearest(str(key), KEYS)}."
            )
    prompts, seeds = _prompts(content.get("prompts"), path), _seeds(content.get("seeds", [0]), path)
    methods, absent = _methods(content, path)
    common = {**LEAN, **_mapping(content.get("settings", {}), f"{path}: settings")}
    base = content.get("base", configuration.DEFAULT_FILE)
    runs = []
    for seed, prompt, (name, settings) in product(seeds, prompts, methods.items()):
        if name in absent:
            continue
        try:
            own = {key: _filled(value, prompt) for key, value in {**common, **settings}.items()}
            config = _config(base, {**own, "text": prompt, "seed": seed})
        except ConfigError as error:
            if not content.get("vary"):
                raise ConfigError(f"{path}: {name}: {error}") from None
            absent[name] = str(error)
        else:
            runs.append(Run(name, prompt, seed, config))
    if not runs:
        raise ConfigError(f"{path}: no combination can be run: {next(iter(absent.values()))}")
    lead = content.get("lead", [*methods][-1])
    published = dict(_mapping(content.get("published", {}), f"{path}: published"))
    source = str(published.pop("source", ""))
    for key, name in (("lead", lead), *(("published", name) for name in published)):
        if name not in methods:
            raise ConfigError(
                f"{path}: {key} names {show(name)}, which is no method; the nearest is {nearest(str(name), methods)}."
            )
    return Suite(
        path.stem,
        tuple(methods),
        prompts,
        seeds,
        tuple(runs),
        lead,
        varied=tuple(content.get("vary", {})),
        absent=absent,
        published=published,
        source=source,
    )


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--suite {path} cannot be read ({error.strerror}): name a YAML file.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not YAML: {error}.") from None


def _mapping(value: Any, label: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{label} is {show(value)}, but must be keys with values.")
    return value


def _prompts(value: Any, path: Path) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            value = Path(value).read_text(encoding="utf-8").splitlines()
        except OSError:
            raise ConfigError(f"{path}: prompts is {show(value)}, but there is no such file.") from None
    if not isinstance(value, list) or not all(isinstance(prompt, str) for prompt in value):
        raise ConfigError(
            f"{path}: prompts is {show(value)}, but must be a list of texts or a file of lines."
        )
    prompts = tuple(dict.fromkeys(prompt.strip() for prompt in value if prompt.strip()))
    if not prompts:
        raise ConfigError(f"{path}: prompts is empty, but must name at least one.")
    return prompts


def _seeds(value: Any, path: Path) -> tuple[int, ...]:
    whole = isinstance(value, list) and all(type(seed) is int and seed >= 0 for seed in value)
    if not whole or not value or len(set(value)) < len(value):
        raise ConfigError(
            f"{path}: seeds is {show(value)}, but must be whole numbers from 0 on, each once: [0, 1]."
        )
    return tuple(value)


def _methods(content: Mapping[str, Any], path: Path) -> tuple[dict[str, Settings], dict[str, str]]:
    """Settings of each method, combined with what is varied; those that are left out, with the reason."""
    named = _mapping(content.get("methods"), f"{path}: methods")
    vary = _mapping(content.get("vary", {}), f"{path}: vary")
    for key, values in vary.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{path}: vary.{key} is {show(values)}, but must be a list of values.")
    left_out = [dict(_mapping(entry, f"{path}: leave_out")) for entry in content.get("leave_out", [])]
    reasons = [str(entry.pop("reason", "left out")) for entry in left_out]
    methods: dict[str, Settings] = {}
    absent: dict[str, str] = {}
    for method, settings in named.items():
        for values in product(*vary.values()):
            varied = dict(zip(vary, values))
            name = " ".join([str(method), *map(_plain, values)])
            methods[name] = {**_mapping(settings, f"{path}: {method}"), **varied}
            for entry, reason in zip(left_out, reasons):
                if entry.items() <= methods[name].items():
                    absent[name] = reason
    if not methods:
        raise ConfigError(f"{path}: methods is empty, but must name at least one.")
    return methods, absent


def _filled(value: Any, prompt: str) -> Any:
    """Return a setting's value for a prompt."""
    return value.replace("{prompt}", prompt) if isinstance(value, str) else value


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else show(value)


def _config(base: str, settings: Settings) -> Config:
    words = [value if isinstance(value, str) else json.dumps(value) for value in settings.values()]
    return configuration.load(["--opt", base, *(f"--{key}={word}" for key, word in zip(settings, words))])


def of_outcomes(name: str, outcomes: Sequence[Outcome]) -> tuple[Suite, dict[Run, Outcome]]:
    """A suite of finished runs, and their outcomes.

    Runs that differ in prompt, seed and workspace alone are of one method, which is named after what sets it
    apart. Of two runs of one configuration the last by name counts.
    """
    configs = [outcome.config for outcome in outcomes]
    settings = [dict(_settings(config)) for config in configs]
    apart = [key for key in settings[0] if len({repr(some[key]) for some in settings}) > 1]
    shown = [key for key in apart if key not in ("guidance_type", "guidance_scale")]
    found = {}
    for config, own, outcome in zip(configs, settings, outcomes):
        named = f"{config.guidance_type.upper()} {config.guidance.guidance_scale:g}"
        method = ", ".join([named, *(f"{key} {_plain(own[key])}" for key in shown)])
        found[method, config.guidance.text, config.seed] = config, outcome
    runs = {Run(*key, config): outcome for key, (config, outcome) in found.items()}
    methods, prompts, seeds = (tuple(dict.fromkeys(column)) for column in zip(*found))
    return Suite(name, methods, prompts, tuple(sorted(seeds)), tuple(runs), methods[-1]), runs


def _settings(config: Config) -> Iterator[tuple[str, Any]]:
    """Settings that make the method of a run, by key."""
    own = {"text", "seed", "workspace", "init_prompt", "opt_path", "device", *LEAN}
    for key, value in config.model_dump().items():
        if isinstance(value, dict):
            yield from ((name, held) for name, held in value.items() if name not in own)
        elif key not in own:
            yield key, value
