"""A small synthetic scene with real contrast: a dim room, a window on a bright sky with the sun in it, a lamp.

Everything is computed from formulas, without noise, by tracing one ray per sample: x to the right, y up, z away from
the camera, in metres. Radiance is relative: a grey card in the room is near 0.18, the sun is at 20,000.
"""

import numpy as np
from numpy.typing import NDArray

from hdrcli.color import Float32

Vectors = Float32  # (N, 3)
Mask = NDArray[np.bool_]  # (N,)
Area = tuple[float, float, float, float]  # left, right, bottom, top on the far wall

_EYE = np.array([0.35, 1.25, -1.2], np.float32)
_FOCAL = 1.25  # in picture heights
_LOW, _HIGH = np.array([-2.4, 0.0, -2.0], np.float32), np.array([2.4, 2.7, 4.2], np.float32)  # the room's corners
_WINDOW = (-1.75, -0.05, 0.20, 2.30)  # left, right, bottom, top, in the far wall
_BARS, _BAR = ((-0.9,), (1.60,)), 0.035  # places and half width of the window's bars

_SUN = (np.array([-0.84, 0.92, 5.4]) / np.linalg.norm([-0.84, 0.92, 5.4])).astype(np.float32)
_SUN_RADIANCE, _SUN_COSINE = 20_000.0, np.cos(np.radians(0.55))
_SUN_LIGHT = np.array([26.0, 22.0, 17.0], np.float32)  # on a surface that faces the sun
_SKY_LIGHT = np.array([6.0, 7.2, 9.0], np.float32)

_LAMP, _LAMP_RADIUS = np.array([1.45, 1.95, 2.6], np.float32), 0.11
_LAMP_RADIANCE = np.array([95.0, 58.0, 26.0], np.float32)

_AMBIENT = np.array([0.050, 0.047, 0.045], np.float32)

_SPHERES = (  # centre, radius, reflectance, mirror-like part
    ((-0.25, 0.42, 2.35), 0.42, (0.62, 0.06, 0.04), 0.04),
    ((0.85, 0.36, 2.85), 0.36, (0.02, 0.02, 0.02), 0.85),
    ((-1.25, 0.30, 2.75), 0.30, (0.04, 0.22, 0.42), 0.04),
    ((0.42, 0.17, 1.75), 0.17, (0.75, 0.55, 0.08), 0.04),
)
_PATCHES = np.array(
    [
        [(0.17, 0.08, 0.05), (0.55, 0.30, 0.22), (0.11, 0.20, 0.34), (0.09, 0.15, 0.05), (0.22, 0.21, 0.43)],
        [(0.70, 0.20, 0.02), (0.06, 0.10, 0.40), (0.55, 0.08, 0.12), (0.10, 0.04, 0.14), (0.34, 0.50, 0.04)],
        [(0.02, 0.04, 0.30), (0.05, 0.30, 0.06), (0.43, 0.03, 0.04), (0.80, 0.57, 0.01), (0.50, 0.08, 0.30)],
    ],
    np.float32,
)
_CHART = (0.62, 1.72, 1.10, 1.76)  # left, right, bottom, top of the patches on the far wall
_WEDGE = (0.62, 1.72, 0.80, 1.00)  # the grey wedge below them, half a stop a step
_WEDGE_STEPS = 11


def render(width: int, height: int) -> Float32:
    """The scene as (height, width, 3) linear BT.709 RGB, four samples per pixel; the same numbers on every run."""
    rows = [_band(top, min(top + 32, height), width, height) for top in range(0, height, 32)]
    return np.concatenate(rows)


def _band(top: int, bottom: int, width: int, height: int) -> Float32:
    y, x = np.meshgrid(np.arange(top, bottom) + 0.0, np.arange(width) + 0.0, indexing="ij")
    total: Vectors = np.zeros((y.size, 3), np.float32)
    for dy, dx in ((0.125, 0.625), (0.375, 0.125), (0.625, 0.875), (0.875, 0.375)):
        right = (x + dx - width / 2) / (height * _FOCAL)
        up = (height / 2 - y - dy) / (height * _FOCAL) - 0.04
        rays = np.stack([right, up, np.ones_like(up)], axis=-1).reshape(-1, 3).astype(np.float32)
        total += _radiance(np.broadcast_to(_EYE, rays.shape), _unit(rays), bounces=1)
    return np.asarray(total.reshape(bottom - top, width, 3) / 4, np.float32)


