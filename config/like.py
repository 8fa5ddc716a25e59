"""What the projects that users' files come from would run with, where that is not what this one does by itself.

Their command lines and training loops decide more than their files do: a method, a background, a guidance scale.
`like` takes these over. A file that looks like a project's is only reported: an earlier run of it here, with a method
that was named, must not become another run by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from config.errors import show
from config.keys import extra
from config.schema import SECTIONS, Config, section_of
from config.yaml_file import Values

Keys = Mapping[tuple[str, str], Any]
"""(YAML section or '' for the top of the file, key) -> value."""


@dataclass(frozen=True)
class Project:
    """Settings that one of the projects runs with.

    Attributes:
        name: as its authors write it.
        marks: keys of GuidanceParams that its files hold.
        methods: guidances that it has, its own choice first.
        values: where neither file nor command line has the key, and our default is another value.
        overwritten: by its command line's defaults, whatever the file has.
        fixed: by its code, whatever file and command line have.
    """

    name: str
    marks: frozenset[str]
    methods: tuple[str, ...]
    values: Keys
    fixed: Keys
    overwritten: Keys = field(default_factory=dict)


PROJECTS = {
    # train.py: --guidance_type gcs, --phase_num 4; --guid_scale 7.5 goes into guidance_scale also when it is not given.
    "segmentdreamer": Project(
        name="SegmentDreamer",
        marks=frozenset({"t_threshold", "t_mode"}),
        methods=("gcs", "sctd"),
        values={("", "phase_num"): 4, ("GuidanceParams", "sctd_variant"): "released"},
        fixed={("ModelParams", "white_background"): False, ("GuidanceParams", "sctd_variant"): "released"},
        overwritten={("GuidanceParams", "guidance_scale"): 7.5},
    ),
    # Its key of the background is _white_background; no gradient is clipped, no brightness equalised.
    "luciddreamer": Project(
        name="LucidDreamer",
        marks=frozenset({"xs_delta_t", "xs_inv_steps"}),
        methods=("ism", "sds"),
        values={("ModelParams", "white_background"): True, ("OptimizationParams", "grad_clip"): None},
        fixed={("OptimizationParams", "grad_clip"): None, ("GuidanceParams", "BEG"): False},
    ),
    # train.py: --test_ratio 2; the background is black and brightness equalised in every run.
    "gcs-beg": Project(
        name="GCS-BEG",
        marks=frozenset({"w_cc", "w_gc"}),
        methods=("gcs",),
        values={("", "test_ratio"): 2, ("GuidanceParams", "BEG"): True},
        fixed={("ModelParams", "white_background"): False, ("GuidanceParams", "BEG"): True},
    ),
}
TOP = {"port", "save_video", "seed", "device"}
"""Keys that the projects read at the top of a file, which must have `port`."""
OF_NO_RESULT = {"opt_path", "workspace"}
"""Keys of sections that change no result."""


def recognised(file: Values) -> str | None:
    """Return the key in `PROJECTS` of the project that a file is from, by its keys; None if it could be anybody's.

    A file that has more at its top is from here, such as a run's config.yaml.
    """
    top, keys = set(file[""]), set(file["GuidanceParams"])
    if not top <= TOP:
        return None
    for project in ("segmentdreamer", "gcs-beg"):
        if PROJECTS[project].marks <= keys:
            return project
    # Its files have no key of their own: those of GCS-BEG have them too, and so may ours.
    return "luciddreamer" if "port" in top and PROJECTS["luciddreamer"].marks <= keys else None


def like(key: str, file: Values, flags: Values, config: Config) -> Values:
    """Return the values of a file and of flags, with what the project `key` adds and overwrites.

    config: that of file and flags alone.
    """
    project = PROJECTS[key]
    named = "guidance_type" in file[""] or "guidance_type" in flags[""] or config.guidance.sds
    method = config.guidance_type if named else project.methods[0]
    added = {at: value for at, value in project.values.items() if _acts(at[1], method)}
    if not named:
        added["", "guidance_type"] = method
    values: Values = {section: dict(keys) for section, keys in file.items()}
    for (section, name), value in added.items():
        values[section].setdefault(name, value)
    for (section, name), value in project.overwritten.items():
        values[section][name] = value
    return {section: {**keys, **flags[section]} for section, keys in values.items()}


def still_different(key: str, file: Values, flags: Values, config: Config) -> list[str]:
    """List the keys whose value the project `key` would not have run with, each as `Section.key value (there value)`.

    These are what its code fixes, and flags of the sections, which it ignores: there the file's value holds.
    """
    project, there = PROJECTS[key], dict[tuple[str, str], Any]()
    for section in SECTIONS:
        fields = section_of(section).model_fields
        for name in flags[section].keys() - OF_NO_RESULT:
            if not extra(fields[name])["unused"] and (section, name) not in project.overwritten:
                default = project.values.get((section, name), fields[name].default)
                there[section, name] = file[section].get(name, default)
    there |= _fixed(key, config)
    return [
        f"{section}{'.' if section else ''}{name} {show(ours)} (there {show(theirs)})"
        for (section, name), theirs in sorted(there.items(), key=lambda item: item[0])
        if show(ours := _value(config, section, name)) != show(theirs)
    ]


def _fixed(key: str, config: Config) -> dict[tuple[str, str], Any]:
    """Return what the project runs with whatever file and command line have."""
    project, method = PROJECTS[key], config.guidance_type
    found = {at: value for at, value in project.fixed.items() if _acts(at[1], method)}
    if method not in project.methods:
        found["", "guidance_type"] = project.methods[0]
    # The code for Perp-Neg and that without it are two: one of them draws fresh noise each time.
    perpneg = config.guidance.perpneg
    fresh = {"gcs-beg": not perpneg, "luciddreamer": perpneg}.get(key, False)
    if fresh and config.guidance.fix_noise is not None:
        found["GuidanceParams", "fix_noise"] = False
    return found


def _acts(name: str, method: str) -> bool:
    """Return whether a key of the tables has an effect with the method."""
    return name != "sctd_variant" or method == "sctd"


def _value(config: Config, section: str, name: str) -> Any:
    return getattr(getattr(config, SECTIONS[section]) if section else config, name)
