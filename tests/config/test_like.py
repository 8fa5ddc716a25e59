"""Files of the originals against what each original runs with, from a table of facts, and what is reported of them.

originals.json has the keys of their 29 files (prompts and paths shortened), the defaults of their classes and command lines,
and what their programs fix whatever a file has.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import Config, dump, load
from config.like import PROJECTS
from config.schema import SECTIONS, keys_of

FACTS = json.loads(Path(__file__).with_name("originals.json").read_text(encoding="utf-8"))
FILES = sorted(FACTS["files"])
WITHOUT_SHAPE = ["--init_shape", "pointe"]
"""In place of Shap-E, which is not here."""
OURS = {"device", "g_device", "data_device", "opt_path"}
"""Keys that cannot be as there: auto in place of cuda, and the file's path."""

Tree = dict[str, dict[str, Any]]


def merged(*trees: Tree) -> Tree:
    """Return the keys of all trees, by section; later ones win."""
    sections = {section for tree in trees for section in tree}
    return {
        name: {key: value for tree in trees for key, value in tree.get(name, {}).items()} for name in sections
    }


def keys_in(file: str) -> Tree:
    return merged(FACTS["in every file"][file.split("/")[0]], FACTS["files"][file])


def runs_with(file: str) -> Tree:
    """Return what the original runs with when it is given the file, and nothing else."""
    project, defaults = file.split("/")[0], FACTS["defaults"]
    fixed = FACTS["fixed by the program"][project]
    of_file = FACTS["fixed by the program, for a file"].get(file, {})
    return merged(defaults["all"], defaults[project], keys_in(file), fixed, of_file)