def _radiance(origin: Vectors, ray: Vectors, bounces: int) -> Vectors:
    """Light that comes back along each ray."""
    distance, point, normal, albedo, mirror = _room(origin, ray)
    out = _through_window(point)
    for centre, radius, reflectance, shine in _SPHERES:
        reach = _sphere(origin, ray, np.array(centre, np.float32), radius)
        nearer = reach < distance
        distance = np.where(nearer, reach, distance)
        place = origin + ray * np.where(nearer, reach, 0)[:, None]
        point = np.where(nearer[:, None], place, point)
        normal = np.where(nearer[:, None], (place - np.array(centre, np.float32)) / np.float32(radius), normal)
        albedo = np.where(nearer[:, None], np.array(reflectance, np.float32), albedo)
        mirror = np.where(nearer, np.float32(shine), mirror)
        out &= ~nearer
    light = albedo * _irradiance(point, normal, steps=4 if bounces else 2)
    if bounces:
        light += _reflection(point, ray, normal, mirror)
    lamp = _sphere(origin, ray, _LAMP, _LAMP_RADIUS) < distance
    light[out] = _sky(ray[out])
    light[lamp & (distance > 0)] = _LAMP_RADIANCE
    return light


def _reflection(point: Vectors, ray: Vectors, normal: Vectors, mirror: Float32) -> Vectors:
    """Mirror images, stronger at grazing angles (Schlick 1994)."""
    light = np.zeros_like(point)
    shiny = mirror > 0
    cosine = np.clip(-_dot(ray[shiny], normal[shiny]), 0, 1)
    strength = mirror[shiny] + (1 - mirror[shiny]) * (1 - cosine) ** 5
    bounced = ray[shiny] + 2 * cosine[:, None] * normal[shiny]
    light[shiny] = strength[:, None] * _radiance(point[shiny] + normal[shiny] * 1e-3, _unit(bounced), bounces=0)
    return light


def _room(origin: Vectors, ray: Vectors) -> tuple[Float32, Vectors, Vectors, Vectors, Float32]:
    """Where rays from inside meet the walls: distance, point, inward normal, reflectance, mirror-like part."""
    safe = np.where(np.abs(ray) < 1e-7, np.float32(1e-7), ray)
    wall = np.where(safe > 0, _HIGH, _LOW)
    reach = (wall - origin) / safe
    axis = reach.argmin(axis=1)
    distance = reach.min(axis=1)
    point = origin + ray * distance[:, None]
    normal = np.zeros_like(point)
    index = np.arange(len(axis))
    normal[index, axis] = -np.sign(safe[index, axis])
    floor = normal[:, 1] > 0.5
    far = normal[:, 2] < -0.5
    left = normal[:, 0] > 0.5
    albedo = np.broadcast_to(np.array([0.62, 0.58, 0.52], np.float32), point.shape).copy()
    albedo[left] = (0.10, 0.17, 0.20)
    albedo[floor] = _planks(point[floor])
    albedo[far] = _far_wall(point[far])
    return distance, point, normal, albedo, np.where(floor, np.float32(0.03), np.float32(0))


def _planks(point: Vectors) -> Vectors:
    """Wooden boards along z, each of its own tone, with grain and dark joints."""
    across, along = point[:, 0] / 0.24, point[:, 2]
    board = np.floor(across)
    tone = 0.75 + 0.5 * _hash(board)
    grain = np.sin(40 * across + 3 * np.sin(2.3 * along + 6 * _hash(board + 7)) + 2 * np.sin(9 * along))
    joint = np.where(np.minimum(across - board, board + 1 - across) < 0.02, 0.35, 1.0)
    shade = tone * (1 + 0.10 * grain) * joint
    return np.asarray(shade[:, None] * np.array([0.34, 0.20, 0.11], np.float32), np.float32)


