"""LoRA files as programs write them, read whole or refused in one sentence that counts."""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from guidance.prior import PriorError, StableDiffusionPrior
from guidance.prior.adaptations import Adaptations
from guidance.prior.lora_files import read_lora
from guidance.prior.lora_merge import merge_lora
from tests.ldm import unet_name
from tests.lora import changes, kohya, lora
from tests.tiny_diffusers import write_tiny_folder
from utils.device import HOST

NETWORKS = ("unet", "text_encoder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def plain(folder: Path) -> StableDiffusionPrior:
    return StableDiffusionPrior.load(str(folder), HOST)


def networks_of(prior: StableDiffusionPrior) -> dict[str, Any]:
    return {network: getattr(prior, network) for network in NETWORKS}


@pytest.fixture
def adapted(plain: StableDiffusionPrior, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Merge a LoRA of these tensors into the networks of another prior like the plain one."""

    def merge(
        tensors: dict[str, Tensor],
        notes: dict[str, str] | None = None,
        scale: float = 1.0,
        part: bool = False,
    ) -> dict[str, Any]:
        path, networks = tmp_path / "given.safetensors", copy.deepcopy(networks_of(plain))
        save_file({name: values.clone().contiguous() for name, values in tensors.items()}, path, notes)
        merge_lora(networks, read_lora(path), scale, part=part)
        return networks

    return merge


def weights_of(networks: dict[str, Any]) -> dict[str, Tensor]:
    return {
        f"{network}.{name}": weight
        for network in NETWORKS
        for name, weight in networks[network].state_dict().items()
    }


def has_changed_by(added: dict[str, Tensor], networks: dict[str, Any], plain: StableDiffusionPrior) -> None:
    """Compare weights with a plain prior's and what a LoRA adds to them."""
    before, after = weights_of(networks_of(plain)), weights_of(networks)
    assert set(added) <= set(after)
    for name, weight in after.items():
        expected = before[name].double() + added.get(name, torch.zeros(())).double()
        torch.testing.assert_close(weight.double(), expected, rtol=1e-5, atol=1e-5)


def attention(low: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values for name, values in low.items() if re.search(r"to_(q|k|v|out\.0)|_proj", name)}


def older_diffusers(name: str) -> str:
    name = re.sub(r"(attn\d)\.(to_\w+?)(\.0)?\.lora", r"\1.processor.\2_lora.lora", name)
    name = re.sub(r"(self_attn)\.(\w+)_proj\.lora", r"\1.to_\2_lora.lora", name)
    return name.replace("lora.lora_A", "lora.down").replace("lora.lora_B", "lora.up")


SPELLINGS: dict[str, Callable[[str], str]] = {
    "diffusers": lambda name: name,
    "diffusers, without unet.": lambda name: name.removeprefix("unet."),
    "older diffusers": older_diffusers,
    "older diffusers, without unet.": lambda name: older_diffusers(name).removeprefix("unet."),
    "diffusers, layers": lambda name: re.sub(
        r"lora_([AB])", lambda found: f"lora_linear_layer.{'down' if found[1] == 'A' else 'up'}", name
    ),
    "older PEFT, adapter kept": lambda name: re.sub(r"lora_([AB])", r"lora_\1.default", name),
    "PEFT": lambda name: f"base_model.model.{name.split('.', 1)[1]}",
    "transformers 4": lambda name: name.replace("text_encoder.", "text_encoder.text_model."),
    "ComfyUI": lambda name: name.replace("unet.", "diffusion_model.").replace(
        "text_encoder.", "text_encoders.clip_l.transformer.text_model."
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_names_of_every_program_mean_the_same(
    plain: StableDiffusionPrior, adapted: Callable[..., dict[str, Any]], spelling: str
) -> None:
    low = attention(lora(plain))
    file = {SPELLINGS[spelling](name): values for name, values in low.items()}
    assert (file == low) == (spelling == "diffusers")
    has_changed_by(changes(low), adapted(file), plain)


def test_original_names_of_blocks_mean_the_same(
    plain: StableDiffusionPrior, adapted: Callable[..., dict[str, Any]]
) -> None:
    """ComfyUI and trainers of the original Stable Diffusion name the blocks so; every module of a U-Net is tried."""
    kinds = plain.unet.config.up_block_types
    layers, attended = plain.unet.config.layers_per_block, ["Attn" in kind for kind in kinds]
    file, added = {}, {}
    for name, weight in plain.unet.state_dict().items():
        if name.endswith(".weight"):
            added[f"unet.{name}"] = delta = torch.randn_like(weight)
            original = unet_name(name, layers, attended).removesuffix(".weight")
            for stem in (f"diffusion_model.{original}", f"lora_unet_{original.replace('.', '_')}"):
                file[f"{stem}.diff"] = delta / 2
    assert len(file) == 2 * len(added) > 100
    has_changed_by(added, adapted(file), plain)


def test_magnitudes_are_applied_in_every_spelling(
    plain: StableDiffusionPrior, adapted: Callable[..., dict[str, Any]]
) -> None:
    """In a DoRA each row of a merged weight has the length that the file gives it, whatever the LoRA adds."""
    low = lora(plain)
    kohyas, added = kohya(low)
    magnitudes = {name: 0.5 + torch.rand(delta.shape[0]) for name, delta in added.items()}
    before = weights_of(networks_of(plain))
    in_kohya, in_peft, whole = dict(kohyas), dict(low), changes(low)
    for index, (name, values) in enumerate(magnitudes.items()):
        network, module = name.removesuffix(".weight").split(".", 1)
        stem = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}[network] + module.replace(
            ".", "_"
        )
        in_kohya[f"{stem}.dora_scale"] = values.reshape(-1, *[1] * (before[name].ndim - 1))
        end = ("lora_magnitude_vector", "lora_magnitude_vector.weight")[index % 2]
        in_peft[f"{network}.{module}.{end}"] = values
    for file, deltas in ((in_kohya, added), (in_peft, whole)):
        networks = adapted(file, scale=0.5)
        expected = {}
        for name, delta in deltas.items():
            merged = before[name].double() + delta.double()
            rows = merged.flatten(1)
            full = (rows / rows.norm(dim=1, keepdim=True) * magnitudes[name].double()[:, None]).view_as(
                merged
            )
            expected[name] = 0.5 * (full - before[name].double())
        has_changed_by(expected, networks, plain)


PEFTS: dict[str, Any] = {
    "LoRA": peft.LoraConfig(
        r=2,
        lora_alpha=8,
        rank_pattern={"to_k": 3},
        alpha_pattern={"attn2.to_q": 5, "to_v": 1},
        use_rslora=True,
    ),
    "DoRA": peft.LoraConfig(r=2, lora_alpha=3, use_dora=True),
    "LoHa": peft.LoHaConfig(r=2, alpha=6, use_effective_conv2d=True, alpha_pattern={"conv1": 1}),
    "LoKr": peft.LoKrConfig(r=2, alpha=6, use_effective_conv2d=True, decompose_both=True),
    "LoKr, whole": peft.LoKrConfig(r=64, alpha=16),
}


TARGETS = {
    "unet": ["to_q", "to_k", "to_v", "conv1", "conv2", "proj_in"],
    "text_encoder": ["q_proj", "fc1", "fc2"],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", PEFTS)
@pytest.mark.parametrize("network", NETWORKS)
def test_what_peft_wrote_is_what_peft_merges(
    plain: StableDiffusionPrior, tmp_path: Path, kind: str, network: str
) -> None:
    config, networks = copy.deepcopy(PEFTS[kind]), copy.deepcopy(networks_of(plain))
    config.target_modules = set(TARGETS[network])
    torch.manual_seed(0)
    model = peft.get_peft_model(copy.deepcopy(networks[network]), config)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if re.search("lora_|hada_|lokr_", name):
                values.copy_(
                    torch.rand_like(values) if "magnitude" in name else 0.3 * torch.randn_like(values)
                )
    model.save_pretrained(str(tmp_path))
    expected = model.merge_and_unload().state_dict()
    given = Adaptations(lora=str(tmp_path))
    assert {path.name for path in given.files().values()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
    }
    merge_lora(networks, read_lora(given.files()["LoRA_path"]), 1.0, part=False)
    ours, before = networks[network].state_dict(), getattr(plain, network).state_dict()
    changed = [name for name in ours if not torch.equal(ours[name], before[name])]
    assert len(changed) == sum(not torch.equal(expected[name], before[name]) for name in expected) > 5
    for name, weight in ours.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-5)


def test_settings_count_wherever_they_are(
    folder: Path,
    plain: StableDiffusionPrior,
    adapted: Callable[..., dict[str, Any]],
    tmp_path: Path,
    caplog: Any,
) -> None:
    low = {name: values for name, values in lora(plain).items() if name.startswith("unet.")}
    added = {name: 3 * values for name, values in changes(low).items()}
    notes = {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 6})}
    has_changed_by(added, adapted(low, notes), plain)
    file = tmp_path / "adapter_model.safetensors"
    save_file({name.replace("unet.", "base_model.model."): values for name, values in low.items()}, file)
    given = Adaptations(lora=str(tmp_path))
    with caplog.at_level(logging.WARNING):
        loaded = StableDiffusionPrior.load(str(folder), HOST, adaptations=given)
    has_changed_by(changes(low), networks_of(loaded), plain)
    assert "has no adapter_config.json beside it: alpha is taken to be the rank." in caplog.text
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 6}))
    loaded = StableDiffusionPrior.load(str(folder), HOST, adaptations=given)
    has_changed_by(added, networks_of(loaded), plain)
    for settings, words in (
        ("{", "cannot be used"),
        ("[]", "it is no mapping"),
        ('{"r": "x"}', "is not what PEFT writes"),
        ('{"r": 0}', "a rank is below 1"),
        ('{"lora_alpha": NaN}', "an alpha is not finite"),
        ('{"alpha_pattern": {"(": 1}}', "is not what PEFT writes"),
        ('{"peft_type": "OFT"}', "peft_type is 'OFT', but must be LORA, LOHA or LOKR"),
        ('{"init_lora_weights": "pissa_niter_4"}', "changes the model too"),
    ):
        config.write_text(settings)
        with pytest.raises(PriorError, match=re.escape(words)):
            given.check()


