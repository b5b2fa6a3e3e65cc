"""Drawing one lesion from its attribute bits, size and form.

What is drawn follows from the visible attributes alone: nothing here knows a Vienna class.
Lengths are pixels unless said otherwise; `rho` is the distance from the lesion's centre in
units of its (angle-dependent) radius, so the lesion's outline is `rho = 1`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from endoclip_jax.records.attributes import BIT_NAMES
from endoclip_jax.synthetic.anatomy import Scene
from endoclip_jax.synthetic.brush import Area, blend
from endoclip_jax.synthetic.textures import SIZE, lookup, lookup_smooth, window


@runtime_checkable
class DrawableLesion(Protocol):
    """What the renderer reads of a lesion."""

    @property
    def bits(self) -> np.ndarray: ...
    @property
    def size_mm(self) -> float: ...
    @property
    def form(self) -> str: ...
    @property
    def lst_type(self) -> str | None: ...


def visible_attributes(lesion: DrawableLesion) -> frozenset[str]:
    """Names `aspect.value` of the bits that are set."""
    return frozenset(name for name, bit in zip(BIT_NAMES, lesion.bits, strict=True) if bit)


def lesion_diameter(
    rng: np.random.Generator, size_mm: float, field_width: float, indicative: bool
) -> float:
    """Diameter (px): millimetres × 0.9–2.2 % of the field's width, kept visible and in frame."""
    scale = rng.uniform(0.015, 0.022) if indicative else rng.uniform(0.009, 0.022)
    smallest = rng.uniform(0.24, 0.30) if indicative else rng.uniform(0.16, 0.21)
    largest = rng.uniform(0.60, 0.75)
    share = smallest + size_mm * scale * (0.8 if indicative else 0.6)
    return float(min(share, largest) * field_width)


@dataclass
class _Site:
    """The part of the frame that a lesion touches: slices of the scene, local coordinates."""

    rows: slice
    columns: slice
    dx: np.ndarray  # px right of the lesion's centre, [h, w]
    dy: np.ndarray
    rho: np.ndarray
    radius: float
    inside: np.ndarray  # soft mask of the lesion, [h, w]


def _site(
    rng: np.random.Generator,
    scene: Scene,
    centre: tuple[float, float],
    radius: float,
    reach: float,
    attributes: frozenset[str],
    form: str,
) -> _Site:
    height, width = scene.shape
    column, row = centre[0] + (width - 1) / 2, centre[1] + (height - 1) / 2
    rows = slice(max(0, int(row - reach * radius)), min(height, int(row + reach * radius) + 1))
    columns = slice(
        max(0, int(column - reach * radius)), min(width, int(column + reach * radius) + 1)
    )
    dx = scene.x[:, columns] - np.float32(centre[0])
    dy = scene.y[rows] - np.float32(centre[1])
    bearing = rng.uniform(0, np.pi)
    flat = form in ("IIa", "IIb", "IIc", "LST", "mass")
    ratio = rng.uniform(1.15, 1.6) if flat else rng.uniform(1.0, 1.25)
    cos, sin = np.float32(np.cos(bearing)), np.float32(np.sin(bearing))
    along = (dx * cos + dy * sin) / np.float32(np.sqrt(ratio))
    across = (dy * cos - dx * sin) * np.float32(np.sqrt(ratio))
    distance = np.sqrt(along * along + across * across)
    angle = np.linspace(-np.pi, np.pi, 360, endpoint=False)
    outline = np.ones(360)
    wobble = {"LST": 0.10, "mass": 0.10, "IIa": 0.06, "IIc": 0.06, "IIb": 0.08}.get(form, 0.035)
    for order in (2, 3, 4, 5):
        outline += (
            wobble
            / order**0.5
            * rng.standard_normal()
            * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
        )
    if "margin.irregular" in attributes:
        for order in (7, 9, 12, 15):
            outline += (
                0.05 * rng.standard_normal() * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
            )
    if "surface.lobulated_nodular" in attributes:
        lobes = int(rng.integers(5, 9))
        outline += 0.11 * np.abs(np.cos(0.5 * lobes * angle + rng.uniform(0, 2 * np.pi))) - 0.07
    if "secondary_features.firm_or_nonlifting" in attributes:
        corners = int(rng.integers(5, 8))
        phase = np.mod(angle + rng.uniform(0, 2 * np.pi), 2 * np.pi / corners) - np.pi / corners
        outline *= 1.06 * np.cos(np.pi / corners) / np.cos(phase)
    outline = np.clip(outline, 0.6, 1.4)
    bins = (np.arctan2(across, along) + np.float32(np.pi)) * np.float32(360 / (2 * np.pi))
    rho = distance / (
        np.float32(radius) * outline.astype(np.float32).take(bins.astype(np.int32) % 360)
    )
    softness = rng.uniform(1.5, 2.5)
    if "margin.indistinct" in attributes:
        softness = rng.uniform(0.14, 0.25) * radius + 4.0
    inside = np.clip((1.0 - rho) * np.float32(radius / softness) + 0.5, 0.0, 1.0)
    return _Site(rows, columns, dx + np.zeros_like(dy), dy + np.zeros_like(dx), rho, radius, inside)