def _far_wall(point: Vectors) -> Vectors:
    """The wall around the window: plaster, the window's frame, the colour chart, the grey wedge."""
    albedo = np.broadcast_to(np.array([0.60, 0.55, 0.48], np.float32), point.shape).copy()
    albedo[_inside(point, _grown(_WINDOW, 0.07))] = 0.75
    albedo[_inside(point, _grown(_CHART, 0.04)) | _inside(point, _grown(_WEDGE, 0.04))] = 0.03
    chart = _inside(point, _CHART)
    column, row = _cells(point[chart], _CHART, _PATCHES.shape[1], _PATCHES.shape[0])
    albedo[chart] = _PATCHES[row, column]
    wedge = _inside(point, _WEDGE)
    step, _ = _cells(point[wedge], _WEDGE, _WEDGE_STEPS, 1)
    albedo[wedge] = (0.9 * 2.0 ** (-step / 2))[:, None]
    return albedo


def _irradiance(point: Vectors, normal: Vectors, steps: int) -> Vectors:
    """Light on surfaces, over pi: the sun and the sky through the window, the lamp, and what the room gives back.

    The sky is summed over steps x steps places of the window.
    """
    light = _AMBIENT * _openness(point, normal)[:, None]
    sun = _sunlit(point) * np.clip(normal @ _SUN, 0, None)
    light += sun[:, None] * _SUN_LIGHT / np.pi
    left, right, bottom, top = _WINDOW
    part = (right - left) * (top - bottom) / steps**2
    places = (np.arange(steps) + 0.5) / steps
    for u in places:
        for v in places:
            target = np.array([left + u * (right - left), bottom + v * (top - bottom), _HIGH[2]], np.float32)
            direction, distance = _towards(target, point)
            share = np.clip(direction[:, 2], 0, None) * part
            light += _arriving(point, normal, direction, distance, share)[:, None] * _SKY_LIGHT / np.pi
    direction, distance = _towards(_LAMP, point)
    share = np.full_like(distance, _LAMP_RADIUS**2)
    return light + _arriving(point, normal, direction, distance, share)[:, None] * _LAMP_RADIANCE


def _towards(target: Float32, point: Vectors) -> tuple[Vectors, Float32]:
    """Unit vectors from points to a target, and how far it is, no nearer than 14 cm."""
    away = target - point
    distance = np.maximum(np.sqrt(_dot(away, away)), np.float32(0.14))
    return np.asarray(away / distance[:, None], np.float32), distance


def _arriving(point: Vectors, normal: Vectors, direction: Vectors, distance: Float32, area: Float32) -> Float32:
    """Share of a small light's radiance that reaches a surface: cosine, inverse square, shadow."""
    cosine = np.clip(_dot(direction, normal), 0, None)
    return cosine * area / distance**2 * ~_blocked(point, normal, direction, distance)


def _openness(point: Vectors, normal: Vectors) -> Float32:
    """How much of the room a surface sees past the spheres, and less of it in the corners."""
    seen = np.ones(len(point), np.float32)
    for centre, radius, *_ in _SPHERES:
        away = np.array(centre, np.float32) - point
        squared = np.maximum(_dot(away, away), radius**2)
        seen *= 1 - np.clip(_dot(away, normal) / np.sqrt(squared), 0, 1) * radius**2 / squared
    gap = np.minimum(point - _LOW, _HIGH - point) + np.abs(normal)
    corner = np.prod(1 - 0.45 * np.exp(-4 * np.clip(gap, 0, None)), axis=1)
    return np.asarray(seen * corner, np.float32)


def _sunlit(point: Vectors) -> Float32:
    """1 where the sun shines through the window past bars and spheres, 0 in shadow."""
    reach = (_HIGH[2] - point[:, 2]) / _SUN[2]
    passes = _through_window(point + reach[:, None] * _SUN)
    ray = np.broadcast_to(_SUN, point.shape)
    return (passes & ~_blocked(point, ray, ray, reach)).astype(np.float32)


