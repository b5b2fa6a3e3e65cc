"""Composition of a frame: scene, lesion, optics, field of view and overlay text."""

from __future__ import annotations

import numpy as np
from PIL import Image

from endoclip_jax.synthetic.anatomy import Scene, open_scene
from endoclip_jax.synthetic.display import HEIGHT, WIDTH, sample_display
from endoclip_jax.synthetic.lesion import (
    DrawableLesion,
    draw_lesion,
    lesion_diameter,
    visible_attributes,
)
from endoclip_jax.synthetic.nuisance import NUISANCES, add_nuisance, opening_for
from endoclip_jax.synthetic.optics import Camera, shade

__all__ = ["HEIGHT", "SCENES", "WIDTH", "render_frame", "sample_scene"]

SCENES: tuple[str, ...] = ("clean", *NUISANCES)

_LANDMARKS = ("caecum", "ileocaecal_valve", "terminal_ileum", "retroflexion")
_POOR = ("blur", "red_out", "underwater", "dark")
_FLUID = ("stool", "bubbles", "fluid")
_PATHOLOGY = ("haemorrhoids", "diverticula", "colitis", "melanosis")
_PROCEDURE = ("forceps", "snare", "bleeding_wound", "emr_wound", "clips")


def sample_scene(rng: np.random.Generator, positive: bool, has_lesion: bool) -> str:
    """A scene's name for a frame of a positive or negative record, with or without a lesion.

    Without a lesion: 45 % clean mucosa, 20 % landmarks, 15 % poor quality, 10 % stool or fluid,
    the rest other findings and, mostly in positive records, instruments and wounds (domain notes,
    4.3).  With a lesion: mostly clean mucosa, a tenth with an instrument beside it.
    """
    if has_lesion:
        groups = {
            ("clean",): 0.72,
            _FLUID: 0.14,
            ("forceps", "snare"): 0.10,
            ("diverticula",): 0.04,
        }
    elif positive:
        groups = {
            ("clean",): 0.45,
            _LANDMARKS: 0.20,
            _POOR: 0.15,
            _FLUID: 0.10,
            _PATHOLOGY: 0.04,
            _PROCEDURE: 0.06,
        }
    else:
        groups = {
            ("clean",): 0.45,
            _LANDMARKS: 0.20,
            _POOR: 0.15,
            _FLUID: 0.10,
            _PATHOLOGY: 0.085,
            ("forceps",): 0.015,
        }
    group = list(groups)[rng.choice(len(groups), p=list(groups.values()))]
    return str(rng.choice(group))


def render_frame(
    rng: np.random.Generator,
    *,
    lesion: DrawableLesion | None,
    scene: str,
    imaging: str = "wli",
    indicative: bool = False,
) -> np.ndarray:
    """One frame, uint8 `[288, 360, 3]` RGB; the same generator state gives the same bytes.

    `imaging` is "wli" or "nbi".  `indicative` draws the lesion as the endoscopist's best picture
    of it: large, sharp, central, well lit.  Field of view, border and overlay text come from a
    random stream of their own and say nothing about the content.
    """
    if scene not in SCENES:
        raise ValueError(f"no scene {scene!r}; known: {', '.join(SCENES)}")
    if imaging not in ("wli", "nbi"):
        raise ValueError(f"imaging is 'wli' or 'nbi', not {imaging!r}")
    display_seed, content_seed = rng.integers(0, 2**63, 2)
    display = sample_display(np.random.default_rng(display_seed))
    content = np.random.default_rng(content_seed)
    width, height = display.mask.size
    field = _render_field(content, height, width, lesion, scene, imaging, indicative)
    box = (display.left, display.top, display.left + width, display.top + height)
    display.screen.paste(field, box, display.mask)
    return np.asarray(display.screen).copy()


def _render_field(
    rng: np.random.Generator,
    height: int,
    width: int,
    lesion: DrawableLesion | None,
    scene: str,
    imaging: str,
    indicative: bool,
) -> Image.Image:
    """The rectangle that holds the field of view, RGB."""
    view = str(rng.choice(("tube", "oblique", "wall"), p=_view_shares(lesion, indicative)))
    options = opening_for(scene)
    if lesion is not None:
        attributes = visible_attributes(lesion)
        if "secondary_features.luminal_narrowing" in attributes:
            view, options = "tube", {**options, "narrowing": 0.5}
    picture = open_scene(rng, height, width, imaging=imaging, **{"view": view, **options})
    place = None
    if lesion is not None:
        diameter = lesion_diameter(rng, lesion.size_mm, float(width), indicative)
        place = _place(rng, picture, diameter, indicative)
        if indicative:
            _spotlight(picture, place)
    if scene not in ("clean", "bubbles"):
        add_nuisance(rng, picture, scene)
    if lesion is not None and place is not None:
        draw_lesion(rng, picture, lesion, centre=place, diameter=diameter)
    if scene == "bubbles":
        add_nuisance(rng, picture, scene)
    return shade(rng, picture, _camera(rng, scene, indicative))


def _view_shares(lesion: DrawableLesion | None, indicative: bool) -> tuple[float, float, float]:
    if indicative:
        return (0.0, 0.60, 0.40)
    return (0.40, 0.40, 0.20) if lesion is None else (0.35, 0.45, 0.20)


def _place(
    rng: np.random.Generator, scene: Scene, diameter: float, indicative: bool
) -> tuple[float, float]:
    """Centre of the lesion (px from the field's centre), on the wall rather than in the lumen."""
    height, width = scene.shape
    spread = 0.14 if indicative else 0.62
    best, brightest = (0.0, 0.0), -1.0
    for _ in range(6):
        reach = spread * np.sqrt(rng.random())
        bearing = rng.uniform(0, 2 * np.pi)
        room_x = max(width / 2 - 0.35 * diameter, 0.2 * width)
        room_y = max(height / 2 - 0.35 * diameter, 0.2 * height)
        x, y = reach * np.cos(bearing) * room_x, reach * np.sin(bearing) * room_y
        brightness = scene.light[int(y + height / 2), int(x + width / 2)]
        if brightness > brightest:
            best, brightest = (float(x), float(y)), float(brightness)
    return best


def _spotlight(scene: Scene, centre: tuple[float, float]) -> None:
    """Light the place well: for its best picture the endoscope stands right before the lesion."""
    reach = np.float32(0.9 * scene.unit)
    distance = np.square((scene.x - centre[0]) / reach) + np.square((scene.y - centre[1]) / reach)
    np.maximum(scene.light, 0.8 / (1.0 + distance), out=scene.light)


def _camera(rng: np.random.Generator, scene: str, indicative: bool) -> Camera:
    exposure = rng.uniform(1.0, 1.6)
    if indicative:
        return Camera(
            float(rng.uniform(1.1, 1.4)), rng.uniform(0.004, 0.012), 0.6, rng.uniform(1.0, 2.5)
        )
    blur = rng.uniform(0.45, 0.85)
    if scene == "blur":
        blur = rng.uniform(3.0, 8.0)
    elif scene == "underwater":
        blur = rng.uniform(1.5, 3.5)
    elif scene == "dark":
        exposure *= rng.uniform(0.25, 0.5)
    elif rng.random() < 0.10:
        blur = rng.uniform(1.3, 2.6)
    return Camera(
        float(exposure), float(rng.uniform(0.004, 0.03)), float(blur), float(rng.uniform(1.0, 4.5))
    )
