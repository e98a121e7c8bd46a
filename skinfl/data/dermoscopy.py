"""Drawing one dermoscopic picture: skin, a lesion with the structures of its class, hair, light.

The picture is made as light makes it: skin reflects, melanin and haemoglobin in front of it absorb
(Beer-Lambert), and whatever scatters (veil, cysts, scale, scars) is laid over. Lengths are in units
of half the picture's height, with the origin in its middle.

All numbers are float64 and come from numpy generators that are handed in, so that a seed gives the
same picture in every environment.
"""

from __future__ import annotations

from typing import List, NamedTuple, Tuple

import numpy as np

# Colours stand along the first axis, so that numpy's inner loops run over pixels.
# Absorption of red, green and blue light per unit of pigment: melanin falls off towards red,
# haemoglobin takes green and blue and lets red through.
_MELANIN = np.array([0.42, 0.78, 1.05]).reshape(3, 1, 1)
_HAEMOGLOBIN = np.array([0.12, 0.90, 0.72]).reshape(3, 1, 1)
_VEIL = np.array([0.42, 0.48, 0.60]).reshape(3, 1, 1)
_WHITE = np.array([0.95, 0.86, 0.82]).reshape(3, 1, 1)
_SCALE = np.array([0.95, 0.86, 0.68]).reshape(3, 1, 1)
_HAIR = np.array([0.16, 0.11, 0.09]).reshape(3, 1, 1)
#: steps of a full turn in a lesion's outline
_DIRECTIONS = 2048


class Traits(NamedTuple):
    """How a lesion looks; all photographs of it share these. Strengths of structures are 0 to 1."""

    size: float
    elongation: float
    asymmetry: float
    irregularity: float
    softness: float
    melanin: float
    haemoglobin: float
    variegation: float
    network: float
    globules: float
    veil: float
    vessels: float
    cysts: float
    patch: float
    scale: float
    lacunae: float
    shape_seed: int


class Camera(NamedTuple):
    """What a site's dermatoscope adds: colour gains of the three channels, vignette, noise."""

    gains: Tuple[float, float, float]
    vignette: float
    field_stop: bool
    noise: float


class _Frame(NamedTuple):
    """The pixel axes, and the lesion's own axes turned and shifted against them."""

    x: np.ndarray
    y: np.ndarray
    turn: float
    centre: Tuple[float, float]


def draw(traits: Traits, camera: Camera, tone: float, rng: np.random.Generator, height: int) -> np.ndarray:
    """Draw one photograph, uint8 of shape (height, 4/3 height, 3).

    ``tone`` is the skin's melanin, about 0 (pale) to 1 (dark). ``rng`` decides what differs between
    photographs of one lesion: framing, light, hair, noise.
    """
    width = height * 4 // 3
    frame = _Frame(
        (np.arange(width) - (width - 1) / 2) / (height / 2),
        (np.arange(height) - (height - 1) / 2) / (height / 2),
        float(rng.uniform(-np.pi, np.pi)),
        (float(rng.normal(0, 0.08)), float(rng.normal(0, 0.06))),
    )
    zoom = float(np.exp(rng.normal(0, 0.08)))
    melanin = np.full((height, width), 0.12 + 0.55 * tone)
    haemoglobin = np.full((height, width), 0.18)
    skin = _waves(frame, rng, count=10, low=1.0, high=5.0)
    melanin += 0.03 * skin
    haemoglobin += 0.05 * _waves(frame, rng, count=10, low=1.0, high=4.0)
    covers = _add_lesion(traits, zoom, frame, melanin, haemoglobin)
    picture = 0.97 * np.exp(-(melanin * _MELANIN + haemoglobin * _HAEMOGLOBIN))
    for opacity, colour in covers:
        picture += opacity * (colour - picture)
    _add_hair(picture, frame, rng)
    return _expose(picture, frame, camera, rng)