def _core(site: _Site) -> _Site:
    """The site cut down to the lesion and a narrow border."""
    rows, columns = (np.flatnonzero((site.rho < 1.25).any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        rows = columns = np.zeros(1, int)
    cut = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return _Site(
        slice(site.rows.start + cut[0].start, site.rows.start + cut[0].stop),
        slice(site.columns.start + cut[1].start, site.columns.start + cut[1].stop),
        site.dx[cut],
        site.dy[cut],
        site.rho[cut],
        site.radius,
        site.inside[cut],
    )


def _height_profile(
    rng: np.random.Generator, site: _Site, attributes: frozenset[str], form: str
) -> np.ndarray:
    """Height (px) of the lesion's body above the wall."""
    squared = np.minimum(site.rho * site.rho, 1.0)
    radius = np.float32(site.radius)
    dome = np.sqrt(np.maximum(1.0 - squared * squared, 0.0)) * (1.0 - 0.35 * squared)
    plateau = np.clip((1.0 - site.rho) * np.float32(rng.uniform(2.0, 3.2)), 0.0, 1.0)
    plateau = plateau * (2.0 - plateau)
    if form in ("Is", "Isp", "Ip", "mass"):
        height = radius * np.float32(rng.uniform(0.6, 0.9)) * dome
    elif form == "IIb":
        height = radius * np.float32(0.02) * plateau
    elif form == "IIc":
        rim = np.exp(-np.square((site.rho - 0.78) / 0.17))
        height = radius * np.float32(rng.uniform(0.16, 0.26)) * (rim - 0.6 * (1 - squared))
    else:
        height = radius * np.float32(rng.uniform(0.14, 0.26)) * (plateau + 0.35 * (1 - squared))
    if "lst_growth.pseudodepressed" in attributes:
        height -= radius * np.float32(0.22) * np.exp(-np.square(site.rho / 0.5))
    if "secondary_features.central_depression" in attributes:
        height -= radius * np.float32(0.35) * np.exp(-np.square(site.rho / 0.33))
    return height


def _surface(
    rng: np.random.Generator, site: _Site, attributes: frozenset[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Bumps (px of height) and clefts (share of light lost, 0–1) of the lesion's surface."""
    bumps = np.zeros_like(site.rho)
    clefts = np.zeros_like(site.rho)
    radius = site.radius

    def pattern(name: str, period: float, texel_period: float) -> np.ndarray:
        texels = np.float32(texel_period / period)
        shift = rng.uniform(SIZE, 2 * SIZE, 2).astype(np.float32)
        return lookup_smooth(name, site.dx * texels + shift[0], site.dy * texels + shift[1])

    granular = {"surface.granular", "lst_growth.granular"} & attributes
    if granular:
        period = float(np.clip(radius * rng.uniform(0.24, 0.32), 5.0, 14.0))
        grains = pattern("domes", period, 32.0)
        bumps += np.float32(0.36 * period) * grains
        clefts += 0.3 * (1.0 - grains)
    if "surface.lobulated_nodular" in attributes:
        period = max(radius * rng.uniform(0.75, 1.1), 9.0)
        lobes = pattern("lobes", period, 64.0)
        bumps += np.float32(0.34 * period) * lobes
        clefts += 0.6 * np.square(1.0 - lobes)
    if "surface.villous_papillary" in attributes:
        period = float(np.clip(radius * rng.uniform(0.28, 0.4), 6.0, 18.0))
        fronds = pattern("gyri", period, 22.0)
        bumps += np.float32(0.20 * period) * fronds
        clefts += 0.28 * (1.0 - fronds)
    if "surface.rough_irregular" in attributes:
        rough = pattern("rough", max(radius * 1.4, 18.0), 96.0)
        bumps += np.float32(0.07 * radius + 1.0) * rough
        clefts += 0.22 * np.clip(-rough, 0.0, 2.0)
    if "lst_growth.nodular_mixed" in attributes:
        for _ in range(int(rng.integers(1, 3))):
            place = rng.uniform(0.0, 0.5) * radius
            bearing, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.28, 0.42) * radius
            squared = (
                np.square(site.dx - np.float32(place * np.cos(bearing)))
                + np.square(site.dy - np.float32(place * np.sin(bearing)))
            ) / size**2
            nodule = np.sqrt(np.maximum(1.0 - squared * squared, 0.0)).astype(np.float32)
            bumps = np.maximum(bumps, np.float32(0.75 * size) * nodule)
            clefts *= 1.0 - 0.7 * nodule
            clefts += 0.5 * np.exp(-np.square((squared - 1.1) / 0.3))
    return bumps, np.clip(clefts, 0.0, 0.85)


_WLI_TINT = {
    "colour.same_as_mucosa": (1.0, 1.0, 1.0),
    "colour.pale_whitish": (1.06, 1.36, 1.46),
    "colour.red_hyperaemic": (0.98, 0.70, 0.68),
    "colour.dark_brown": (0.66, 0.56, 0.47),
}
_NBI_TINT = {
    "colour.same_as_mucosa": (1.0, 1.0, 1.0),
    "colour.pale_whitish": (1.22, 1.2, 1.18),
    "colour.red_hyperaemic": (1.05, 0.80, 0.76),
    "colour.dark_brown": (0.80, 0.60, 0.50),
}
_NBI_MICRO_TINT = {
    "nonneoplastic_pattern": (1.12, 1.12, 1.10),
    "regular_neoplastic_pattern": (1.02, 0.80, 0.68),
    "irregular_pattern": (0.92, 0.70, 0.60),
    "invasive_pattern": (0.80, 0.72, 0.66),
}


def _tint(attributes: frozenset[str], imaging: str) -> np.ndarray:
    """Colour of the lesion relative to the bare mucosa, float32 `[3]`."""
    tint = np.ones(3)
    for name, factor in (_NBI_TINT if imaging == "nbi" else _WLI_TINT).items():
        if name in attributes:
            tint *= factor
    if imaging == "nbi":
        for name, factor in _NBI_MICRO_TINT.items():
            if f"microstructure.{name}" in attributes:
                tint *= factor
    return tint.astype(np.float32)


def _microstructure(
    rng: np.random.Generator, site: _Site, attributes: frozenset[str], imaging: str
) -> np.ndarray:
    """Relative change of the three colours by pits and vessels, `[3, h, w]`: clear in NBI."""
    strength = np.float32(1.0 if imaging == "nbi" else 0.22)
    change = np.zeros((3, *site.rho.shape), np.float32)

    def pattern(name: str, period: float, texel_period: float) -> np.ndarray:
        texels = np.float32(texel_period / period)
        shift = rng.uniform(SIZE, 2 * SIZE, 2).astype(np.float32)
        return lookup_smooth(name, site.dx * texels + shift[0], site.dy * texels + shift[1])

    period = float(np.clip(site.radius * 0.2, 5.0, 14.0))
    brown = np.array([0.35, 0.60, 0.65], np.float32)[:, None, None] * strength
    white = np.array([0.30, 0.42, 0.45], np.float32)[:, None, None] * strength
    if "microstructure.nonneoplastic_pattern" in attributes:
        change += 0.55 * white * pattern("dots", period * 0.8, 16.0)
    if "microstructure.regular_neoplastic_pattern" in attributes:
        net = pattern("net", period * 1.25, 32.0)
        change += 0.6 * white * np.clip(1.0 - 2.0 * net, 0.0, 1.0) - brown * net
    if "microstructure.irregular_pattern" in attributes:
        patchy = np.clip(0.55 + 0.6 * pattern("patch", site.radius, 50.0), 0.0, 1.2)
        change -= brown * patchy * np.maximum(pattern("gyri", period * 1.7, 22.0), 0.0) * 1.1
        change += 0.35 * white * (1.0 - patchy)
    if "microstructure.invasive_pattern" in attributes:
        amorphous = pattern("patch", site.radius * 1.2, 50.0)
        change += 0.22 * white * amorphous - 0.30 * brown * (amorphous < -0.5)
        change -= 0.8 * brown * (pattern("vessels_fine", site.radius * 2.2, 220.0) > 0.45)
    return change


def draw_lesion(
    rng: np.random.Generator,
    scene: Scene,
    lesion: DrawableLesion,
    *,
    centre: tuple[float, float],
    diameter: float,
) -> None:
    """Draw `lesion` into `scene`, in place: `centre` in px from the field's centre.

    The lesion changes relief, colour, light (its own shading, contact shadow) and gloss.
    """
    attributes, form = visible_attributes(lesion), lesion.form
    radius = diameter / 2.0
    if form in ("Ip", "Isp"):
        _draw_stalk(rng, scene, centre, radius, necked=form == "Isp")
    site = _site(rng, scene, centre, radius, 1.8, attributes, form)
    area = (site.rows, site.columns)
    raised = form not in ("IIb", "IIc")
    _contact_shadow(rng, scene, site, area, form)
    if "secondary_features.fold_convergence" in attributes:
        _converging_folds(rng, scene, site, area)

    site = _core(site)
    area, inside = (site.rows, site.columns), site.inside
    height = _height_profile(rng, site, attributes, form)
    bumps, clefts = _surface(rng, site, attributes)
    scene.relief[area] *= 1.0 - np.float32(0.85 if raised else 0.0) * inside
    scene.relief[area] += (height + bumps) * inside
    lit = scene.light[area]
    level = np.float32(np.average(lit, weights=inside + 1e-6))
    own = np.float32(0.75 if raised else 0.3) * inside
    lit *= 1.0 - own
    # The lesion stands nearer to the lamp than the wall behind it.
    lit += own * level * np.float32(rng.uniform(1.15, 1.5) if raised else 1.0)
    lit *= 1.0 - clefts * inside

    mottling = np.float32(0.04) * window(rng, "patch", *inside.shape)
    tint = _tint(attributes, scene.imaging)
    change = _microstructure(rng, site, attributes, scene.imaging)
    for channel in range(3):
        colour = scene.base[channel] * tint[channel] * (1.0 + mottling + change[channel])
        layer = scene.albedo[channel][area]
        layer += inside * (colour - layer)
    scene.gloss[area] += inside * np.float32(0.5 if raised else 0.1)
    _secondary_features(rng, scene, site, area, attributes)


def _contact_shadow(
    rng: np.random.Generator, scene: Scene, site: _Site, area: Area, form: str
) -> None:
    """Darken the wall round the lesion, more on the side away from the lamp."""
    strength = {"IIb": 0.0, "IIc": 0.05, "IIa": 0.16, "LST": 0.2, "mass": 0.35}.get(form, 0.42)
    if not strength:
        return
    distance = np.hypot(site.dx, site.dy) + np.float32(1.0)
    lamp_x = np.float32(scene.lamp[0]) - (scene.x[:, area[1]] - site.dx[:1])[0, 0]
    lamp_y = np.float32(scene.lamp[1]) - (scene.y[area[0]] - site.dy[:, :1])[0, 0]
    length = np.float32(np.hypot(lamp_x, lamp_y) + 1.0)
    away = -(site.dx * lamp_x + site.dy * lamp_y) / (distance * length)
    ring = np.exp(-np.square(np.maximum(site.rho - 0.95, 0.0) / np.float32(0.28)))
    ring *= np.float32(strength) * (0.55 + 0.45 * away)
    scene.light[area] *= 1.0 - ring


def _converging_folds(rng: np.random.Generator, scene: Scene, site: _Site, area: Area) -> None:
    """Ridges that run to the lesion and end at its edge."""
    angle = np.arctan2(site.dy, site.dx)
    number = int(rng.integers(4, 7))
    ridge = np.maximum(np.cos(number * angle + np.float32(rng.uniform(0, 2 * np.pi))), 0.0)
    ridge = np.square(ridge) * np.clip((site.rho - 0.9) * 4.0, 0.0, 1.0)
    ridge *= np.clip((1.85 - site.rho) * 2.0, 0.0, 1.0)
    scene.relief[area] += np.float32(0.16 * site.radius) * ridge
    scene.light[area] *= 1.0 - 0.25 * np.clip((site.rho - 1.0) * 3.0, 0.0, 1.0) * (
        1.0 - ridge
    ) * np.clip((1.85 - site.rho) * 2.0, 0.0, 1.0)


def _draw_stalk(
    rng: np.random.Generator,
    scene: Scene,
    centre: tuple[float, float],
    radius: float,
    *,
    necked: bool,
) -> None:
    """The stalk below a head at `centre`; `necked` for the short broad one of type Isp."""
    length = radius * (rng.uniform(0.95, 1.2) if necked else rng.uniform(1.7, 2.6))
    bearing = np.arctan2(centre[1], centre[0]) + rng.uniform(-0.8, 0.8)
    reach = np.hypot(*scene.shape) * 0.5 * 0.75
    if np.hypot(*centre) > 0.45 * reach:
        bearing += np.pi  # the foot, too, should lie inside the field
    foot = (centre[0] + length * np.cos(bearing), centre[1] + length * np.sin(bearing))
    half_width = radius * (rng.uniform(0.48, 0.6) if necked else rng.uniform(0.26, 0.38))
    along_x, along_y = (foot[0] - centre[0]) / length, (foot[1] - centre[1]) / length
    dx, dy = scene.x - np.float32(centre[0]), scene.y - np.float32(centre[1])
    along = np.clip(dx * np.float32(along_x) + dy * np.float32(along_y), 0.0, np.float32(length))
    bend = np.float32(rng.uniform(-0.25, 0.25) * radius) * np.sin(
        along * np.float32(np.pi / length)
    )
    off_x = dx - along * np.float32(along_x) - bend * np.float32(along_y)
    off_y = dy - along * np.float32(along_y) + bend * np.float32(along_x)
    flare = np.float32(half_width) * (
        1.0 + 0.9 * np.square(np.clip(along / np.float32(length) * 2.0 - 1.0, 0.0, 1.0))
    )
    across = np.sqrt(off_x * off_x + off_y * off_y) / flare
    scene.light *= 1.0 - 0.4 * np.exp(-np.square(np.maximum(across - 0.8, 0.0) / 0.6))
    inside = np.clip((1.0 - across) * np.float32(half_width / 1.8) + 0.5, 0.0, 1.0)
    dome = np.sqrt(np.maximum(1.0 - across * across, 0.0))
    scene.relief *= 1.0 - inside
    scene.relief += np.float32(1.0) * flare * dome * inside
    level = np.float32(np.average(scene.light, weights=inside + 1e-6))
    scene.light += inside * (level * np.float32(1.5) - scene.light) * 0.8
    stalk = scene.base * np.array([1.0, 0.98, 0.98], np.float32)
    for channel in range(3):
        scene.albedo[channel] += inside * (stalk[channel] - scene.albedo[channel])


def _secondary_features(
    rng: np.random.Generator, scene: Scene, site: _Site, area: Area, attributes: frozenset[str]
) -> None:
    """Slough, blood and mucus on the lesion (its dip and outline are part of its shape)."""
    nbi = scene.imaging == "nbi"
    shift = rng.uniform(SIZE, 2 * SIZE, 2).astype(np.float32)
    texels = np.float32(30.0 / site.radius)
    (patch,) = lookup(("patch",), site.dx * texels + shift[0], site.dy * texels + shift[1])
    if "secondary_features.ulcer_erosion" in attributes:
        slough = np.clip((0.5 - site.rho + 0.10 * patch) * 7.0, 0.0, 1.0)
        rim = np.exp(-np.square((site.rho - 0.58 - 0.10 * patch) / 0.12)) * site.inside
        blend(scene, area, 0.55 * rim, (0.45, 0.28, 0.22) if nbi else (0.62, 0.16, 0.12))
        blend(scene, area, 0.9 * slough, (0.78, 0.80, 0.66) if nbi else (0.92, 0.84, 0.58))
        scene.relief[area] -= np.float32(0.12 * site.radius) * slough
    if "secondary_features.bleeding_friable" in attributes:
        (rough,) = lookup(
            ("rough",), site.dx * texels * 2 + shift[1], site.dy * texels * 0.6 + shift[0]
        )
        streaks = np.clip(rough * 1.6 - 1.2, 0.0, 1.0)
        streaks *= np.clip((1.25 - site.rho) * 3.0, 0.0, 1.0)
        ooze = np.clip((0.25 - np.hypot(site.rho - 0.8, patch * 0.3)) * 5.0, 0.0, 1.0)
        blood = np.maximum(streaks, ooze)
        blend(scene, area, 0.9 * blood, (0.20, 0.09, 0.08) if nbi else (0.52, 0.04, 0.03))
        scene.gloss[area] += 0.6 * blood
    if "secondary_features.mucus_cap" in attributes:
        film = np.clip((0.85 + 0.22 * patch - site.rho) * 4.0, 0.0, 1.0)
        blend(scene, area, 0.62 * film, (0.62, 0.30, 0.24) if nbi else (0.80, 0.70, 0.28))
        scene.gloss[area] += 0.5 * film
