"""The keys and defaults that users of the original repositories rely on, against the schema."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import Config, load
from config.schema import SECTIONS, keys_of, section_of

EVERY_KEY = Path(__file__).parent / "every_key.yaml"

# Section -> key -> default; a key without a default of its own there is in the second table.
DEFAULTS: dict[str, dict[str, Any]] = {
    "": {"guidance_type": "sctd", "phase_num": 5, "num_ddim_timesteps": 50, "test_ratio": 5, "save_ratio": 2},
    "GuidanceParams": {
        "guidance": "SD", "is_safe_tensor": False, "perpneg": True, "negative_w": -2, "front_decay_factor": 2,
        "side_decay_factor": 10, "vram_O": False, "fp16": True, "t_range": (0.02, 0.5), "max_t_range": 0.98,
        "scheduler_type": "DDIM", "sds": False, "noise_seed": 0, "ddim_inv": False,
        "delta_t": 80, "delta_t_start": 100, "annealing_intervals": True, "inverse_text": "",
        "controlnet_ratio": 0.5, "negative": "", "guidance_scale": 7.5, "denoise_guidance_scale": 1.0,
        "lambda_guidance": 1.0, "xs_delta_t": 200, "xs_inv_steps": 5, "xs_eta": 0, "C_batch_size": 1,
        "vis_interval": 100, "rgb_scale": 1, "y_cc": False, "w_cc": 1, "w_gc": 0.5, "BEG": False,
        "t_threshold": 150, "t_mode": "uniform",
    },
    "ModelParams": {
        "sh_degree": 0, "batch": 10, "white_background": False, "sh_deg_aug_ratio": 0.1, "bg_aug_ratio": 0.5,
        "shs_aug_ratio": 0, "scale_aug_ratio": 1.0,
    },
    "PipelineParams": {
        "convert_SHs_python": False, "compute_cov3D_python": False, "debug": False, "antialiasing": False,
    },
    "OptimizationParams": {
        "iterations": 5000, "position_lr_init": 1.6e-4, "position_lr_final": 1.6e-6,
        "position_lr_delay_mult": 0.01, "position_lr_max_steps": 30000, "feature_lr": 5e-3,
        "feature_lr_final": 3e-3, "opacity_lr": 0.05, "scaling_lr": 5e-3, "scaling_lr_final": 1e-3,
        "rotation_lr": 1e-3, "rotation_lr_final": 2e-4, "percent_dense": 0.003,
        "densify_grad_threshold": 0.00075, "densification_interval": 100, "densify_from_iter": 100,
        "densify_until_iter": 3000, "opacity_reset_interval": 300, "lambda_tv": 1, "lambda_scale": 1,
        "lambda_bin": 10, "lambda_sat": 1, "lambda_radius": 1, "lambda_b": 0.1, "geo_iter": 0,
        "as_latent_ratio": 0.2, "thresh": 0.85, "start_reset_iter": 1000, "end_reset_iter": 4500,
        "reset_rate": 0.8, "lgt_thresh": 0.9, "use_control_net_iter": 10**7, "warmup_iter": 1500,
        "use_progressive": False, "save_process": True, "pro_frames_num": 600, "pro_render_45": False,
        "progressive_view_iter": 500, "progressive_view_init_ratio": 0.2, "scale_up_cameras_iter": 500,
        "scale_up_factor": 0.95, "fovy_scale_up_factor": (0.75, 1.1), "phi_scale_up_factor": 1.5,
        "grad_clip": (2, 8, 1000),
    },
    "GenerateCamParams": {
        "init_shape": "sphere", "use_pointe_rgb": False, "init_num_pts": 100000, "radius_range": (5.2, 5.5),
        "max_radius_range": (3.5, 5.0), "default_radius": 3.5, "theta_range": (45, 105),
        "phi_range": (-180, 180), "fovy_range": (0.32, 0.60), "max_fovy_range": (0.16, 0.60),
        "default_fovy": 0.55, "default_polar": 90, "default_azimuth": 0, "rand_cam_gamma": 1,
        "angle_overhead": 30, "angle_front": 60, "render_45": True, "uniform_sphere_rate": 0, "image_w": 512,
        "image_h": 512, "SSAA": 1, "jitter_pose": True, "jitter_center": 0.05, "jitter_target": 0.05,
        "jitter_up": 0.01,
    },
}  # fmt: skip

WITHOUT_DEFAULT = {
    "": (
        "port save_video seed device quiet checkpoint_iterations start_checkpoint debug_from "
        "detect_anomaly ip"
    ),
    "GuidanceParams": (
        "g_device model_key base_model_key controlnet_model_key hf_key num_train_timesteps text "
        "textual_inversion_path LoRA_path clip_skip fix_noise w_cp"  # the last two: each method has its own
    ),
    "ModelParams": "workspace pretrained_model_path data_device eval opt_path",
    "PipelineParams": "",
    "OptimizationParams": "resnet_lr resnet_lr_init resnet_lr_final",
    "GenerateCamParams": "init_prompt max_theta_range max_phi_range device",
}

# What the table does not name: keys of ours, and keys that only some files or parsers of the originals have.
BEYOND = {
    "": "like fast checkpoint_minutes deterministic resume force view view_port",
    "GuidanceParams": (
        "compile prediction_type weighting normalize_grad interval_ratio accum sctd_variant approximate LoRA_scale LoRA_partial "
        "cds_variant cds_stage noise_offset w_self check_interval encoder small_encoder_share small_encoder_key "
        "prior_image_size embeddings refine_model_key refine_from_iter controlnet_kinds controlnet_guide controlnet_scale controlnet_t_range image_guidance_scale image_prompt image_prompt_scale image_prompt_behind image_prompt_model_key multiview_model_key multiview_share rectify_poses pose_model_key"
    ),
    "ModelParams": "input_axes bg_gray flip_aug_ratio source_path model_path images resolution",
    "PipelineParams": "",
    "OptimizationParams": "raster_steps lambda_tv_l1 keep edit_mask min_color adam_betas max_scale max_screen_radius max_num_gaussians relocate_interval lambda_alpha lambda_alpha_binary",
    "GenerateCamParams": "pointe_model init_axes init_fit_iter skeleton",
}


@pytest.mark.parametrize("section", ["", *SECTIONS])
def test_schema_has_every_key_of_the_reference_and_no_others_but_ours(section: str) -> None:
    reference = {*DEFAULTS[section], *WITHOUT_DEFAULT[section].split()}
    assert set(keys_of(section)) == reference | set(BEYOND[section].split())


@pytest.mark.parametrize("section", ["", *SECTIONS])
def test_defaults_are_the_reference(section: str) -> None:
    model = section_of(section)()
    assert {name: getattr(model, name) for name in DEFAULTS[section]} == DEFAULTS[section]


def test_keys_of_ours_are_off_by_default() -> None:
    config = Config()
    assert config.guidance.weighting == "sigma_over_alpha"
    assert config.optimization.adam_betas == (0.9, 0.999)
    assert not config.guidance.normalize_grad
    assert config.guidance.w_self == config.optimization.raster_steps == 1
    assert config.guidance.encoder == "full"
    assert config.guidance.rectify_poses == 0
    assert config.guidance.refine_model_key is config.guidance.refine_from_iter is None
    assert config.guidance.prior_image_size is config.guidance.embeddings is None
    assert not config.deterministic
    assert config.like is None
    assert not config.model.bg_gray
    assert config.optimization.keep == "nothing"
    assert config.optimization.edit_mask is None
    assert config.optimization.max_scale is config.optimization.min_color is None
    assert config.optimization.max_screen_radius is None
    assert config.optimization.relocate_interval == config.camera.init_fit_iter == 0
    assert config.camera.pointe_model is config.camera.init_axes is config.model.input_axes is None
    assert config.camera.skeleton is None
    assert config.optimization.lambda_alpha == config.optimization.lambda_alpha_binary == 0
    assert config.optimization.lambda_tv_l1 == 0


def test_every_field_says_what_it_means() -> None:
    silent = [
        f"{section}.{name}"
        for section in ("", *SECTIONS)
        for name in keys_of(section)
        if not section_of(section).model_fields[name].description
    ]
    assert silent == []


def test_fixture_names_every_key_of_the_reference() -> None:
    content = yaml.safe_load(EVERY_KEY.read_text(encoding="utf-8"))
    for section in SECTIONS:
        assert set(content[section]) >= {*DEFAULTS[section], *WITHOUT_DEFAULT[section].split()}


@pytest.fixture(autouse=True)
def _beside_the_files_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The LoRA that EVERY_KEY names has to be there."""
    monkeypatch.chdir(tmp_path)
    file = Path(yaml.safe_load(EVERY_KEY.read_text(encoding="utf-8"))["GuidanceParams"]["LoRA_path"])
    file.parent.mkdir(parents=True)
    file.touch()