def _blocked(point: Vectors, normal: Vectors, ray: Vectors, distance: Float32) -> Mask:
    """Whether a sphere stands in the way of unit rays that leave a surface."""
    start = point + normal * 2e-3
    blocked = np.zeros(len(point), bool)
    for centre, radius, *_ in _SPHERES:
        blocked |= _sphere(start, ray, np.array(centre, np.float32), radius) < distance
    return blocked


def _sky(ray: Vectors) -> Vectors:
    """What lies outside: a hazy sky, brighter around the sun, its disc, two rows of hills."""
    up = ray[:, 1] / np.hypot(ray[:, 0], ray[:, 2])
    side = ray[:, 0] / ray[:, 2]
    height = np.clip(up / 0.5, 0, 1)[:, None]
    sky = (1 - height) * np.array([7.5, 8.0, 8.6], np.float32) + height * np.array([2.2, 4.2, 8.5], np.float32)
    cloud = np.sin(9 * side + 14 * up) + np.sin(23 * side - 31 * up + 1) / 2 + np.sin(51 * side + 60 * up) / 4
    sky = sky + np.clip(cloud - 0.2, 0, None)[:, None] * np.array([2.0, 1.9, 1.8], np.float32)
    cosine = ray @ _SUN
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    glow = 60 * np.exp(-angle / 1.1) + 14 * np.exp(-angle / 5)
    sky = sky + glow[:, None] * np.array([1.0, 0.86, 0.66], np.float32)
    sky = np.where((cosine > _SUN_COSINE)[:, None], np.float32(_SUN_RADIANCE), sky)
    for base, roughness, colour in ((0.03, 0.025, (2.1, 2.6, 3.0)), (-0.03, 0.05, (0.50, 0.85, 0.30))):
        crest = base + roughness * (np.sin(7 * side + 40 * base) + np.sin(17 * side + 2) / 3 + np.sin(61 * side) / 12)
        leaves = np.sin(160 * side + 3 * np.sin(90 * up)) * np.sin(210 * up + 2 * np.sin(70 * side))
        shade = 1 - 0.5 * np.clip((crest - up) / 0.3, 0, 1) + 8 * roughness * np.clip(crest - up, 0, 0.2) * leaves
        sky = np.where((up < crest)[:, None], shade[:, None] * np.array(colour, np.float32), sky)
    return np.asarray(sky, np.float32)


def _through_window(point: Vectors) -> Mask:
    """Whether points lie in the far wall where the glass is, and not on one of its bars."""
    glass: Mask = _inside(point, _WINDOW) & (point[:, 2] > _HIGH[2] - 1e-3)
    for axis, places in enumerate(_BARS):
        for place in places:
            glass &= np.abs(point[:, axis] - place) > _BAR
    return glass


def _sphere(origin: Vectors, ray: Vectors, centre: Float32, radius: float) -> Float32:
    """Distance along unit rays to a sphere's near side, infinite where they miss it."""
    away = centre - origin
    along = _dot(away, ray)
    inner = np.float32(radius**2) - _dot(away, away) + along**2
    near = along - np.sqrt(np.clip(inner, 0, None))
    return np.where((inner > 0) & (near > 0), near, np.float32(np.inf))


def _inside(point: Vectors, area: Area) -> Mask:
    left, right, bottom, top = area
    x, y = point[:, 0], point[:, 1]
    return np.asarray((x > left) & (x < right) & (y > bottom) & (y < top))


def _grown(area: Area, by: float) -> Area:
    return area[0] - by, area[1] + by, area[2] - by, area[3] + by


def _cells(point: Vectors, area: Area, columns: int, rows: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    left, right, bottom, top = area
    column = (point[:, 0] - left) / (right - left) * columns
    row = (top - point[:, 1]) / (top - bottom) * rows
    return column.astype(np.intp).clip(0, columns - 1), row.astype(np.intp).clip(0, rows - 1)


def _hash(number: Float32) -> Float32:
    """A number in [0, 1) that looks random."""
    scrambled = np.sin(number * 12.9898 + 4.1) * 43758.547
    return np.asarray(scrambled - np.floor(scrambled), np.float32)


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _dot(a: Vectors, b: Vectors) -> Float32:
    return np.asarray(np.einsum("ij,ij->i", a, b), np.float32)