def _add_lesion(
    traits: Traits, zoom: float, frame: _Frame, melanin: np.ndarray, haemoglobin: np.ndarray
) -> List[Tuple[np.ndarray, np.ndarray]]:
    """Add the lesion's pigments in place; return what lies over it as (opacity, colour) pairs."""
    # The lesion's own generator: every photograph of it draws the same numbers.
    rng = np.random.Generator(np.random.PCG64(traits.shape_seed))
    radius, angle = _polar(frame, zoom)
    relative = radius / _outline(traits, angle, rng)
    inside = _sigmoid((1 - relative) * (traits.size / (0.02 + 0.16 * traits.softness)))

    def waves(count: int, low: float, high: float) -> np.ndarray:
        return _waves(frame, rng, count, low / traits.size, high / traits.size, zoom)

    def dots(count: int, smallest: float, largest: float) -> np.ndarray:
        return _dots(frame, rng, zoom, traits.size, count, (smallest, largest))

    tilt = np.cos(angle - rng.uniform(-np.pi, np.pi)) * np.minimum(relative, 1)
    uneven = 1 + 0.55 * traits.variegation * waves(16, 0.8, 2.5) + 0.5 * traits.asymmetry * tilt
    pigment = traits.melanin * np.clip(uneven, 0.15, 2.2)
    blood = traits.haemoglobin * np.clip(1 + 0.3 * waves(12, 1.2, 3.5), 0.2, 2)
    if traits.network:
        pigment *= 1 + 0.55 * traits.network * _mesh(frame, rng, zoom)
    if traits.globules:
        pigment += 0.9 * traits.globules * dots(26, 0.025, 0.05)
    if traits.lacunae:
        blood += 1.2 * traits.lacunae * dots(14, 0.07, 0.13)
    if traits.vessels:
        blood += 0.9 * traits.vessels * _branches(frame, rng, zoom, traits.size)
    melanin += inside * pigment
    haemoglobin += inside * blood

    covers = []
    if traits.veil:
        blotch = _sigmoid(4 * waves(12, 0.6, 1.8) + 0.4) * np.clip(2.5 * (1 - relative), 0, 1)
        covers.append((inside * (0.75 * traits.veil) * blotch, _VEIL))
    if traits.cysts:
        covers.append((inside * (0.80 * traits.cysts) * dots(12, 0.02, 0.04), _WHITE))
    if traits.scale:
        flakes = _sigmoid(5 * _waves(frame, rng, 20, 6.0, 12.0, zoom) - 2.5)
        covers.append((inside * (0.65 * traits.scale) * flakes, _SCALE))
    if traits.patch:
        scar = np.exp(-((radius / (0.5 * traits.size)) ** 2))
        covers.append((inside * (0.9 * traits.patch) * scar, _WHITE))
    return covers


def _polar(frame: _Frame, zoom: float) -> Tuple[np.ndarray, np.ndarray]:
    """Return each pixel's radius and angle in the lesion's own axes."""
    dx, dy = np.meshgrid((frame.x - frame.centre[0]) / zoom, (frame.y - frame.centre[1]) / zoom)
    return np.sqrt(dx * dx + dy * dy) + 1e-9, np.arctan2(dy, dx) - frame.turn


