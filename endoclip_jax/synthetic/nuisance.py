"""Everything in a frame that is not a lesion: landmarks, poor views, fluid, other findings.

Instruments and wounds are in `procedure`.  Each drawing edits the scene in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from endoclip_jax.synthetic import procedure
from endoclip_jax.synthetic.anatomy import Scene
from endoclip_jax.synthetic.brush import blend, oval, somewhere
from endoclip_jax.synthetic.textures import lookup_smooth, window


def _caecum(rng: np.random.Generator, scene: Scene) -> None:
    """Appendiceal orifice: a crescent slit within a swirl, folds that meet in a triradiate."""
    centre = somewhere(rng, scene, 0.35)
    area, dx, dy, rho = oval(scene, centre, scene.unit * 0.9, scene.unit * 0.9, 0.0)
    angle = np.arctan2(dy, dx)
    arms = np.cos(3 * angle + np.float32(rng.uniform(0, 6.28)) + 2.0 * rho)
    ridge = (
        np.square(np.maximum(arms, 0.0))
        * np.clip(rho * 3.0 - 0.5, 0, 1)
        * np.clip(2.4 - 2.4 * rho, 0, 1)
    )
    scene.relief[area] += np.float32(0.10 * scene.unit) * ridge
    scene.light[area] *= 1.0 - 0.25 * np.clip(1.0 - rho, 0, 1) * (1 - ridge)
    size = scene.unit * rng.uniform(0.12, 0.22)
    area, dx, dy, rho = oval(
        scene, centre, size, size * rng.uniform(0.5, 0.8), rng.uniform(0, 3.14), reach=2.2
    )
    lip = np.exp(-np.square((rho - 1.2) / 0.3))
    crescent = np.clip((1.0 - rho) * 5.0, 0, 1) * np.clip(
        (np.hypot(dx, dy + 0.5 * size) / size - 0.55) * 5.0, 0, 1
    )
    scene.relief[area] += np.float32(0.25 * size) * lip
    scene.light[area] *= 1.0 - 0.75 * crescent


def _ileocaecal_valve(rng: np.random.Generator, scene: Scene) -> None:
    """Two fat yellowish lips on a fold with a slit between them."""
    length = scene.unit * rng.uniform(0.35, 0.6)
    area, dx, dy, rho = oval(
        scene,
        somewhere(rng, scene, 0.5),
        length,
        length * rng.uniform(0.42, 0.6),
        rng.uniform(0, 3.14),
        reach=1.7,
    )
    body = np.clip(1.0 - rho * rho, 0, 1)
    soft = np.clip((1.05 - rho) * 3.5, 0, 1)
    bearing = rng.uniform(0, 3.14)
    across = (dy * np.float32(np.cos(bearing)) - dx * np.float32(np.sin(bearing))) / length
    across += 0.08 * np.sin(dx / length * 5.0)
    slit = np.exp(-np.square(across / 0.05)) * np.clip((0.6 - rho) * 4.0, 0, 1)
    groove = np.exp(-np.square(across / 0.16)) * np.clip((0.8 - rho) * 3.0, 0, 1)
    scene.relief[area] += np.float32(0.42 * length) * np.sqrt(body)
    scene.relief[area] -= np.float32(0.14 * length) * groove
    scene.light[area] *= (1.0 + 0.15 * soft) * (1.0 - 0.8 * slit)
    yellow = scene.base * np.array([1.02, 1.14, 1.02], np.float32)
    blend(scene, area, soft * np.float32(0.6), yellow)


def _terminal_ileum(rng: np.random.Generator, scene: Scene) -> None:
    """Velvety villi everywhere, a few lymphoid follicles."""
    scene.relief += np.float32(rng.uniform(0.7, 1.3)) * window(rng, "grain", *scene.shape)
    scene.albedo *= 1.0 + np.float32(0.05) * window(rng, "grain", *scene.shape)
    scene.albedo[2] *= 0.92
    for _ in range(int(rng.integers(0, 14))):
        size = rng.uniform(2.5, 5.0)
        area, _, _, rho = oval(scene, somewhere(rng, scene, 0.95), size, size, 0.0, reach=1.6)
        scene.relief[area] += np.float32(0.4 * size) * np.clip(1 - rho * rho, 0, 1)


def _retroflexion(rng: np.random.Generator, scene: Scene) -> None:
    """The black shaft of the endoscope comes out of the anal ring, piles bulge beside it."""
    if rng.random() < 0.5:
        _haemorrhoids(rng, scene)
    bearing = rng.uniform(0, 2 * np.pi)
    foot = scene.unit * rng.uniform(0.0, 0.35)
    procedure.draw_rod(
        rng,
        scene,
        (foot * np.cos(bearing), foot * np.sin(bearing)),
        bearing,
        half_width=scene.unit * rng.uniform(0.15, 0.22),
        colour=(0.035, 0.035, 0.04),
        rings=True,
    )


def _haemorrhoids(rng: np.random.Generator, scene: Scene) -> None:
    """Livid cushions round the lumen, without a crisp edge."""
    start = rng.uniform(0, 2 * np.pi)
    for k in range(int(rng.integers(2, 5))):
        bearing = start + k * rng.uniform(1.0, 1.9)
        length = scene.unit * rng.uniform(0.25, 0.45)
        place = length + scene.unit * 0.18
        centre = (
            scene.lumen[0] + place * np.cos(bearing),
            scene.lumen[1] + place * np.sin(bearing),
        )
        area, _, _, rho = oval(
            scene, centre, length, length * rng.uniform(0.45, 0.75), bearing, reach=1.5
        )
        body = np.square(np.clip(1.0 - np.square(rho / 1.2), 0, 1))
        scene.relief[area] += np.float32(0.5 * length) * body
        livid = scene.base * np.array([0.80, 0.62, 0.85], np.float32)
        blend(scene, area, np.float32(rng.uniform(0.3, 0.8)) * body, livid)
        scene.light[area] *= 1.0 - 0.3 * np.exp(-np.square((rho - 1.1) / 0.2))


def _diverticula(rng: np.random.Generator, scene: Scene) -> None:
    """Dark round mouths with a thin pale rim."""
    for _ in range(int(rng.integers(2, 7))):
        size = scene.unit * rng.uniform(0.06, 0.17)
        area, _, _, rho = oval(
            scene,
            somewhere(rng, scene, 0.85),
            size,
            size * rng.uniform(0.65, 1.0),
            rng.uniform(0, 3.14),
            reach=1.8,
        )
        hole = np.clip((1.0 - rho) * 4.0, 0, 1)
        scene.light[area] *= 1.0 - np.float32(rng.uniform(0.65, 0.9)) * hole
        scene.light[area] *= 1.0 + 0.22 * np.exp(-np.square((rho - 1.2) / 0.18))
        scene.relief[area] *= 1.0 - hole


def _colitis(rng: np.random.Generator, scene: Scene) -> None:
    """Red granular mucosa without vessels, yellow-white exudate and small erosions."""
    patches = window(rng, "cloud", *scene.shape) + np.float32(0.6) * window(
        rng, "patch", *scene.shape
    )
    inflamed = np.clip(patches * 1.2 + np.float32(rng.uniform(-0.3, 1.6)), 0, 1)
    red = scene.base * np.array([1.0, rng.uniform(0.62, 0.82), rng.uniform(0.66, 0.9)], np.float32)
    blend(scene, _whole(scene), np.float32(rng.uniform(0.5, 0.85)) * inflamed, red)
    scene.relief += inflamed * (
        np.float32(rng.uniform(0.2, 1.0)) * window(rng, "grain", *scene.shape)
        + np.float32(rng.uniform(0.2, 1.2)) * window(rng, "ripple", *scene.shape)
    )
    spots = np.clip(
        (window(rng, "ripple", *scene.shape) - np.float32(rng.uniform(1.5, 2.4))) * 3, 0, 1
    )
    exudate = np.clip(
        (window(rng, "rough", *scene.shape) - np.float32(rng.uniform(1.1, 2.3))) * 4, 0, 1
    )
    blend(scene, _whole(scene), 0.8 * spots * inflamed, (0.60, 0.10, 0.08))
    blend(scene, _whole(scene), 0.8 * exudate * inflamed, (0.90, 0.80, 0.55))
    scene.gloss += 0.6 * inflamed


def _melanosis(rng: np.random.Generator, scene: Scene) -> None:
    """Brown pigment in the meshes of a pale net."""
    texels = np.float32(rng.uniform(2.2, 4.0))
    shift = rng.uniform(0, 512, 2).astype(np.float32) + 1024
    net = lookup_smooth(
        "net", scene.x * texels + shift[0] + 0 * scene.y, scene.y * texels + shift[1] + 0 * scene.x
    )
    depth = np.float32(rng.uniform(0.3, 0.6)) * np.clip(
        0.8 + 0.5 * window(rng, "cloud", *scene.shape), 0, 1.2
    )
    for channel, strength in enumerate((0.75, 1.0, 1.0)):
        scene.albedo[channel] *= 1.0 - depth * np.float32(strength) * (1.0 - 0.7 * net)


def _stool(rng: np.random.Generator, scene: Scene) -> None:
    """Yellow-brown clumps and smears, more of them on one side."""
    bearing = rng.uniform(0, 2 * np.pi)
    lean = scene.x * np.float32(np.cos(bearing)) + scene.y * np.float32(np.sin(bearing))
    level = window(rng, "patch", *scene.shape) + np.float32(0.9 / scene.unit) * lean
    level += np.float32(0.35) * window(rng, "ripple", *scene.shape)
    clump = np.clip((level - np.float32(rng.uniform(0.9, 2.0))) * 4.0, 0, 1)
    colour = np.array(
        [[0.50, 0.36, 0.10], [0.42, 0.27, 0.10], [0.60, 0.50, 0.12], [0.35, 0.33, 0.10]]
    )[rng.integers(4)]
    if scene.imaging == "nbi":
        colour = np.array([0.62, 0.25, 0.18])
    blend(scene, _whole(scene), 0.93 * clump, colour)
    scene.relief += clump * (
        np.float32(3.0) + np.float32(1.2) * window(rng, "ripple", *scene.shape)
    )
    scene.gloss += 0.4 * clump


def _fluid(rng: np.random.Generator, scene: Scene) -> None:
    """A pool of clear or yellow-green liquid with a level surface."""
    bearing = rng.uniform(0.25 * np.pi, 0.75 * np.pi) + (np.pi if rng.random() < 0.2 else 0)
    depth = scene.x * np.float32(np.cos(bearing)) + scene.y * np.float32(np.sin(bearing))
    level = depth / np.float32(scene.unit) - np.float32(rng.uniform(0.0, 0.5))
    level = level + np.float32(0.05) * window(rng, "cloud", *scene.shape)
    pool = np.clip(level * np.float32(rng.uniform(5.0, 25.0)), 0, 1)
    colour = np.array([[0.62, 0.52, 0.14], [0.50, 0.46, 0.16], [0.70, 0.55, 0.30]])[rng.integers(3)]
    if scene.imaging == "nbi":
        colour = np.array([0.60, 0.26, 0.20])
    blend(scene, _whole(scene), np.float32(rng.uniform(0.3, 0.7)) * pool, colour)
    scene.relief *= 1.0 - 0.85 * pool
    scene.light *= 1.0 + 0.25 * np.exp(-np.square(level / 0.025)) - 0.1 * pool
    if rng.random() < 0.6:
        _bubbles(rng, scene)


def _bubbles(rng: np.random.Generator, scene: Scene) -> None:
    """Froth: thin bright rings with a small reflection each."""
    heap = somewhere(rng, scene, 0.8)
    spread = scene.unit * rng.uniform(0.2, 0.5)
    for _ in range(int(rng.integers(12, 45))):
        centre = (
            heap[0] + spread * rng.standard_normal(),
            heap[1] + spread * rng.standard_normal(),
        )
        size = rng.uniform(2.0, 6.0) if rng.random() < 0.8 else rng.uniform(6.0, 13.0)
        area, dx, dy, rho = oval(scene, centre, size, size, 0.0, reach=1.4)
        if not rho.size:
            continue
        ring = np.exp(-np.square((rho - 0.9) * np.float32(size / 1.6)))
        glint = np.exp(
            -(np.square(dx + 0.4 * size) + np.square(dy + 0.4 * size)) / (0.06 * size * size + 0.6)
        )
        scene.light[area] *= 1.0 + 0.55 * ring - 0.12 * (rho < 0.9)
        blend(scene, area, np.clip(0.35 * ring + 0.9 * glint, 0, 1), (0.95, 0.92, 0.85))
        scene.relief[area] *= 1.0 - np.clip((1 - rho) * 4, 0, 1)


def _red_out(rng: np.random.Generator, scene: Scene) -> None:
    """The lens lies against the mucosa: a formless red glow."""
    glow = 1.0 + np.float32(0.35) * window(rng, "cloud", *scene.shape)
    scene.light[:] = np.clip(glow * np.float32(rng.uniform(0.5, 0.95)), 0.1, 1.6)
    scene.relief[:] = 0.0
    if scene.imaging == "wli":
        blend(
            scene,
            _whole(scene),
            np.float32(0.8),
            (0.85, rng.uniform(0.18, 0.42), rng.uniform(0.08, 0.26)),
        )


def _underwater(rng: np.random.Generator, scene: Scene) -> None:
    """Seen through turbid water: haze, floating flakes."""
    haze = np.clip(0.35 + 0.2 * window(rng, "cloud", *scene.shape), 0.05, 0.8)
    light = float(scene.light.mean())
    scene.light += haze * (light - scene.light)
    blend(
        scene,
        _whole(scene),
        haze,
        (0.72, 0.60, 0.38) if scene.imaging == "wli" else (0.60, 0.42, 0.34),
    )
    for _ in range(int(rng.integers(5, 25))):
        size = rng.uniform(1.5, 6.0)
        area, _, _, rho = oval(
            scene, somewhere(rng, scene, 1.0), size, size * 0.6, rng.uniform(0, 3.14), reach=1.2
        )
        blend(scene, area, 0.7 * np.clip(1.5 - 1.5 * rho, 0, 1), (0.9, 0.82, 0.55))


def _whole(scene: Scene) -> tuple[slice, slice]:
    return slice(0, scene.shape[0]), slice(0, scene.shape[1])


def _optical_only(rng: np.random.Generator, scene: Scene) -> None:
    """Blur and darkness come from the camera."""


_DRAW: dict[str, Callable[[np.random.Generator, Scene], None]] = {
    "caecum": _caecum,
    "ileocaecal_valve": _ileocaecal_valve,
    "terminal_ileum": _terminal_ileum,
    "retroflexion": _retroflexion,
    "blur": _optical_only,
    "dark": _optical_only,
    "red_out": _red_out,
    "underwater": _underwater,
    "stool": _stool,
    "bubbles": _bubbles,
    "fluid": _fluid,
    "haemorrhoids": _haemorrhoids,
    "diverticula": _diverticula,
    "colitis": _colitis,
    "melanosis": _melanosis,
    "forceps": procedure.forceps,
    "snare": procedure.snare,
    "bleeding_wound": procedure.bleeding_wound,
    "emr_wound": procedure.emr_wound,
    "clips": procedure.clips,
}
NUISANCES: tuple[str, ...] = tuple(_DRAW)

_OPENINGS: dict[str, dict[str, Any]] = {
    "caecum": {"view": "wall", "folds": (0, 2)},
    "ileocaecal_valve": {"view": "oblique", "folds": (1, 4)},
    "terminal_ileum": {"folds": (0, 2), "vessel_strength": 0.3},
    "retroflexion": {"view": "wall", "folds": (0, 1)},
    "haemorrhoids": {"view": "tube", "folds": (0, 2)},
    "colitis": {"vessel_strength": 0.1},
    "red_out": {"view": "wall", "folds": (0, 0), "vessel_strength": 0.2},
}


def opening_for(scene: str) -> dict[str, Any]:
    """What `open_scene` is told for a scene of this name."""
    return _OPENINGS.get(scene, {})


def add_nuisance(rng: np.random.Generator, scene: Scene, name: str) -> None:
    """Draw the nuisance `name` (one of NUISANCES) into the scene."""
    _DRAW[name](rng, scene)
