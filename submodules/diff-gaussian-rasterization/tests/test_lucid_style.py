"""Run code written against the original's interface unmodified; what it gets means what it expects."""

from __future__ import annotations

import ast
import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from diff_gaussian_rasterization import RasterOutput, rasterize

RENDERER = Path(__file__).parent / "lucid_style" / "renderer.py"
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
WIDTH, HEIGHT = 56, 44


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def renderer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("renderer", RENDERER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Camera:
    """Camera in the original's layout: matrices are transposed, row vectors stand left of them."""

    image_width: int
    image_height: int
    FoVx: float
    FoVy: float
    world_view_transform: Tensor
    full_proj_transform: Tensor
    camera_center: Tensor

    @property
    def viewmats(self) -> Tensor:
        return self.world_view_transform.T[None]

    @property
    def focals(self) -> Tensor:
        fx = WIDTH / (2 * math.tan(self.FoVx / 2))
        fy = HEIGHT / (2 * math.tan(self.FoVy / 2))
        return torch.tensor([[fx, fy]]).to(self.camera_center)


def camera(device: str, angle: float = 0.3, off_centre: float = 0.0) -> Camera:
    """A camera on a circle of radius 3 around the origin; off_centre moves the image, in NDC."""
    c, s = math.cos(angle), math.sin(angle)
    to_camera = torch.tensor([[c, 0, s, 0.1], [0, 1, 0, -0.1], [-s, 0, c, 3], [0, 0, 0, 1.0]])
    fov_x, fov_y = 0.9, 2 * math.atan(math.tan(0.45) * HEIGHT / WIDTH)
    near, far = 0.01, 100.0
    projection = torch.zeros(4, 4)
    projection[0, 0], projection[1, 1] = 1 / math.tan(fov_x / 2), 1 / math.tan(fov_y / 2)
    projection[0, 2] = off_centre
    projection[2, 2], projection[2, 3] = far / (far - near), -far * near / (far - near)
    projection[3, 2] = 1.0
    world_view = to_camera.T.contiguous().to(device)
    full = world_view.unsqueeze(0).bmm(projection.T.to(device).unsqueeze(0)).squeeze(0)
    return Camera(WIDTH, HEIGHT, fov_x, fov_y, world_view, full, world_view.inverse()[3, :3])


class GaussianModel:
    """Parameters before and after their activations, under the names that such code uses."""

    def __init__(self, number: int, device: str, seed: int = 0) -> None:
        rng = torch.Generator().manual_seed(seed)

        def parameter(values: Tensor) -> nn.Parameter:
            return nn.Parameter(values.to(device))

        self.active_sh_degree = self.max_sh_degree = 1
        self._xyz = parameter(0.5 * torch.randn(number, 3, generator=rng))
        self._features_dc = parameter(torch.randn(number, 1, 3, generator=rng))
        self._features_rest = parameter(0.2 * torch.randn(number, 3, 3, generator=rng))
        self._scaling = parameter(math.log(0.12) + 0.4 * torch.randn(number, 3, generator=rng))
        self._rotation = parameter(torch.randn(number, 4, generator=rng))
        self._opacity = parameter(torch.randn(number, 1, generator=rng))
        self.max_radii2D = torch.zeros(number, device=device)
        self.xyz_gradient_accum = torch.zeros(number, 1, device=device)
        self.denom = torch.zeros(number, 1, device=device)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [value for value in vars(self).values() if isinstance(value, nn.Parameter)]

    @property
    def get_xyz(self) -> Tensor:
        return self._xyz

    @property
    def get_features(self) -> Tensor:
        return torch.cat((self._features_dc, self._features_rest), dim=1)

    @property
    def get_scaling(self) -> Tensor:
        return torch.exp(self._scaling)

    @property
    def get_rotation(self) -> Tensor:
        return torch.nn.functional.normalize(self._rotation)

    @property
    def get_opacity(self) -> Tensor:
        return torch.sigmoid(self._opacity)

    def get_covariance(self, scaling_modifier: float) -> Tensor:
        """Covariances [N, 6] by Rodrigues' formula, another way than the rasterizer's."""
        q = self.get_rotation
        w, axis = q[:, :1, None], q[:, 1:]
        zero = torch.zeros_like(axis[:, 0])
        x, y, z = axis.unbind(1)
        cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
        rotation = torch.eye(3).to(q) + 2 * w * cross + 2 * cross @ cross
        factor = rotation @ torch.diag_embed(scaling_modifier * self.get_scaling)
        return (factor @ factor.mT)[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]

    def add_densification_stats(self, viewspace_points: Tensor, update_filter: Tensor) -> None:
        norms = torch.norm(viewspace_points.grad[update_filter, :2], dim=-1, keepdim=True)
        self.xyz_gradient_accum[update_filter] += norms
        self.denom[update_filter] += 1


def pipe(**more: bool) -> SimpleNamespace:
    return SimpleNamespace(
        **{"compute_cov3D_python": False, "convert_SHs_python": False, "debug": False, **more}
    )


def in_float64(pc: GaussianModel, view: Camera, background: Tensor) -> RasterOutput:
    """Render the same picture by the twin: its output, whose means2d takes the gradients."""
    centre = torch.tensor([[(WIDTH - 1) / 2, (HEIGHT - 1) / 2]])
    tensors = {
        "means": pc.get_xyz,
        "scales": pc.get_scaling,
        "rotations": pc.get_rotation,
        "opacities": pc.get_opacity,
        "shs": pc.get_features,
        "viewmats": view.viewmats,
        "focals": view.focals,
        "principals": centre,
        "background": background,
    }
    exact = {name: tensor.detach().cpu().double() for name, tensor in tensors.items()}
    exact["means"].requires_grad_()
    return rasterize(**exact, width=WIDTH, height=HEIGHT, sh_degree=pc.active_sh_degree, backend="reference")


def test_it_imports_nothing_but_the_rasterizer() -> None:
    names = set()
    for node in ast.walk(ast.parse(RENDERER.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    assert names == {"math", "random", "torch", "diff_gaussian_rasterization"}


def test_returns_mean_what_they_are_taken_for(renderer: ModuleType, device: str) -> None:
    """Results agree with the twin: depth = sum of T alpha z, "alpha" = the final transmittance, radii > 0
    where it draws.
    """
    pc, view, background = GaussianModel(80, device), camera(device), torch.rand(3, device=device)
    pc._xyz.data[:9] *= 20  # outside the image, or behind the camera
    out = renderer.render(view, pc, pipe(), background)
    expected = in_float64(pc, view, background)
    for name, image in (("render", expected.rgb), ("depth", expected.depth), ("alpha", 1 - expected.alpha)):
        assert (out[name].cpu() - image[0]).abs().max() < 1e-3, name
        assert (out[name].cpu() - image[0]).abs().median() < 1e-5, name
    assert torch.equal(out["visibility_filter"].cpu(), expected.radii[0] > 0)
    assert 0 < out["visibility_filter"].sum() < 80
    assert out["disparity"].amin() == 0
    assert out["disparity"].amax() == 1


def test_gradients_on_the_screen_are_in_ndc(renderer: ModuleType, device: str) -> None:
    """Gradients are the twin's per pixel times half the image; and moving the whole image by some NDC changes the loss by that
    times their sum, but for what enters and leaves at alpha = 1/255."""
    pc = GaussianModel(60, device)
    # A background against which the sum of the gradients is not small beside its parts.
    background = torch.rand(3, generator=torch.Generator().manual_seed(0)).to(device)
    weights = torch.randn(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.avg_pool2d(weights, 9, stride=1, padding=4).to(device)

    def loss(off_centre: float) -> tuple[Tensor, Tensor]:
        out = renderer.render(camera(device, off_centre=off_centre), pc, pipe(), background)
        return (out["render"] * smooth).sum(), out["viewspace_points"]

    value, points = loss(0.0)
    value.backward()
    step = 1e-2
    with torch.no_grad():
        slope = (loss(step)[0] - loss(-step)[0]) / (2 * step)
    assert torch.allclose(points.grad[:, 0].sum(), slope, rtol=5e-2)
    assert points.grad[:, 2].abs().max() == 0

    expected = in_float64(pc, camera(device), background)
    (expected.rgb[0] * smooth.cpu()).sum().backward()
    in_ndc = expected.means2d.grad[0] * torch.tensor([WIDTH / 2, HEIGHT / 2])
    assert torch.allclose(
        points.grad[:, :2].cpu().double(), in_ndc, rtol=1e-2, atol=1e-3 * in_ndc.abs().max()
    )


@pytest.mark.parametrize("way", ["compute_cov3D_python", "convert_SHs_python"])
def test_python_and_rasterizer_agree(way: str, renderer: ModuleType, device: str) -> None:
    """Covariances and colors made in Python give the same picture and gradients, under a scaling modifier too."""
    pc, view, background = GaussianModel(60, device), camera(device), torch.rand(3, device=device)
    results = []
    for options in (pipe(), pipe(**{way: True})):
        for leaf in pc.parameters:
            leaf.grad = None
        out = renderer.render(view, pc, options, background, scaling_modifier=0.7)
        (out["render"].square().sum() + out["depth"].sum()).backward()
        results.append([out["render"].detach(), *(leaf.grad for leaf in pc.parameters)])
    for one, two in zip(*results):
        assert torch.allclose(one, two, rtol=1e-3, atol=1e-4 * one.abs().max())


def test_override_colors(renderer: ModuleType, device: str) -> None:
    """Gaussians and background of one color give a picture of that color."""
    pc, grey = GaussianModel(40, device), torch.full((3,), 0.4, device=device)
    out = renderer.render(camera(device), pc, pipe(), grey, override_color=grey.expand(40, 3))
    assert torch.allclose(out["render"], torch.full_like(out["render"], 0.4), atol=1e-5)


def test_random_backgrounds_show_through(renderer: ModuleType, device: str) -> None:
    """Background shows by the final transmittance."""
    pc, view, black = GaussianModel(40, device), camera(device), torch.zeros(3, device=device)
    plain = renderer.render(view, pc, pipe(), black)
    torch.manual_seed(5)
    augmented = renderer.render(view, pc, pipe(), black, bg_aug_ratio=1.0)
    torch.manual_seed(5)
    added = torch.rand_like(black)[:, None, None] * plain["alpha"]
    assert torch.allclose(augmented["render"], plain["render"] + added, atol=1e-5)


def test_a_lower_degree_shows_fewer_harmonics(renderer: ModuleType, device: str) -> None:
    pc, view, black = GaussianModel(40, device), camera(device), torch.zeros(3, device=device)
    augmented = renderer.render(view, pc, pipe(), black, sh_deg_aug_ratio=1.0)
    full = renderer.render(view, pc, pipe(), black)
    pc._features_rest.data.zero_()
    assert torch.allclose(augmented["render"], renderer.render(view, pc, pipe(), black)["render"], atol=1e-6)
    assert not torch.allclose(augmented["render"], full["render"], atol=1e-2)


def test_what_is_marked_suffices(renderer: ModuleType, device: str) -> None:
    """Rendering only what markVisible marks leaves the picture as it was."""
    pc, view, black = GaussianModel(80, device), camera(device), torch.zeros(3, device=device)
    pc._xyz.data *= 4
    whole = renderer.render(view, pc, pipe(), black)["render"]
    marked = renderer.visible_points(view, pc, black)
    assert 0 < marked.sum() < 80
    for name, value in list(vars(pc).items()):
        if isinstance(value, nn.Parameter):
            setattr(pc, name, nn.Parameter(value.data[marked]))
    assert torch.equal(renderer.render(view, pc, pipe(), black)["render"], whole)


def test_training_fits_a_target_and_gathers_statistics(renderer: ModuleType, device: str) -> None:
    """Adam on four views; gradients and radii are gathered as densification does."""
    views = [camera(device, angle) for angle in (0.0, 1.5, 3.0, 4.5)]
    white = torch.ones(3, device=device)
    with torch.no_grad():
        target = GaussianModel(60, device, seed=1)
        pictures = [renderer.render(view, target, pipe(), white)["render"] for view in views]
    pc = GaussianModel(60, device)
    optimizer = torch.optim.Adam(pc.parameters, lr=0.03, eps=1e-15)
    losses = []
    for step in range(60):
        view, picture = views[step % 4], pictures[step % 4]
        out = renderer.render(view, pc, pipe(), white)
        loss = (out["render"] - picture).abs().mean()
        loss.backward()
        with torch.no_grad():
            seen, radii = out["visibility_filter"], out["radii"]
            pc.max_radii2D[seen] = torch.max(pc.max_radii2D[seen], radii[seen])
            pc.add_densification_stats(out["viewspace_points"], seen)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
    ever = pc.denom[:, 0] > 0
    assert torch.equal(ever, pc.max_radii2D > 0)
    assert (pc.xyz_gradient_accum[ever] > 0).double().mean() > 0.9
    assert pc.xyz_gradient_accum.isfinite().all()