def _outline(traits: Traits, angle: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return how far the lesion reaches in each direction: an ellipse, bent and frayed."""
    table = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
    stretch = 1 + 0.25 * traits.elongation * np.cos(2 * (table - rng.uniform(-np.pi, np.pi)))
    for k in (1, 3):
        stretch += 0.16 * traits.asymmetry * np.cos(k * table + rng.uniform(-np.pi, np.pi))
    for k in range(4, 13):
        weight = traits.irregularity * rng.normal(0, 0.16) / np.sqrt(k)
        stretch += weight * np.cos(k * table + rng.uniform(-np.pi, np.pi))
    reach = traits.size * np.clip(stretch, 0.35, 1.9)
    return reach[np.floor(angle * (_DIRECTIONS / (2 * np.pi))).astype(np.int64) % _DIRECTIONS]


def _waves(
    frame: _Frame, rng: np.random.Generator, count: int, low: float, high: float, zoom: float = 1.0
) -> np.ndarray:
    """Return a smooth random field of unit variance: plane waves of ``low`` to ``high`` rad per unit.

    With the lesion's generator the waves turn, shift and zoom with the lesion.
    """
    direction = rng.uniform(-np.pi, np.pi, count)
    number = np.pi * rng.uniform(low, high, count)
    phase = rng.uniform(-np.pi, np.pi, count)
    return _plane_waves(frame, direction, number, phase, zoom) * np.sqrt(2.0 / count)


def _plane_waves(
    frame: _Frame, direction: np.ndarray, number: np.ndarray, phase: np.ndarray, zoom: float
) -> np.ndarray:
    """Return the sum of cos(k . r + phase): one matrix product, as e^(i(a+b)) = e^(ia) e^(ib)."""
    kx = number / zoom * np.cos(direction + frame.turn)
    ky = number / zoom * np.sin(direction + frame.turn)
    along_x = np.outer(kx, frame.x - frame.centre[0]) + phase[:, None]
    along_y = np.outer(frame.y - frame.centre[1], ky)
    return np.cos(along_y) @ np.cos(along_x) - np.sin(along_y) @ np.sin(along_x)


def _mesh(frame: _Frame, rng: np.random.Generator, zoom: float) -> np.ndarray:
    """Return a pigment network: dark lines around lighter holes, values about -1 to 1."""
    direction = rng.uniform(0, np.pi) + np.arange(6) * (np.pi / 6) + rng.normal(0, 0.12, 6)
    number = 2 * np.pi * rng.uniform(5.5, 8.0) * np.exp(rng.normal(0, 0.06, 6))
    field = _plane_waves(frame, direction, number, rng.uniform(-np.pi, np.pi, 6), zoom)
    return np.clip(1 - np.abs(field), -0.6, 1)


def _in_pixels(frame: _Frame, zoom: float, radius: np.ndarray, angle: np.ndarray) -> tuple:
    """Return positions (x, y) on the pixel axes of points in the lesion's polar coordinates."""
    turned = angle + frame.turn
    return frame.centre[0] + zoom * radius * np.cos(turned), frame.centre[1] + zoom * radius * np.sin(turned)


def _dots(
    frame: _Frame,
    rng: np.random.Generator,
    zoom: float,
    size: float,
    count: int,
    radius: Tuple[float, float],
) -> np.ndarray:
    """Return round spots spread over the lesion, 0 to 1; of separable Gaussians, so one product."""
    distance = size * np.sqrt(rng.uniform(0, 0.8, count))
    x, y = _in_pixels(frame, zoom, distance, rng.uniform(-np.pi, np.pi, count))
    width = zoom * rng.uniform(radius[0], radius[1], count)
    along_x = np.exp(-(((frame.x[None, :] - x[:, None]) / width[:, None]) ** 2))
    along_y = np.exp(-(((frame.y[:, None] - y[None, :]) / width[None, :]) ** 2))
    return 1 - np.exp(-2.5 * (along_y @ along_x))


def _branches(frame: _Frame, rng: np.random.Generator, zoom: float, size: float) -> np.ndarray:
    """Return arborising vessels: trunks that come in from the rim and fork, 0 to 1."""
    points_x, points_y = [], []
    for _ in range(4):
        angle, heading = rng.uniform(-np.pi, np.pi), rng.normal(0, 0.3)
        start = np.array([np.cos(angle), np.sin(angle)]) * size * 0.9
        for fork in (0.0, rng.uniform(0.4, 0.8), -rng.uniform(0.4, 0.8)):
            steps = np.linspace(0.35 if fork else 0.0, 1.0, 50)
            bend = heading + fork * (steps - steps[0]) + 0.25 * np.sin(7 * steps + angle)
            run = size * 1.1 * steps
            points_x.append(start[0] - run * np.cos(angle + bend))
            points_y.append(start[1] - run * np.sin(angle + bend))
    px, py = np.concatenate(points_x), np.concatenate(points_y)
    x, y = _in_pixels(frame, zoom, np.hypot(px, py), np.arctan2(py, px))
    return _splat(frame, x, y, 1.0)


def _splat(frame: _Frame, x: np.ndarray, y: np.ndarray, strength: float) -> np.ndarray:
    """Return points drawn with bilinear weights, clipped to 1: a dense row of them is a fine line."""
    step = frame.x[1] - frame.x[0]
    column, row = (x - frame.x[0]) / step, (y - frame.y[0]) / step
    left, top = np.floor(column).astype(np.int64), np.floor(row).astype(np.int64)
    image = np.zeros((len(frame.y), len(frame.x)))
    for i in (0, 1):
        for j in (0, 1):
            weight = np.abs(1 - j - (column - left)) * np.abs(1 - i - (row - top))
            r, c = top + i, left + j
            seen = (r >= 0) & (r < image.shape[0]) & (c >= 0) & (c < image.shape[1])
            np.add.at(image, (r[seen], c[seen]), strength * weight[seen])
    return np.minimum(image, 1)


def _add_hair(picture: np.ndarray, frame: _Frame, rng: np.random.Generator) -> None:
    """Lay dark curved hairs over the picture, in place; most photographs have none or few."""
    count = int(rng.integers(1, 12)) if rng.random() < 0.35 else 0
    if not count:
        return
    main = rng.uniform(-np.pi, np.pi)
    xs, ys = [], []
    for _ in range(count):
        t = np.linspace(-1, 1, 300) * rng.uniform(0.5, 1.6)
        angle, bend = main + rng.normal(0, 0.5), rng.normal(0, 0.25)
        x0, y0 = rng.uniform(-1.2, 1.2), rng.uniform(-0.9, 0.9)
        xs.append(x0 + t * np.cos(angle) - bend * t * t * np.sin(angle))
        ys.append(y0 + t * np.sin(angle) + bend * t * t * np.cos(angle))
    hair = _splat(frame, np.concatenate(xs), np.concatenate(ys), 0.6)
    colour = _HAIR * rng.uniform(0.6, 2.5)
    picture += 0.85 * hair * (colour - picture)


def _expose(picture: np.ndarray, frame: _Frame, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Return the picture as the camera takes it: light, vignette, colour cast, noise, 8 bits."""
    x, y = np.meshgrid(frame.x, frame.y)
    direction = rng.uniform(-np.pi, np.pi)
    light = np.exp(rng.normal(0, 0.06)) * (1 + 0.06 * (x * np.cos(direction) + y * np.sin(direction)))
    distance = (x * x + y * y) / 2.8
    light *= 1 - camera.vignette * rng.uniform(0.5, 1.2) * distance * np.sqrt(distance)
    if camera.field_stop and rng.random() < 0.4:
        light *= _sigmoid((rng.uniform(1.15, 1.5) - np.sqrt(x * x + y * y)) / 0.03)
    gains = np.array(camera.gains) * np.exp(rng.normal(0, 0.02, 3))
    exposed = picture * light * gains.reshape(3, 1, 1)
    exposed += camera.noise * rng.standard_normal(picture.shape)
    pixels = (np.clip(exposed, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(z, -40, 40)))