def test_a_part_is_applied_only_if_requested(
    plain: StableDiffusionPrior, adapted: Callable[..., dict[str, Any]], caplog: Any
) -> None:
    low = lora(plain)
    deeper = {
        name.replace("up_blocks.0", "up_blocks.7"): values
        for name, values in low.items()
        if "up_blocks.0" in name
    }
    wider = {
        name: torch.randn(2, 20) if ".lora_A." in name else values
        for name, values in low.items()
        if "mid_block" in name and "attn2.to_k" in name
    }
    layers = {
        name.replace("layers.0", "layers.11"): values for name, values in low.items() if "layers.0" in name
    }
    odd = {"unet.conv_in.oft_blocks": torch.zeros(2, 3, 3)}
    first = next(iter(low))
    twice = {first.replace("lora_A", "lora_A.default"): low[first]}
    count = len(low) // 2
    for more, words in (
        (deeper, rf"lacks {len(deeper) // 2} of its {(len(low) + len(deeper)) // 2} modules"),
        (layers, "it is of a text encoder of 12 layers, and this model's has 2"),
        (wider, r"1 of its \d+ modules have another size \(unet\.mid.*: \[16, 20\] instead of \[16, 12\]\)"),
        (odd, r"1 of its tensors are of a kind that is not read, OFT \(such as unet\.conv_in\.oft_blocks\)"),
        (twice, r"1 of its tensors are unknown \(such as .*\.lora_A\."),
    ):
        file, fits = low | more, count - (more is wider)
        with pytest.raises(
            PriorError, match=rf"fits this model only in part: .*{words}.* the other {fits} modules\.$"
        ):
            adapted(file)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            networks = adapted(file, part=True)
        assert re.search(rf"is applied only in part, to {fits} modules: .*{words}", caplog.text)
        kept = {name: values for name, values in low.items() if more is not wider or name not in wider}
        has_changed_by(changes(kept), networks, plain)