def test_a_file_with_every_key_loads_and_means_the_same() -> None:
    config = load(["--opt", str(EVERY_KEY)])
    content = yaml.safe_load(EVERY_KEY.read_text(encoding="utf-8"))
    for section in ("", *SECTIONS):
        keys = (
            content[section] if section else {name: content[name] for name in keys_of("") if name in content}
        )
        model = getattr(config, SECTIONS[section]) if section else config
        for name, written in keys.items():
            if isinstance(written, str) and re.match(r"\d", written):
                written = float(written)  # YAML 1.1 reads 1e7 as text
            if isinstance(written, list):
                written = tuple(written)
            assert getattr(model, name) == written, name


def test_numbers_have_their_types_whatever_yaml_made_of_them() -> None:
    config = load(["--opt", str(EVERY_KEY)])
    assert isinstance(config.optimization.use_control_net_iter, int)
    assert isinstance(config.guidance.vis_interval, int)
    assert isinstance(config.optimization.resnet_lr, float)
    assert isinstance(config.guidance.negative_w, float)
    assert all(isinstance(end, float) for end in config.camera.phi_range)


def test_blank_keys_of_older_files_mean_the_default(tmp_path: Path) -> None:
    file = tmp_path / "blank.yaml"
    file.write_text(
        "PipelineParams:\nGuidanceParams:\n  text: a mug\n  model_key:\n"
        "GenerateCamParams: {max_phi_range: null}\n"
    )
    config = load(["--opt", str(file)])
    assert config.guidance.model_key == Config().guidance.model_key
    assert config.camera.max_phi_range == (-180, 180)
