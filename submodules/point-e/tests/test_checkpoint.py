"""Checkpoints in OpenAI's layout, whole, and broken in every way that files break."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dangerous import Dangerous
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai_layout import WIDTHS, layout
from safetensors.torch import save_file
from small_models import STAGES, model_of
from torch import Tensor

from point_e import PointEError
from point_e.checkpoint import load_model, read_tensors, skeleton
from point_e.models import BASE_MODELS, UPSAMPLER

PUBLISHED = {**BASE_MODELS, "upsample": UPSAMPLER}
HOST = torch.device("cpu")
STAGE = STAGES["upsampler"]


@pytest.fixture
def state() -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in model_of(STAGE).state_dict().items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_openais(name: str) -> None:
    model = skeleton(PUBLISHED[name].stage)
    assert {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()} == layout(name)


@pytest.mark.parametrize(
    ("name", "figure"), [*((name, 40e6) for name in WIDTHS if "300M" not in name and "1B" not in name),
    ("base300M", 300e6), ("base1B", 1e9)],
)  # fmt: skip
def test_parameter_counts_are_the_published_figures(name: str, figure: float) -> None:
    model = skeleton(PUBLISHED[name].stage)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert float(f"{count:.0e}") == figure


def test_the_readmes_table_is_the_models() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    rows = {line.split("|")[4].strip(" `"): line for line in readme.splitlines() if ".pt` |" in line}
    assert set(rows) == {published.file for published in PUBLISHED.values()}
    for published in PUBLISHED.values():
        count = sum(parameter.numel() for parameter in skeleton(published.stage).parameters())
        facts = [f"{count:,}", f"{published.size:,}" if published.size else "", published.sha256 or ""]
        assert all(fact in rows[published.file] for fact in facts), published.file


@pytest.mark.parametrize("name", [name for name, published in PUBLISHED.items() if published.size])
def test_sizes_of_the_published_files_are_those_of_their_parameters(name: str) -> None:
    count = sum(math.prod(shape) for shape in layout(name).values())
    assert PUBLISHED[name].size == pytest.approx(4 * count, rel=1e-3)
    assert PUBLISHED[name].size > 4 * count


@pytest.mark.parametrize("name", ["base40M-textvec", "upsample"])
def test_random_weights_of_official_shapes_round_trip(tmp_path: Path, name: str) -> None:
    rng = torch.Generator().manual_seed(0)
    state = {key: torch.empty(shape).uniform_(generator=rng) for key, shape in layout(name).items()}
    torch.save(state, tmp_path / PUBLISHED[name].file)
    loaded = load_model(tmp_path / PUBLISHED[name].file, PUBLISHED[name].stage, HOST).state_dict()
    assert set(loaded) == set(state)
    for key, tensor in state.items():
        assert torch.equal(loaded[key], tensor), key


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", " of old.pt"])
def test_every_format_gives_the_same_frozen_model(
    tmp_path: Path, state: dict[str, Tensor], suffix: str, dtype: torch.dtype
) -> None:
    path = tmp_path / f"weights{suffix}"
    stored = {name: tensor.to(dtype) for name, tensor in state.items()}
    if suffix == ".safetensors":
        save_file(stored, path)
    else:
        torch.save(stored, path, _use_new_zipfile_serialization="old" not in suffix)
    model = load_model(path, STAGE, HOST)
    assert not model.training
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert (tensor.dtype, tensor.requires_grad) == (torch.float32, False)
        torch.testing.assert_close(tensor, stored[name].float(), rtol=0, atol=0)


def test_the_file_itself_is_never_written(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    before = path.read_bytes()
    model = load_model(path, STAGE, HOST)
    for parameter in model.parameters():
        parameter.zero_()
    assert path.read_bytes() == before


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))])
def test_code_in_a_pickle_does_not_run(
    tmp_path: Path, state: dict[str, Tensor], save: Callable[[Any, Path], object]
) -> None:
    witness = tmp_path / "it ran"
    save({**state, "extra": Dangerous(witness)}, tmp_path / "weights.pt")
    with pytest.raises(PointEError, match="code in it is not run"):
        load_model(tmp_path / "weights.pt", STAGE, HOST)
    assert not witness.exists()
    torch.load(tmp_path / "weights.pt", weights_only=False) if save is torch.save else pickle.loads(
        (tmp_path / "weights.pt").read_bytes()
    )
    assert witness.exists(), "else it would not have been dangerous"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty, not a checkpoint"),
        (b"\n<!DOCTYPE html><html>404</html>", "is a web page, not a checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:c01c\n", "is a Git LFS pointer"),
        (b"PK\x03\x04" + bytes(500), "(cannot be read as a|must be a dictionary)"),
        (bytes(1000), "(cannot be read as a|must be a dictionary|must hold)"),
    ],
)
def test_other_files(tmp_path: Path, suffix: str, content: bytes, sentence: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(PointEError, match=sentence) as raised:
        read_tensors(path)
    assert "\n" not in str(raised.value)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "weights.pt", tmp_path):
        with pytest.raises(PointEError, match="cannot be read: "):
            read_tensors(path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1.0}, {3: torch.zeros(2)}, torch.zeros(3)])
def test_other_contents(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(PointEError, match="must hold a dictionary of tensors"):
        read_tensors(tmp_path / "weights.pt")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.floats(0, 1, exclude_max=True), suffix=st.sampled_from([".pt", ".safetensors", ".old.pt"]))
def test_a_file_that_is_cut_off(tmp_path: Path, state: dict[str, Tensor], kept: float, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization="old" not in suffix)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(PointEError) as raised:
        read_tensors(path)
    assert "\n" not in str(raised.value)


def broken(state: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    changed = {name: tensor.clone() for name, tensor in state.items()}
    if how == "one lacking":
        del changed["ln_post.bias"]
    elif how == "two too many":
        changed |= {"extra.weight": torch.zeros(2), "extra.bias": torch.zeros(2)}
    elif how == "another shape":
        changed["input_proj.weight"] = torch.zeros(32, 7)
    elif how == "NaN":
        changed["backbone.resblocks.1.mlp.c_fc.weight"][3, 4] = math.nan
    elif how == "infinite":
        changed["input_proj.bias"][0] = math.inf
    else:
        changed["input_proj.bias"] = changed["input_proj.bias"].long()
    return changed


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("one lacking", r"it lacks ln_post\.bias\.$"),
        ("two too many", r"it has extra\.weight, which is unknown and 1 more such\.$"),
        ("another shape", r"it has input_proj\.weight of shape \[32, 7\] instead of \[32, 6\]\.$"),
        ("NaN", r"values in backbone\.resblocks\.1\.mlp\.c_fc\.weight that are not finite"),
        ("infinite", r"values in input_proj\.bias that are not finite"),
        ("integers", r"input_proj\.bias as torch\.int64, but it must be floating point"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, state: dict[str, Tensor], how: str, sentence: str) -> None:
    torch.save(broken(state, how), tmp_path / "weights.pt")
    with pytest.raises(PointEError, match=sentence):
        load_model(tmp_path / "weights.pt", STAGE, HOST)


def test_a_checkpoint_of_another_model_is_recognised(tmp_path: Path) -> None:
    # One number for each tensor, however large: what the file holds is shown as the shapes have it.
    state = {name: torch.zeros(1).expand(shape) for name, shape in layout("base40M").items()}
    torch.save(state, tmp_path / "base_40m_textvec.pt")
    with pytest.raises(PointEError, match=r"lacks clip_embed\.weight and \d+ more such; it fits base40M\.$"):
        load_model(tmp_path / "base_40m_textvec.pt", BASE_MODELS["base40M-textvec"].stage, HOST)


def test_a_stage_of_another_size(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "weights.pt")
    wider = replace(STAGE, model=replace(STAGE.model, width=64))
    with pytest.raises(PointEError, match=r"has \S+ of shape .* and \d+ more such\.$"):
        load_model(tmp_path / "weights.pt", wider, HOST)
