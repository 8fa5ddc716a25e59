"""Files, flags and presets to a ``Config``, and back to YAML."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from config import GUIDANCE_NAMES, Config, dump, load
from config.command_line import flags
from config.schema import SECTIONS, keys_of, section_of

ROOT = Path(__file__).parents[2]


def written(folder: Path, text: str) -> str:
    file = folder / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_without_a_file_the_quickstart_is_loaded() -> None:
    config = load([])
    assert config.guidance.model_key == "toybox"
    assert config.model.white_background  # measured so; black is the default
    assert config == load(
        ["--opt", str(ROOT / "config/quickstart.yaml"), "--opt_path", "config/quickstart.yaml"]
    )


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "seed: 1\nGuidanceParams: {text: a mug, guidance_scale: 7.5}")
    config = load(["--opt", file, "--seed", "2", "--text", "a red mug", "--guidance_scale=20"])
    assert (config.seed, config.guidance.text, config.guidance.guidance_scale) == (2, "a red mug", 20)


@pytest.mark.parametrize(
    ("written_as", "meant"),
    [
        *((word, word) for word in ("auto", "dynamic", "static", "max", "false")),
        *[
            ("null", "auto"),
            ("", "auto"),
            ("off", "false"),
            ("no", "false"),
            ("true", "dynamic"),
            ("on", "dynamic"),
        ],
    ],
)
def test_how_to_compile_may_be_written_as_older_files_have_it(
    tmp_path: Path, written_as: str, meant: str
) -> None:
    """A file, the command line, and a checkpoint of a time when it was a flag mean the same."""
    config = load(["--opt", written(tmp_path, f"GuidanceParams: {{text: a mug, compile: {written_as}}}")])
    assert config.guidance.compile == meant
    assert load(["--opt", written(tmp_path, dump(config))]) == config
    if written_as:
        assert load(["--text", "a mug", "--compile", written_as]).guidance.compile == meant
    stored = {"guidance": {"compile": yaml.safe_load(written_as or "null")}}
    assert Config.model_validate(stored).guidance.compile == meant


def test_a_file_may_use_anchors_and_merge_keys(tmp_path: Path) -> None:
    text = "GuidanceParams: {text: &t a mug, negative: *t}\nModelParams: {<<: {sh_degree: 2}, bg_gray: on}"
    config = load(["--opt", written(tmp_path, text)])
    assert (config.guidance.negative, config.model.sh_degree, config.model.bg_gray) == ("a mug", 2, True)


def test_flags_may_come_before_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "seed: 1\nGuidanceParams: {text: a mug}")
    assert load(["--seed", "2", "--opt", file]).seed == 2


def test_guid_scale_wins_only_when_it_is_given(tmp_path: Path) -> None:
    file = written(tmp_path, "GuidanceParams: {text: a mug, guidance_scale: 10.5}")
    assert load(["--opt", file]).guidance.guidance_scale == 10.5
    assert load(["--opt", file, "--guid_scale", "5"]).guidance.guidance_scale == 5
    assert load(["--opt", file, "--guid_scale", "5", "--guidance_scale", "6"]).guidance.guidance_scale == 5


def test_released_cds_has_the_scale_of_its_files_unless_one_is_given(tmp_path: Path) -> None:
    released = ["--guidance_type", "cds", "--cds_variant", "released"]
    config = load(released)
    assert config.guidance.guidance_scale == 100
    assert load(["--opt", written(tmp_path, dump(config))]).guidance.guidance_scale == 100
    for flag in ("--guidance_scale", "--guid_scale"):
        assert load([*released, flag, "7.5"]).guidance.guidance_scale == 7.5
    assert load(released[:2]).guidance.guidance_scale == load(released[2:]).guidance.guidance_scale == 7.5


def test_the_command_of_segmentdreamers_readme() -> None:
    argv = "--guidance_type sctd --phase_num 5 --num_ddim_timesteps 50 --guid_scale 7.5"
    config = load(["--opt", str(ROOT / "config/bagel.yaml"), *argv.split()])
    assert (config.guidance_type, config.phase_num, config.num_ddim_timesteps) == ("sctd", 5, 50)
    assert "bagel" in config.guidance.text


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        (["--save_video"], True),
        (["--save_video", "true"], True),
        (["--save_video", "false"], False),
        (["--save_video=False"], False),
        (["--save_video", "--quiet"], True),
        (["--save_video", "false", "--save_video"], True),
    ],
)
def test_switches(argv: list[str], value: bool) -> None:
    assert load(argv).save_video is value


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        ([], None),
        (["--fix_noise"], True),
        (["--fix_noise", "false"], False),
        (["--fix_noise", "--fix_noise", "null"], None),
    ],
)
def test_switch_that_may_be_left_open(argv: list[str], value: bool | None) -> None:
    assert load(argv).guidance.fix_noise is value


@pytest.mark.parametrize("value", [["2", "8", "1e3"], ["[2, 8, 1000]"], ["[2,8.0, '1e3']"]])
def test_lists_as_several_values_or_as_a_literal(value: list[str]) -> None:
    assert load(["--grad_clip", *value]).optimization.grad_clip == (2, 8, 1000)


def test_negative_numbers_are_values() -> None:
    assert load(["--phi_range", "-90", "9e1"]).camera.phi_range == (-90, 90)
    assert load(["--phi_range", "-1.8e2", "-10"]).camera.phi_range == (-180, -10)


def test_null_where_a_key_may_be_null() -> None:
    assert load(["--max_scale", "null"]).optimization.max_scale is None
    assert load(["--grad_clip", "[]"]).optimization.grad_clip is None
    assert load(["--grad_clip", "null"]).optimization.grad_clip is None


def test_text_stays_text() -> None:
    assert load(["--text", "42"]).guidance.text == "42"
    assert load(["--text=--seed: [1"]).guidance.text == "--seed: [1"
    assert load(["--negative", ""]).guidance.negative == ""


@pytest.mark.parametrize("name", sorted({*flags()} - {"guid_scale"}))
def test_every_key_is_a_flag_of_the_same_name(name: str) -> None:
    section, key = flags()[name]
    assert key == name
    default = getattr(section_of(section)(), name)
    words = [str(item) for item in default] if isinstance(default, tuple) else [str(default)]
    config = load(["--text", "a mug", f"--{name}", *(words or ["[]"])] if name != "text" else ["--text", "a"])
    held = getattr(config, SECTIONS[section]) if section else config
    assert getattr(held, name) == (default if name != "text" else "a")


def test_guidances_are_those_of_the_table() -> None:
    for name in GUIDANCE_NAMES:
        assert load(["--guidance_type", name]).guidance_type == name


def test_the_configuration_is_frozen() -> None:
    config = load([])
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.guidance.text = "a mug"  # type: ignore[misc]
    hash(config)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--opt", str(Path(__file__).parent / "every_key.yaml"), "--LoRA_path", ""],
        ["--text", "Sébastien's “mug”: #1\nnext - {line}, 'quoted'", "--max_scale", "1e-7"],
        ["--grad_clip", "[]", "--checkpoint_iterations", "1", "20", "--lambda_tv", "1e22"],
        ["--text", "no", "--negative", "null", "--workspace", "1e3", "--inverse_text", "~"],
    ],
)
def test_dump_gives_back_an_equal_configuration(argv: list[str], tmp_path: Path) -> None:
    config = load(argv)
    text = dump(config)
    assert load(["--opt", written(tmp_path, text)]) == config
    assert dump(load(["--opt", written(tmp_path, text)])) == text


def test_dump_is_complete_and_in_the_sections_of_the_files() -> None:
    content = yaml.safe_load(dump(Config()))
    assert list(content) == [*keys_of(""), *SECTIONS]
    for section in SECTIONS:
        assert list(content[section]) == keys_of(section)


def test_a_file_may_hold_what_differs_from_another(tmp_path: Path) -> None:
    """The base's keys hold where the file has none, in the sections that it has too; flags win over both."""
    (tmp_path / "base.yaml").write_text(
        "seed: 1\nphase_num: 3\nGuidanceParams: {text: a mug, guidance_scale: 7.5}"
    )
    file = written(
        tmp_path,
        "base: base.yaml\nseed: 2\nGuidanceParams: {guidance_scale: 20}\nModelParams: {sh_degree: 1}",
    )
    config = load(["--opt", file, "--phase_num", "4"])
    assert (config.seed, config.phase_num, config.model.sh_degree) == (2, 4, 1)
    assert (config.guidance.text, config.guidance.guidance_scale) == ("a mug", 20)
    flow = load(["--opt", str(ROOT / "config/quickstart-flow.yaml")])
    plain = load([])
    assert flow.camera == plain.camera
    assert flow.optimization == plain.optimization
    assert flow.guidance.model_key == "toybox-flow"


