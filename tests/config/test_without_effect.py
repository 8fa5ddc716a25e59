"""Keys that are accepted without effect: each is named in one warning."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from config import load
from config.keys import extra
from config.schema import SECTIONS, keys_of, section_of
from tests.config.test_load import written


def test_one_warning_names_the_keys_without_effect(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = written(
        tmp_path,
        "port: 2355\nGuidanceParams: {text: a mug, perpneg: false, interval_ratio: 0.5, rgb_scale: 1}\n"
        "OptimizationParams: {lambda_bin: 3, lambda_sat: 1.0}",
    )
    with caplog.at_level(logging.WARNING):
        load(["--opt", file])
    message = (
        "GuidanceParams.interval_ratio (0.5), OptimizationParams.lambda_bin (3) are accepted without effect."
    )
    assert caplog.messages == [message]


def test_a_key_that_acts_as_another_value_than_its_default_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marked = [
        (section, name)
        for section in ("", *SECTIONS)
        for name in keys_of(section)
        if extra(section_of(section).model_fields[name])["acts_as"] is not None
    ]
    load(["--opt", written(tmp_path, "GuidanceParams: {text: a mug}")])
    assert all(name in caplog.text for _, name in marked)


def test_a_flag_takes_back_what_a_file_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files of LucidDreamer need that, whose LoRA lies elsewhere and whose single file is not wanted."""
    file = written(
        tmp_path,
        "GuidanceParams: {text: a mug, LoRA_path: gone.safetensors, is_safe_tensor: true, base_model_key: x/y}",
    )
    config = load(["--opt", file, "--LoRA_path", "", "--base_model_key", " ", "--model_key", "toybox"])
    assert config.guidance.LoRA_path is config.guidance.base_model_key is None
    assert caplog.messages == [
        "GuidanceParams.is_safe_tensor (true) with model_key toybox is accepted without effect."
    ]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("--w_cp 0.5", "w_cp (0.5) with sctd_variant paper"),
        ("--w_cp 0.5 --sctd_variant released", ""),
        ("--w_cp 0.5 --guidance_type gcs", ""),
        ("--w_cp 0", ""),
        ("--approximate false", ""),
        ("--approximate false --sctd_variant released", "approximate (false) with sctd_variant released"),
        ("--approximate false --guidance_type ism", "approximate (false) with guidance_type ism"),
        ("--sctd_variant released --guidance_type cds", "sctd_variant ('released') with guidance_type cds"),
        ("--cds_variant released", "cds_variant ('released') with guidance_type sctd"),
        ("--cds_stage refine", "cds_stage ('refine') with guidance_type sctd"),
        ("--cds_stage refine --guidance_type cds", ""),
        ("--sds --guidance_type gcs", "sds (true) with guidance_type gcs"),
        ("--sds", ""),
        ("--check_interval 50 --fast false", "check_interval (50) with nothing that fast leaves out"),
        ("--BEG --iterations 1001 --fast false", "BEG (true) with start_reset_iter 1000"),
        ("--BEG --iterations 1002 --fast false", ""),
        ("--delta_t 50 --xs_eta 0.5 --w_gc 3 --thresh 0.5", ""),
    ],
)
def test_what_cannot_act_beside_the_other_keys_is_named(
    argv: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    load(argv.split())
    expected = [f"GuidanceParams.{told} is accepted without effect."] if told else []
    assert caplog.messages == expected


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("--init_axes z,x --init_shape sphere", "init_axes ('z,x') with init_shape sphere"),
        ("--init_axes z,x --init_shape pointe", ""),
        ("--input_axes z,x --init_shape {file}", "ModelParams.input_axes ('z,x') with init_shape {file}"),
        ("--init_axes z,x --init_shape {file}", ""),
        ("--init_axes z,x --pretrained_model_path {file}", "init_axes ('z,x') with pretrained_model_path"),
        ("--pointe_model openai --init_shape sphere", "pointe_model ('openai') with init_shape sphere"),
        ("--pointe_model openai --init_shape pointe", ""),
        (
            "--init_shape {file} --pretrained_model_path {file}",
            "init_shape ('{file}') with pretrained_model_path",
        ),
        ("--init_shape {file} --init_prompt mug --use_pointe_rgb", ""),
        ("--pretrained_model_path {file} --input_axes -y,-z", ""),
    ],
)
def test_keys_of_the_start_that_cannot_act_are_named(
    argv: str, told: str, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.ply").touch()
    load(argv.replace("{file}", "a.ply").split())
    key = (
        told.replace("{file}", "a.ply")
        if "Params." in told
        else f"GenerateCamParams.{told.replace('{file}', 'a.ply')}"
    )
    expected = [f"{key} is accepted without effect."] if told else []
    assert caplog.messages == expected


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (
            "--keep geometry --relocate_interval 50",
            "OptimizationParams.relocate_interval (50) with keep geometry",
        ),
        ("--keep geometry --max_scale 0.02", "OptimizationParams.max_scale (0.02) with keep geometry"),
        ("--keep geometry --lambda_alpha 1", "OptimizationParams.lambda_alpha (1) with keep geometry"),
        ("--keep geometry --geo_iter 5", "OptimizationParams.geo_iter (5) with keep geometry"),
        ("--keep geometry --BEG", ""),
        ("--keep geometry --min_color 0.1", ""),
        ("--keep color --BEG", "GuidanceParams.BEG (true) with keep color"),
        ("--keep color --BEG --iterations 9", "GuidanceParams.BEG (true) with keep color"),
        ("--keep color --min_color 0.1", "OptimizationParams.min_color (0.1) with keep color"),
        ("--keep color --relocate_interval 50 --max_scale 0.02 --lambda_alpha 1 --geo_iter 5", ""),
        ("--keep nothing --relocate_interval 50 --BEG", ""),
    ],
)
def test_keys_that_cannot_act_on_what_is_kept_are_named(
    argv: str, told: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    asset = tmp_path / "asset.ply"
    asset.touch()
    load(["--opt", "config/bagel.yaml", "--pretrained_model_path", str(asset), *argv.split()])
    assert caplog.messages == ([f"{told} is accepted without effect."] if told else [])