def test_files_of_which_nothing_fits_are_refused(
    plain: StableDiffusionPrior, adapted: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    stem = "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k"
    xl = {f"{stem}.lora_down.weight": torch.ones(2, 2048), f"{stem}.lora_up.weight": torch.ones(640, 2)}
    second = {f"lora_te2_x.{part}": torch.ones(2, 2) for part in ("lora_down.weight", "lora_up.weight")}
    for part in (False, True):
        for file in (xl, second):
            with pytest.raises(PriorError, match=r"is of another model: .*; it is of Stable Diffusion XL\.$"):
                adapted(file, part=part)
    flux = {
        f"lora_unet_double_blocks_0.{part}": torch.ones(2, 2)
        for part in ("lora_down.weight", "lora_up.weight")
    }
    with pytest.raises(PriorError, match="it is of FLUX"):
        adapted(flux)
    for file, words in (
        (
            {"<toy>": torch.ones(12)},
            r"holds no LoRA that is read: 1 of its tensors are unknown \(such as <toy>\)",
        ),
        (
            {"lora_unet_conv_in.oft_blocks": torch.ones(2, 2, 2), "lora_unet_conv_in.alpha": torch.ones(())},
            "2 of its tensors are of a kind that is not read, OFT ",
        ),
        ({"lora_unet_conv_in.lora_down.weight": torch.ones(2, 4, 3, 3)}, "are unknown"),
        (
            {name: torch.zeros_like(values) for name, values in lora(plain).items()},
            "all of its changes are 0",
        ),
    ):
        with pytest.raises(PriorError, match=words):
            adapted(file)
    with pytest.raises(PriorError, match=r"a folder without adapter_model or pytorch_lora_weights"):
        Adaptations(lora=str(tmp_path)).check()


def test_numbers_that_are_not_finite_are_named_before_anything_is_loaded(
    plain: StableDiffusionPrior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guidance.prior.stable_diffusion.read_networks", None)
    low = lora(plain)
    name = sorted(low)[3]
    for wrong in (float("nan"), float("inf")):
        values = low[name].clone().half()
        values.view(-1)[1] = wrong
        save_file(low | {name: values}, tmp_path / "x.safetensors")
        with pytest.raises(
            PriorError,
            match=rf"LoRA_path '.*x\.safetensors' cannot be read: its tensor {name} has 1 of {values.numel()} numbers",
        ):
            StableDiffusionPrior.load(
                "nowhere", HOST, adaptations=Adaptations(lora=str(tmp_path / "x.safetensors"))
            )


def test_a_change_that_half_precision_cannot_hold_is_refused(
    plain: StableDiffusionPrior, tmp_path: Path
) -> None:
    file = tmp_path / "x.safetensors"
    save_file(lora(plain), file)
    networks = {name: copy.deepcopy(network).half() for name, network in networks_of(plain).items()}
    with pytest.raises(PriorError, match=r"LoRA_scale 1e\+06 makes .*weight leave the range of float16"):
        merge_lora(networks, read_lora(file), 1e6, part=False)


def test_pickles_are_read_as_the_same_file_is(plain: StableDiffusionPrior, tmp_path: Path) -> None:
    low = lora(plain)
    for suffix in (".bin", ".pt"):
        torch.save(low, tmp_path / f"x{suffix}")
    save_file(low, tmp_path / "x.safetensors")
    sound = read_lora(tmp_path / "x.safetensors").modules
    for suffix in (".bin", ".pt"):
        found = read_lora(tmp_path / f"x{suffix}").modules
        assert found.keys() == sound.keys()
        assert all(
            torch.equal(found[name][part], sound[name][part]) for name in sound for part in sound[name]
        )
