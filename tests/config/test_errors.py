"""A wrong configuration gets one sentence with the key, the value and a way out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import ConfigError, load

# The text of a file, and what the sentence must hold (divided by |).
BROKEN_FILES = [
    # names
    ("GuidanceParams: {guidence_scale: 7.5}", "GuidanceParams.guidence_scale|GuidanceParams.guidance_scale"),
    ("GuidanceParams: {beg: true}", "GuidanceParams.beg|nearest is GuidanceParams.BEG"),
    ("OptimisationParams: {iterations: 5}", "OptimisationParams|nearest is OptimizationParams"),
    ("sede: 3", "sede|nearest is seed"),
    ("ModelParams: {text: a mug}", "ModelParams.text|belongs to the section GuidanceParams"),
    ("iterations: 100", "iterations|belongs to the section OptimizationParams"),
    ("ModelParams: {seed: 1}", "ModelParams.seed|belongs to the top of the file"),
    ("ModelParams: {5: 1}", "ModelParams.5"),
    ("? [a, b]\n: 1", "broken.yaml line 1|unhashable key"),
    # types
    ("OptimizationParams: {iterations: many}", "OptimizationParams.iterations|'many'|whole number|is 5000"),
    ("ModelParams: {sh_degree: 1.5}", "ModelParams.sh_degree|1.5|a whole number|nearest is 2"),
    ("GuidanceParams: {guidance_scale: true}", "GuidanceParams.guidance_scale|true|a number|default is 7.5"),
    ("GuidanceParams: {text: 42}", "GuidanceParams.text|42|text"),
    ('GuidanceParams: {text: "a\\0"}', "GuidanceParams.text|Unicode"),
    ('GuidanceParams: {negative: "\\uD800"}', "GuidanceParams.negative|Unicode"),
    ("GuidanceParams: {fp16: 2}", "GuidanceParams.fp16|2|true or false"),
    ("OptimizationParams: {opacity_lr: [1, 2]}", "OptimizationParams.opacity_lr|[1, 2]|default is 0.05"),
    ("GuidanceParams: {text: {a: b}}", "GuidanceParams.text|{'a': 'b'}|text"),
    ("OptimizationParams: {iterations: }", "OptimizationParams.iterations|null|default is 5000"),
    ("OptimizationParams: {opacity_lr: .nan}", "OptimizationParams.opacity_lr|nan|a finite number"),
    ("OptimizationParams: {lambda_tv: .inf}", "OptimizationParams.lambda_tv|inf|a finite number"),
    # ranges
    ("ModelParams: {sh_degree: 4}", "ModelParams.sh_degree|4|at most 3|nearest is 3"),
    ("ModelParams: {bg_aug_ratio: -0.1}", "ModelParams.bg_aug_ratio|-0.1|at least 0|nearest is 0"),
    ("GenerateCamParams: {default_radius: 0}", "GenerateCamParams.default_radius|more than 0|default is 3.5"),
    ("OptimizationParams: {iterations: 1e99}", "OptimizationParams.iterations|1e99|within ±2147483647"),
    ("GenerateCamParams: {theta_range: [105, 45]}", "GenerateCamParams.theta_range|[105, 45]|[45, 105]"),
    ("GuidanceParams: {t_range: [0.5, 1.5]}", "GuidanceParams.t_range|[0.5, 1.5]|nearest is [0.5, 1]"),
    ("GuidanceParams: {t_range: [0.5, 0.5]}", "GuidanceParams.t_range|[0.5, 0.5]|default is [0.02, 0.5]"),
    ("GenerateCamParams: {phi_range: [0, 1, 2]}", "GenerateCamParams.phi_range|[0, 1, 2]|two numbers"),
    ("GenerateCamParams: {fovy_range: [a, b]}", "GenerateCamParams.fovy_range|['a', 'b']|two numbers"),
    ("OptimizationParams: {grad_clip: [2, 8]}", "OptimizationParams.grad_clip|[2, 8]|three numbers"),
    ("OptimizationParams: {adam_betas: [0.9, 1]}", "OptimizationParams.adam_betas|[0.9, 1]|under 1"),
    ("checkpoint_iterations: [0]", "checkpoint_iterations|[0]|at least 1"),
    # words
    ("GuidanceParams: {t_mode: monotone}", "GuidanceParams.t_mode|'monotone'|nearest is 'mono'"),
    ("GuidanceParams: {weighting: 1}", "GuidanceParams.weighting|1|sigma_over_alpha, one, sigma_squared"),
    ("GenerateCamParams: {init_shape: spheer}", "GenerateCamParams.init_shape|'spheer'|.ply|is 'sphere'"),
    ("GenerateCamParams: {init_shape: shapee}", "init_shape|'shapee'|--init_shape shapee.ply --init_axes z,-y"),
    ("GenerateCamParams: {init_shape: a.fbx}", "GenerateCamParams.init_shape|'a.fbx'|.obj, .glb, .gltf, .stl or .npz"),
    ("GenerateCamParams: {init_shape: 3}", "GenerateCamParams.init_shape|3|sphere, box"),
    ("GenerateCamParams: {init_axes: z}", "GenerateCamParams.init_axes|'z'|such as 'y,z' or 'z,-y'"),
    ("GenerateCamParams: {init_axes: 'z,-z'}", "GenerateCamParams.init_axes|'z,-z'|up and to the front"),
    ("GenerateCamParams: {init_axes: [z, x]}", "GenerateCamParams.init_axes|['z', 'x']|such as 'y,z'"),
    (
        "ModelParams: {pretrained_model_path: a.pth}",
        "ModelParams.pretrained_model_path|'a.pth'|.splat.glb or .splat.usdz file of",
    ),
    ("ModelParams: {input_axes: up}", "ModelParams.input_axes|'up'|such as 'y,z'"),
    ('GenerateCamParams: {init_shape: "a\\0.ply"}', "GenerateCamParams.init_shape|Unicode"),
    ("GuidanceParams: {guidance: IF}", "GuidanceParams.guidance|'IF'|SD"),
    ("guidance_type: scdt", "guidance_type|'scdt'|nearest is 'sctd'"),
    # values that do not fit together
    ("OptimizationParams: {feature_lr_final: 0}", "OptimizationParams.feature_lr is 0.005|_final is 0"),
    ("phase_num: 60\nGuidanceParams: {text: a mug}", "phase_num 60|num_ddim_timesteps 50|more steps or fewer segments"),
    ("GuidanceParams: {text: ' '}", "GuidanceParams.text|--text"),
    ("GuidanceParams: {text: a, LoRA_path: a/b.pt}", "GuidanceParams.LoRA_path|'a/b.pt'|no such file|--LoRA_path ''"),
    ("GuidanceParams: {text: a, model_key: ''}", "GuidanceParams.model_key|''|toybox"),
    # the file itself
    ("base: 3", "broken.yaml has base 3|YAML file beside it"),
    ("base: missing.yaml", "missing.yaml does not exist"),
    ("base: broken.yaml", "broken.yaml has base 'broken.yaml'|itself a base"),
    ("seed: 1\nModelParams: {}\nModelParams: {}", "broken.yaml has ModelParams twice, in lines 2 and 3"),
    ("GuidanceParams:\n  text: a\n  negative: b\n  text: c", "broken.yaml has text twice, in lines 2 and 4"),
    ("ModelParams:\n  - sh_degree: 1", "ModelParams|[{'sh_degree': 1}]|section of keys"),
    ("ModelParams: none", "ModelParams|'none'|section of keys"),
    ("- text: a mug", "broken.yaml|[{'text': 'a mug'}]|sections"),
    ("", "broken.yaml|null|sections"),
    ("GuidanceParams:\n  text: a: b", "broken.yaml line 2"),
    ("seed: 1\nModelParams:\n  sh_degree: [0\n", "broken.yaml line 4"),
    ("GuidanceParams:\n\ttext: a", "broken.yaml line 2"),
    ("seed: !!python/object/apply:os.getcwd []", "broken.yaml line 1"),
    ("seed: \x01", "broken.yaml|not YAML"),
    ("seed: 2001-99-99", "broken.yaml|month"),
    ("seed: " + "[" * 20_000, "broken.yaml|too deeply"),
    ("#" * 100_000, "broken.yaml|65536 bytes"),
]  # fmt: skip

BROKEN_FLAGS = [
    (["--iteration", "5"], "--iteration |nearest is --iterations"),
    (["--guidance-scale", "5"], "--guidance-scale|nearest is --guidance_scale"),
    (["--guidance_type", "vsd"], "guidance_type|'vsd'|one of sds, ism, cds, gcs, sctd|nearest is 'sds'"),
    (["--seed"], "--seed|as in --seed 0"),
    (["--text", "--seed", "1"], "--text has no value"),
    (["--phi_range"], "--phi_range|as in --phi_range -180 180"),
    (["--text", "a", "red", "mug"], "--text|'a red mug'|quote"),
    (["bagel.yaml"], "'bagel.yaml'|--opt"),
    (["--phi_range", "3"], "GenerateCamParams.phi_range|['3']|two numbers"),
    (["--grad_clip", "[2, 8"], "OptimizationParams.grad_clip|'[2, 8'|three numbers"),
    (["--save_video", "perhaps"], "save_video|'perhaps'|true or false"),
    (["--iterations", "null"], "OptimizationParams.iterations|'null'|a whole number"),
    (["--opt", "a.yaml", "b.yaml"], "--opt|a.yaml|one YAML file"),
    (["--opt", "bagle.yml"], "bagle.yml|config/bagel.yaml"),
    (["--opt", "/"], "--opt /|directory"),
    (["--opt", ""], "--opt is ''|a YAML file"),
    (["--resume", ""], "resume is ''|path of what is resumed"),
    (["--opt", "a\0b"], "--opt|null byte"),
    (["--init_shape", "no/a.glb"], "GenerateCamParams.init_shape|'no/a.glb'|no such file"),
    (["--init_shape", "long" * 999 + ".obj"], "GenerateCamParams.init_shape|no such file"),
    (["--pretrained_model_path", "no/a.ply"], "ModelParams.pretrained_model_path|'no/a.ply'|no such file"),
    (["--keep", "geometry"], "OptimizationParams.keep|'geometry'|--pretrained_model_path asset.ply"),
    (["--min_color", "0"], "OptimizationParams.min_color is 0|more than 0 and at most 1"),
    (["--keep", "colour"], "OptimizationParams.keep|'colour'|nothing, geometry, color|is 'color'"),
]


def sentence_of(argv: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(argv)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert len(message) < 400
    return message


@pytest.mark.parametrize(("text", "told"), BROKEN_FILES, ids=lambda part: part[:40])
def test_broken_file(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text, encoding="utf-8")
    message = sentence_of(["--opt", str(file)])
    assert [part for part in told.split("|") if part not in message.replace(str(tmp_path), "")] == [], message


@pytest.mark.parametrize(("argv", "told"), BROKEN_FLAGS)
def test_broken_flag(argv: list[str], told: str) -> None:
    message = sentence_of(argv)
    assert [part for part in told.split("|") if part not in message] == [], message


def test_file_that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_bytes(b"GuidanceParams:\n  text: caf\xe9")
    assert "UTF-8 (byte 27)" in sentence_of(["--opt", str(file)])


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.yaml")
    assert "named pipe" in sentence_of(["--opt", str(tmp_path / "x.yaml")])


def test_aliases_that_describe_an_enormous_value(tmp_path: Path) -> None:
    levels = ["seed: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    file = tmp_path / "broken.yaml"
    file.write_text("\n".join(levels))
    assert "l1" in sentence_of(["--opt", str(file)])
    file.write_text("GuidanceParams:\n  " + "\n  ".join(levels).replace("l29", "text"))
    sentence_of(["--opt", str(file)])


def test_merge_keys_that_describe_an_enormous_mapping(tmp_path: Path) -> None:
    levels = ["l0: &a0 {x: 1}"]
    levels += [f"l{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 30)]
    file = tmp_path / "broken.yaml"
    file.write_text("\n".join(levels))
    assert "more than 500 keys" in sentence_of(["--opt", str(file)])


@pytest.mark.parametrize(
    ("phase_num", "threshold", "fits"),
    [(5, 399, True), (5, 400, False), (10, 150, True), (10, 200, False), (1, 1000, True)],
)
def test_monotone_segments_must_have_a_length(phase_num: int, threshold: int, fits: bool) -> None:
    # Interval m of SCTD is t_τ + 2m(T - N_s t_τ)/(N_s(N_s - 1)), by brute force.
    count = max(phase_num - 1, 1)
    lengths = [
        threshold + 2 * m * (1000 - phase_num * threshold) / (phase_num * count) for m in range(phase_num)
    ]
    assert (min(lengths) > 0) == fits
    argv = ["--t_mode", "mono", "--phase_num", str(phase_num), "--t_threshold", str(threshold)]
    if fits:
        load(argv)
    else:
        message = sentence_of(argv)
        assert f"phase_num {phase_num}" in message
        assert f"t_threshold {threshold}" in message
    # A method without segments does not care.
    load([*argv, "--guidance_type", "gcs"])


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            "--t_mode mono --t_threshold 20",
            "t_threshold 20 |[20, 800]|segment 0 is 0|above 20 and under about 332",
        ),
        ("--t_mode mono --t_threshold 332", "t_threshold 332 |segment 4 is 0|phase_num 5"),
        ("--t_mode mono --t_threshold 400", "t_threshold 400 |segment 4"),
        ("--phase_num 900", "'uniform'|phase_num 900|phase_num must be at most 780"),
        ("--delta_t 19", "GuidanceParams.delta_t is 19|[20, 280]"),
        ("--delta_t 281", "GuidanceParams.delta_t is 281|[20, 280]"),
        ("--t_range [0.3,0.31]", "t_range|no room|above 20"),
    ],
)
def test_released_segments_that_cannot_be(flags: str, told: str) -> None:
    released = ["--sctd_variant", "released"]
    message = sentence_of([*released, *flags.split()])
    assert [part for part in told.split("|") if part not in message] == [], message


@pytest.mark.parametrize("flags", ["--t_mode mono --phase_num 1", "--delta_t 20", "--delta_t 280"])
def test_released_segments_at_the_limits(flags: str) -> None:
    load(["--sctd_variant", "released", *flags.split()])


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--delta_t 10", "GuidanceParams.delta_t is 10|[11, 298]"),
        ("--delta_t 299", "GuidanceParams.delta_t is 299|[11, 298]"),
        ("--delta_t_start 799", "GuidanceParams.delta_t_start is 799|[11, 798]"),
        ("--t_range [0,0.01] --max_t_range 0.01", "t_range|no room|above 11"),
    ],
)
def test_intervals_that_leave_gcs_no_room(flags: str, told: str) -> None:
    message = sentence_of(["--guidance_type", "gcs", *flags.split()])
    assert [part for part in told.split("|") if part not in message] == [], message
    load(flags.split() if "t_range" not in flags else ["--guidance_type", "sds", *flags.split()])


def test_an_interval_that_is_not_annealed_may_start_anywhere() -> None:
    load(["--guidance_type", "gcs", "--delta_t_start", "800", "--annealing_intervals", "false"])


def test_a_window_without_a_solver_step() -> None:
    message = sentence_of(["--t_range", "[0.001, 0.01]"])
    assert "num_ddim_timesteps 50" in message
    assert "use 101, or a wider t_range" in message
    load(["--t_range", "[0.001, 0.01]", "--num_ddim_timesteps", "101"])


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)


def fits_or_gets_a_sentence(argv: list[str]) -> None:
    try:
        load(argv)
    except ConfigError as error:
        message = str(error)
    else:
        return
    assert "\n" not in message


KEYS = ["text", "t_range", "t_mode", "fp16", "C_batch_size", "guidance_scale", "clip_skip"]
TOKENS = ["--text", "--seed", "--t_range", "--fp16", "--", "-1", "[", "", "=", "--=", "a", "null"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(KEYS), value=yaml_values)
def test_any_value_fits_or_gets_a_sentence(key: str, value: object, tmp_path: Path) -> None:
    file = tmp_path / "any.yaml"
    file.write_text(yaml.safe_dump({"GuidanceParams": {"text": "a mug", key: value}}), encoding="utf-8")
    fits_or_gets_a_sentence(["--opt", str(file)])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode(errors="replace")))
def test_any_file_loads_or_gets_a_sentence(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "any.yaml"
    file.write_bytes(content)
    fits_or_gets_a_sentence(["--opt", str(file)])


@settings(max_examples=150, deadline=None)
@given(argv=st.lists(st.sampled_from(TOKENS)))
def test_any_command_line_loads_or_gets_a_sentence(argv: list[str]) -> None:
    fits_or_gets_a_sentence(argv)