def write(tree: Tree, folder: Path) -> str:
    """Write a file in the projects' form."""
    (folder / "lora.safetensors").touch()
    path = folder / "run.yaml"
    content = {**tree.get("run", {}), **{name: keys for name, keys in tree.items() if name != "run"}}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def value(config: Config, section: str, key: str) -> Any:
    found = getattr(getattr(config, SECTIONS[section]) if section in SECTIONS else config, key)
    if key == "fix_noise" and found is None:
        # The method's own, as its released code has it.
        method, perpneg = config.guidance_type, config.guidance.perpneg
        return {"gcs": perpneg, "ism": False, "sctd": True}[method]
    return found


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("file", FILES)
def test_each_key_of_each_file_is_what_the_original_runs_with(
    file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project, expected = file.split("/")[0], runs_with(file)
    shape = expected["GenerateCamParams"]["init_shape"]
    flags = WITHOUT_SHAPE if shape == "shapee" else []
    config = load(["--opt", write(keys_in(file), tmp_path), "--like", project, *flags])
    wrong = {
        f"{section}.{key}": (found, there)
        for section, keys in expected.items()
        for key, there in keys.items()
        if key in keys_of(section if section in SECTIONS else "") and key not in OURS
        if (found := value(config, section, key)) != (tuple(there) if isinstance(there, list) else there)
    }
    assert wrong == ({"GenerateCamParams.init_shape": ("pointe", "shapee")} if flags else {})
    rest = "GenerateCamParams.init_shape 'pointe' (there 'shapee')" if flags else "no key"
    [line] = [message for message in caplog.messages if message.startswith(f"--like {project} sets ")]
    assert line.endswith(f"; still different from {PROJECTS[project].name}: {rest}.")
    assert config.like is None


@pytest.mark.parametrize("file", FILES)
def test_a_file_is_recognised_and_left_as_it_is(
    file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The line names just the keys that the project would have had otherwise; its own form is not that of a run here."""
    project, path = file.split("/")[0], write(keys_in(file), tmp_path)
    plain = load(["--opt", path, "--like", "null", *WITHOUT_SHAPE])
    assert "--like" not in caplog.text
    assert load(["--opt", path, *WITHOUT_SHAPE]) == plain
    [line] = [message for message in caplog.messages if "looks like" in message]
    assert line.startswith(
        f"{path} looks like a file of {PROJECTS[project].name}: --like {project} would set "
    )
    liked = load(["--opt", path, "--like", project, *WITHOUT_SHAPE])
    differing = [
        key
        for section in ("", *SECTIONS)
        for key in keys_of(section)
        if getattr(getattr(plain, SECTIONS.get(section, "")) if section else plain, key)
        != getattr(getattr(liked, SECTIONS.get(section, "")) if section else liked, key)
    ]
    named = line.split(" would set ")[1].split("; ")[0]
    assert named.count("(here ") == len(differing)
    assert all(f"{key} " in named for key in differing)
    # What a run keeps is from here, whatever it was made of.
    caplog.clear()
    Path("kept.yaml").write_text(dump(liked), encoding="utf-8")
    kept = load(["--opt", "kept.yaml"])
    assert kept.model_copy(update={"like": None}) == liked
    assert "--like" not in caplog.text


@pytest.mark.parametrize(
    ("project", "flags", "expected", "rest"),
    [
        ("segmentdreamer", "--guidance_type sctd", {"sctd_variant": "released", "phase_num": 4}, "no key"),
        (
            "SegmentDreamer",
            "--guid_scale 10.5 --phase_num 5",
            {"guidance_scale": 10.5, "phase_num": 5},
            "no key",
        ),
        (
            "segmentdreamer",
            "--guidance_type sctd --sctd_variant paper",
            {"sctd_variant": "paper"},
            "GuidanceParams.sctd_variant 'paper' (there 'released')",
        ),
        (
            "segmentdreamer",
            "--guidance_type cds",
            {"sctd_variant": "paper"},
            "guidance_type 'cds' (there 'gcs')",
        ),
        (
            "segmentdreamer",
            "--iterations 300 --white_background --workspace mine",
            {"iterations": 300},
            "ModelParams.white_background true (there false), OptimizationParams.iterations 300 (there 5000)",
        ),
        ("luciddreamer", "", {"guidance_type": "ism", "grad_clip": None, "white_background": True}, "no key"),
        ("luciddreamer", "--sds", {"guidance_type": "sds"}, "GuidanceParams.sds true (there false)"),
        (
            "luciddreamer",
            "--grad_clip 1 1 1",
            {"grad_clip": (1, 1, 1)},
            "OptimizationParams.grad_clip [1, 1, 1] (there null)",
        ),
        ("gcs-beg", "--test_ratio 4", {"test_ratio": 4, "BEG": True, "guidance_type": "gcs"}, "no key"),
        (
            "gcs-beg",
            "--BEG false --perpneg false --fix_noise",
            {"BEG": False},
            "GuidanceParams.BEG false (there true), GuidanceParams.fix_noise true (there false), "
            "GuidanceParams.perpneg false (there true)",
        ),
    ],
)
def test_flags_win_and_what_still_differs_is_named(
    project: str,
    flags: str,
    expected: dict[str, Any],
    rest: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = write({"GuidanceParams": {"text": "a mug"}}, tmp_path)
    config = load(["--opt", path, "--like", project, *flags.split()])
    values = {key: getattr(config, key) for key in keys_of("")}
    values |= {
        key: getattr(getattr(config, held), key) for name, held in SECTIONS.items() for key in keys_of(name)
    }
    assert {key: values[key] for key in expected} == expected
    assert caplog.messages[0].split(": ", 1)[1] == f"{rest}."


def test_a_file_may_name_its_project_and_its_own_keys_win(tmp_path: Path) -> None:
    text = {
        "run": {"like": "segmentdreamer", "phase_num": 7},
        "GuidanceParams": {"text": "a mug", "guidance_scale": 10.5},
    }
    config = load(["--opt", write(text, tmp_path), "--guidance_type", "sctd"])
    assert (config.phase_num, config.guidance.sctd_variant) == (7, "released")
    # As there, where --guid_scale goes into it also when it is not given.
    assert config.guidance.guidance_scale == 7.5


def test_a_resumed_run_keeps_what_it_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = write({"GuidanceParams": {"text": "a mug", "guidance_scale": 10.5}}, tmp_path)
    config = load(["--opt", text, "--like", "gcs-beg"])
    (tmp_path / "config.yaml").write_text(dump(config), encoding="utf-8")
    caplog.clear()
    resumed = load(["--resume", str(tmp_path), "--like", "segmentdreamer"])
    assert resumed.guidance == config.guidance
    assert caplog.messages == [
        "like (segmentdreamer) is accepted without effect: the run that is resumed names every key."
    ]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--phi_range 30 90", "phi_range is [30, 90], on one side of the front: from iteration 500 on"),
        (
            "--phi_range -90 -1 --progressive_view_iter 700",
            "from iteration 1000 on its views move further away",
        ),
        ("--phi_range -30 90", ""),
        ("--phi_range 30 90 --phi_scale_up_factor 1", ""),
        ("--phi_range 30 90 --use_progressive", ""),
        ("--phi_range 30 90 --iterations 500", ""),
    ],
)
def test_azimuths_that_leave_the_front_are_reported(
    flags: str, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(["--opt", write({"GuidanceParams": {"text": "a mug"}}, tmp_path), *flags.split()])
    assert [told in message for message in caplog.messages] == ([True] if told else [])