@pytest.mark.parametrize(
    ("text", "argv", "method"),
    [
        ("GuidanceParams: {text: a mug, sds: true}", [], "sds"),
        ("GuidanceParams: {text: a mug, sds: on}\nguidance_type: gcs", [], "gcs"),
        ("GuidanceParams: {text: a mug, sds: true}", ["--guidance_type", "ism"], "ism"),
        ("GuidanceParams: {text: a mug, sds: true}", ["--sds", "false"], "sctd"),
        ("GuidanceParams: {text: a mug}", ["--sds"], "sds"),
    ],
)
def test_sds_means_the_guidance_where_no_other_is_named(
    text: str, argv: list[str], method: str, tmp_path: Path
) -> None:
    assert load(["--opt", written(tmp_path, text), *argv]).guidance_type == method


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb", "gltf", "stl", "PLY", "Glb"])
def test_a_start_may_be_any_file_that_is_there(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    path.touch()
    assert load(["--init_shape", str(path)]).camera.init_shape == str(path)


def test_a_file_that_is_not_read_need_not_be_there(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.touch()
    assert load(["--init_shape", "gone.ply", "--pretrained_model_path", str(path)])


@pytest.mark.parametrize(
    ("given", "axes"), [("z,-y", "z,-y"), (" +Y, z", "y,z"), ("-x,+z", "-x,z"), ("null", None)]
)
def test_axes_are_two_signed_letters(given: str, axes: str | None) -> None:
    assert load(["--init_axes", given]).camera.init_axes == axes


@pytest.mark.parametrize("value", ["''", "null", ""])
def test_no_gaussians_to_continue_from(value: str, tmp_path: Path) -> None:
    file = written(
        tmp_path, f"GuidanceParams: {{text: a mug}}\nModelParams: {{pretrained_model_path: {value}}}"
    )
    assert load(["--opt", file]).model.pretrained_model_path is None


def test_importing_and_loading_leave_torch_out() -> None:
    code = (
        "import sys, config\n"
        "config.dump(config.load(['--seed', '3']))\n"
        "heavy = {'torch', 'numpy', 'diffusers', 'transformers', 'scene', 'guidance'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_names_every_flag_once_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        load(["--seed", "1", "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    named = re.findall(r"(?<=\s)--(\w+)", text.split("The run:")[1])
    assert sorted(named) == sorted({*flags()} - {"guid_scale"})
    assert max(len(line) for line in text.splitlines()) <= 110
    assert "5000" in text
