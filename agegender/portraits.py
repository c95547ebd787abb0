"""Drawing a face that nobody has, at any age, in a flat style.

A person is a handful of numbers (`Person`), a picture of them another handful (`Shot`), and `paint`
turns the two and an age into a drawing. What a face looks like at an age stands in two tables,
`PROPORTIONS` and `SIGNS`; everything between their columns is interpolated, so faces age smoothly.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

SCALE = 2        # drawn this many times larger than kept, then reduced: smooth edges
FRAME = 200      # side of the frame in face units; the origin of a face lies between its eyes

# Sizes and places in face units (1/200 of the frame's side, y downwards, 0 between the eyes).
AGES =          (0,    1,    3,    6,    10,   14,   18,   25,   40,   55,   70,   95)
PROPORTIONS = {
    "width":    (70,   70,   69,   67.5, 66,   64,   62.5, 62,   62,   62.5, 62.5, 61),    # half, at the eyes
    "top":      (-86,  -85,  -83,  -81,  -79,  -77,  -75,  -74,  -74,  -74,  -73,  -72),   # crown
    "chin":     (64,   67,   71,   76,   82,   88,   93,   94,   95,   96,   97,   96),
    "cheek":    (1.03, 1.03, 1.01, .99,  .965, .945, .93,  .92,  .915, .925, .925, .90),   # share of width
    "jaw":      (.80,  .80,  .79,  .775, .76,  .755, .75,  .75,  .76,  .79,  .80,  .77),
    "chin_w":   (.34,  .34,  .34,  .34,  .34,  .345, .35,  .35,  .36,  .37,  .37,  .36),
    "eye_x":    (33,   33,   32.5, 31.5, 30.5, 29.5, 29,   29,   29,   29,   29,   28.5),
    "eye_w":    (16.5, 16.5, 16.2, 15.6, 15,   14.4, 14,   13.8, 13.5, 13.2, 12.8, 12.2),  # half
    "eye_h":    (12,   12,   11.3, 10.2, 9.1,  8.1,  7.4,  6.9,  6.4,  5.8,  5.1,  4.4),   # half
    "iris":     (10.2, 10.2, 9.8,  9.0,  8.4,  7.9,  7.5,  7.3,  7.0,  6.8,  6.5,  6.2),
    "brow_y":   (-23,  -23,  -22.5, -21.5, -20, -19, -18,  -17.5, -17, -16.5, -16, -15),
    "brow_t":   (1.2,  1.4,  1.8,  2.2,  2.7,  3.2,  3.6,  3.8,  3.8,  3.8,  3.7,  3.4),
    "nose_y":   (22,   23,   25,   28,   31.5, 35,   38,   39,   40,   41.5, 43.5, 46),
    "nose_w":   (8.5,  8.6,  8.8,  9.3,  10,   10.8, 11.5, 11.8, 12.2, 12.8, 13.6, 14.4),
    "mouth_y":  (41,   43,   46,   50,   53.5, 57,   59.5, 60.5, 62,   64,   66.5, 69),
    "mouth_w":  (12,   13,   15,   17,   18.5, 20,   21,   21.5, 22,   22,   21.5, 20.5),
    "lip":      (4.2,  4.2,  4.3,  4.4,  4.6,  4.9,  5.1,  5.0,  4.5,  3.8,  3.0,  2.1),
    "ear":      (12,   12,   12.5, 13,   14,   14.5, 15,   15,   15.5, 16.5, 18,   20),
    "neck":     (.48,  .48,  .48,  .49,  .51,  .54,  .58,  .60,  .62,  .63,  .61,  .56),   # share of width
    "line":     (-62,  -60,  -56,  -52,  -49,  -47,  -46,  -46,  -46.5, -47, -48,  -49),   # hairline
    "hair":     (.10,  .38,  .85,  1,    1,    1,    1,    1,    1,    .97,  .88,  .70),   # how dense
    "blush":    (1,    1,    .95,  .85,  .70,  .55,  .45,  .38,  .28,  .22,  .18,  .15),
}
# What comes with the years, from 0 (none) to 1.
SIGNS = {
    "folds":    (0,    0,    0,    0,    0,    0,    .04,  .13,  .34,  .58,  .82,  1),     # nose to mouth
    "forehead": (0,    0,    0,    0,    0,    0,    0,    .05,  .26,  .50,  .78,  1),
    "crow":     (0,    0,    0,    0,    0,    0,    0,    .05,  .28,  .55,  .82,  1),     # beside the eyes
    "bags":     (0,    0,    0,    0,    0,    0,    .06,  .13,  .30,  .53,  .80,  1),
    "sag":      (0,    0,    0,    0,    0,    0,    0,    0,    .06,  .28,  .62,  1),     # jowls and lids
    "spots":    (0,    0,    0,    0,    0,    0,    0,    0,    .02,  .14,  .46,  1),
    "fine":     (0,    0,    0,    0,    0,    0,    0,    0,    0,    .16,  .52,  1),     # cheeks, lips
    "acne":     (0,    0,    0,    0,    .10,  .80,  .50,  .10,  0,    0,    0,    0),
    "adult":    (0,    0,    0,    0,    .02,  .35,  .85,  1,    1,    1,    1,    1),     # beard, make-up
    "sex":      (.03,  .03,  .05,  .18,  .35,  .70,  .95,  1,    1,    1,    .92,  .80),
          # how far gender shows
    "sex_hair": (.02,  .04,  .10,  .40,  .72,  .90,  1,    1,    .95,  .85,  .75,  .60),
}

SKIN = np.array([(255, 226, 206), (246, 206, 176), (229, 178, 138), (200, 143, 102), (160, 107, 74),
                 (121, 78, 56), (88, 57, 44)], float)
LIP = np.array([(222, 132, 124), (212, 118, 108), (196, 104, 92), (172, 86, 76), (140, 68, 62),
                (112, 56, 54), (90, 46, 46)], float)
HAIR = {"black": (38, 32, 34), "dark": (66, 46, 38), "brown": (104, 70, 48), "light": (150, 108, 70),
        "blond": (214, 176, 112), "red": (172, 86, 46)}
EYES = {"brown": (104, 66, 40), "dark": (66, 44, 34), "hazel": (128, 98, 54), "green": (96, 128, 88),
        "blue": (92, 134, 172), "grey": (122, 136, 146)}
CLOTHES = ((214, 92, 84), (66, 112, 168), (72, 140, 116), (236, 188, 88), (120, 92, 150), (70, 76, 92),
           (222, 218, 208), (232, 146, 120), (60, 150, 170), (150, 160, 120))
BACKDROPS = ((226, 214, 196), (178, 204, 214), (198, 214, 190), (238, 206, 186), (202, 196, 220),
             (240, 226, 180), (150, 168, 184), (216, 176, 168), (118, 132, 140), (244, 240, 232))
RING = np.array([(np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 28, endpoint=False)])


@dataclass(frozen=True)
class Person:
    """What stays the same in all pictures of one person. Traits without a unit are standard normal."""
    person: str
    gender: int            # 0 male, 1 female
    race: int              # 0 to 4
    tone: float            # of the skin, 0 light to 1 deep
    warmth: float
    pace: float            # ages this many times as fast as most
    femininity: float      # about -1 in men and +1 in women, overlapping; shows by SIGNS["sex"]
    breadth: float
    length: float
    eye_size: float
    eye_gap: float
    nose: float
    mouth: float
    brow_tilt: float
    hair: str              # a key of HAIR
    eyes: str              # a key of EYES
    curl: float            # 0 straight to 1 tight
    tied: str              # "", tail or pigtails, where the hair is long enough
    hair_wish: float       # how long this person likes their hair
    style: str             # fringe, side, centre or back
    greying: float         # apparent age at which half of the hair is grey
    balding: float         # apparent age at which half of the top is bare; beyond 200: never
    freckles: float
    beard: str             # "", stubble, moustache, goatee or full: once grown up
    made_up: float         # strength of make-up once grown up, 0 for none
    earrings: bool
    sighted: float         # wears glasses where this is below a limit that rises with age
    marks: int             # seed of spots and freckles, so that they stay in place


@dataclass(frozen=True)
class Shot:
    """What differs from picture to picture."""
    yaw: float             # radians, positive to the viewer's right
    pitch: float
    roll: float
    zoom: float
    dx: float              # units of the frame
    dy: float
    smile: float           # -0.4 to 1
    opened: float          # mouth, 0 to 1
    closed_eyes: bool
    gaze: float
    light_x: float         # where the light comes from, -1 to 1
    light_y: float
    shadow: float          # depth of the shadow, 0 to 0.45
    warm: float            # colour of the light, -1 cold to 1 warm
    backdrop: str          # plain, gradient or blobs
    backdrop_colour: int
    clothes: int
    hair_cut: float        # added to the length of the hair
    hat: str               # "", beanie or cap
    glasses: bool
    blur: float            # radius in pixels
    noise: float           # standard deviation in grey levels
    brightness: float
    grey: bool
    quality: int           # JPEG
    texture: int           # seed of backdrop and noise


def _mix(a, b, t: float) -> tuple[int, int, int]:
    """The colour the share `t` of the way from `a` to `b`."""
    return tuple(int(round(x + (y - x) * min(max(t, 0), 1))) for x, y in zip(a, b))


def _ramp(colours: np.ndarray, t: float) -> tuple[int, int, int]:
    place = min(max(t, 0), 1) * (len(colours) - 1)
    low = min(int(place), len(colours) - 2)
    return _mix(colours[low], colours[low + 1], place - low)


@cache
def _basis(steps: int) -> np.ndarray:
    """Weights (steps, 4) of four neighbouring points on the stretch between the middle two: Catmull-Rom."""
    t = np.linspace(0, 1, steps, endpoint=False)[:, None] ** np.arange(4)
    return t @ np.array([(0, 2, 0, 0), (-1, 0, 1, 0), (2, -5, 4, -1), (-1, 3, -3, 1)]) / 2


def _curve(points: np.ndarray, closed: bool, steps: int = 7) -> np.ndarray:
    """A smooth line through `points` (k, 2), with `steps` points from one to the next."""
    if closed:
        p = np.concatenate([points[-1:], points, points[:2]])
    else:
        p = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    out = (_basis(steps) @ p[np.arange(len(p) - 3)[:, None] + np.arange(4)]).reshape(-1, 2)
    return out if closed else np.concatenate([out, points[-1:]])


class Pen:
    """Draws in face units onto a picture: turns the head, then rolls, zooms and moves it."""

    def __init__(self, image: Image.Image, shot: Shot, width: float, chin: float, top: float):
        self.image, self.draw = image, ImageDraw.Draw(image, "RGBA")
        self.width, self.middle, self.half = width, (chin + top) / 2, (chin - top) / 2
        self.sin, self.tilt = np.sin(shot.yaw), np.sin(shot.pitch)
        cos, sin = np.cos(shot.roll), np.sin(shot.roll)
        self.turn = np.array([(cos, sin), (-sin, cos)]) * shot.zoom * SCALE
        self.origin = np.array([FRAME / 2 + shot.dx, 86 + shot.dy]) * SCALE
        self.unit = shot.zoom * SCALE

    def place(self, points, layer: str) -> np.ndarray:
        """Points (k, 2) in face units as points of the canvas.

        Layers: "face" lies on the rounded front of the head and moves most as the head turns, "rim" is
        its outline (the far side narrows, the chin follows), "back" lies behind and moves the other way.
        """
        x, y = np.asarray(points, float).T
        if layer == "face":
            across, along = x / self.width, (y - self.middle) / self.half
            depth = np.sqrt(np.clip(1 - across ** 2 - .6 * along ** 2, .02, 1))
            x = x * (1 - .12 * abs(self.sin)) + self.sin * self.width * .62 * depth
            y = y + self.tilt * 55 * depth
        elif layer == "rim":
            far, low = x * self.sin > 0, np.clip((y - 5) / 80, 0, 1)
            x = x * (1 - abs(self.sin) * np.where(far, .10, -.02)) + self.sin * self.width * .34 * low
            y = y + self.tilt * 22 * low
        elif layer == "back":
            x = x - self.sin * self.width * .12
        return np.column_stack([x, y]) @ self.turn + self.origin

    def shape(self, points, colour, alpha: float = 1, layer: str = "face", smooth: bool = True) -> None:
        """Fill the outline through `points` in face units; `alpha` is 0 (nothing) to 1 (opaque)."""
        self.fill(self.place(points, layer), colour, alpha, smooth)

    def fill(self, points, colour, alpha: float = 1, smooth: bool = True) -> None:
        """Fill the outline through `points` of the canvas."""
        if alpha < .02:
            return
        if smooth:
            points = _curve(points, closed=True)
        self.draw.polygon(points.ravel().tolist(), fill=(*colour, int(255 * min(alpha, 1))))

    def oval(self, x, y, rx, ry, colour, alpha: float = 1, layer: str = "face") -> None:
        """An ellipse that keeps its form: only its centre is moved by the turning of the head."""
        self.fill(self.place([(x, y)], layer) + RING * (rx, ry) @ self.turn, colour, alpha, smooth=False)

    def glow(self, x, y, rx, ry, colour, alpha: float, layer: str = "face") -> None:
        """A soft spot of colour."""
        for share in (1, .8, .6, .4):
            self.oval(x, y, rx * share, ry * share, colour, alpha / 3, layer)

    def stroke(self, points, colour, width: float, alpha: float = 1, layer: str = "face",
               taper: float = 1) -> None:
        """A brush stroke, thinner at its ends by the share `taper`."""
        if alpha < .02:
            return
        line = _curve(self.place(points, layer), closed=False, steps=5)
        along = np.vstack([line[1:2] - line[:1], line[2:] - line[:-2], line[-1:] - line[-2:-1]])
        across = along[:, ::-1] * (-1, 1) / (np.hypot(*along.T)[:, None] + 1e-9)
        swell = 1 - taper * np.linspace(-1, 1, len(line)) ** 2
        across *= (swell * width * self.unit / 2)[:, None]
        self.fill(np.vstack([line + across, (line - across)[::-1]]), colour, alpha, smooth=False)


def _both(points, side: int) -> np.ndarray:
    """`points` of the right half of the face (side 1) or mirrored (side -1)."""
    return np.asarray(points, float) * (side, 1)


def _face(who: Person, shot: Shot, age: float) -> SimpleNamespace:
    """The measures of a face at an age: every row of the two tables by name, then this person's own."""
    f = SimpleNamespace(looks=max(age * who.pace, 0))   # the age this person looks
    for table in (PROPORTIONS, SIGNS):
        vars(f).update({name: float(np.interp(f.looks, AGES, row)) for name, row in table.items()})
    f.fem = fem = who.femininity * f.sex
    f.width *= 1 + .028 * who.breadth
    f.chin += .022 * f.chin * who.length - 2.2 * fem
    f.jaw = min(f.jaw - .027 * fem + .012 * who.breadth, .9 * f.cheek) * f.width
    f.cheek, f.chin_w, f.neck = f.cheek * f.width, f.chin_w * f.width, (f.neck - .04 * fem) * f.width
    f.eye_w *= 1 + .04 * who.eye_size + .03 * fem
    f.eye_h *= (1 + .07 * who.eye_size + .06 * fem) * (1 - .18 * max(shot.smile, 0))
    f.eye_x *= 1 + .03 * who.eye_gap
    f.nose_y += 1.2 * who.length - .6 * fem
    f.nose_w *= 1 + .08 * who.nose - .06 * fem
    f.mouth_y += who.length
    f.mouth_w *= 1 + .06 * who.mouth
    f.lip *= 1 + .12 * who.mouth + .13 * fem
    f.brow_y -= .8 * fem + 1.5 * shot.opened
    f.made_up = who.made_up * f.adult

    skin = _mix(_ramp(SKIN, who.tone), (236, 160, 120), .10 + .06 * who.warmth)
    f.skin = skin = _mix(skin, (214, 202, 190), .16 * f.sag)     # paler with the years
    f.shade, f.light = _mix(skin, (70, 24, 20), .30), _mix(skin, (255, 250, 240), .35)
    f.ink = _mix(skin, (46 - 34 * who.tone, 16 - 12 * who.tone, 16 - 12 * who.tone), .55 + .15 * who.tone)
    f.lips = _mix(_ramp(LIP, who.tone), skin, .25 + .25 * f.sag - .06 * fem)

    f.grey = 1 / (1 + np.exp(-(f.looks - who.greying) / 5.5))
    f.bald = 1 / (1 + np.exp(-(f.looks - who.balding) / 7)) if f.looks > 20 else 0
    f.dyed = HAIR[who.hair]
    if who.hair not in ("black", "dark"):               # many children are fairer than they will be
        f.dyed = _mix(f.dyed, (255, 225, 170), .22 * max(0, 1 - f.looks / 12))
    f.strands = _mix(f.dyed, _mix((158, 158, 162), (238, 237, 235), (f.looks - 50) / 35), f.grey)
    f.strands_dark = _mix(f.strands, (20, 12, 16), .30)
    f.strands_light = _mix(f.strands, (255, 246, 230), .22)

    # How far the hair hangs: 0 cropped, .35 over the ears, .6 to the chin, 1 to the shoulders.
    wish = .42 + who.hair_wish + (.62 * who.gender - .25) * f.sex_hair + shot.hair_cut
    grown = np.interp(f.looks, (0, 1, 3, 6, 60, 90), (.1, .25, .75, 1, 1, .7))
    f.length = float(np.clip(wish, .03, 1.05) * grown)
    f.thick = 2 + 9 * f.hair * (1 + .5 * who.curl) * (.75 + .35 * min(f.length, 1))
    f.curly = who.curl > .6 and f.hair > .75
    can_tie = f.length > .5 and f.looks > 2.5 and f.bald < .4 and (who.tied == "tail" or f.looks < 13)
    f.tied = who.tied if can_tie else ""
    f.loose = .3 if f.tied else f.length
    f.fall = -10 + 125 * f.loose
    f.spread = f.width + f.thick + 5 + 6 * f.loose * (1 - .6 * f.bald)
    return f


def paint(who: Person, shot: Shot, age: float) -> Image.Image:
    """Draw one picture, RGB, FRAME x FRAME, before blur, noise and JPEG; `age` in years."""
    f = _face(who, shot, age)
    image = _backdrop(shot)
    pen = Pen(image, shot, f.width, f.chin, f.top)
    _behind(pen, f, who, shot)
    outline = _head(pen, f)
    _marks(pen, f, who)
    _lines(pen, f, shot)
    _beard(pen, f, who)
    _nose(pen, f, shot)
    _mouth(pen, f, who, shot)
    for side in (-1, 1):
        _eye(pen, f, who, shot, side)
        _brow(pen, f, who, side)
    _hair(pen, f, who, shot)
    if shot.glasses:
        _glasses(pen, f, who)
    if shot.hat:
        _hat(pen, f, shot)
    return _light(image, outline, shot, f.width)


def _backdrop(shot: Shot) -> Image.Image:
    """What lies behind the head, at the drawn size."""
    rng = np.random.default_rng(shot.texture)
    size, colour = FRAME * SCALE, np.array(BACKDROPS[shot.backdrop_colour])
    if shot.backdrop == "plain":
        return Image.new("RGB", (size, size), tuple(colour.tolist()))
    if shot.backdrop == "gradient":
        x, y = np.meshgrid(*[np.linspace(-1, 1, 20)] * 2)
        angle = rng.uniform(0, 2 * np.pi)
        field = 1 + .28 * (x * np.cos(angle) + y * np.sin(angle))
        small = Image.fromarray(np.clip(colour * field[..., None], 0, 255).astype(np.uint8))
        return small.resize((size, size), Image.Resampling.BILINEAR)
    small = Image.new("RGB", (50, 50), tuple(colour.tolist()))
    draw = ImageDraw.Draw(small)
    for _ in range(9):
        x, y, r = rng.uniform(-5, 55), rng.uniform(-5, 55), rng.uniform(4, 13)
        other = _mix(colour, BACKDROPS[rng.integers(len(BACKDROPS))], rng.uniform(.4, 1))
        draw.ellipse([x - r, y - r, x + r, y + r], fill=other)
    return small.filter(ImageFilter.GaussianBlur(2)).resize((size, size), Image.Resampling.BILINEAR)


def _behind(pen: Pen, f, who: Person, shot: Shot) -> None:
    """Long hair, neck, clothes and ears: all that the head covers in part."""
    W, chin, neck, cloth = f.width, f.chin, f.neck, CLOTHES[shot.clothes]
    if f.tied:
        low = 40 * f.length
        for side in (-1, 1) if f.tied == "pigtails" else (1 if who.marks % 2 else -1,):
            pen.shape(_both([(W * .7, -4), (W + 14, -8), (W + 30, 26), (W + 24, 60 + low), (W + 8, 70 + low),
                (W + 6, 40)], side), f.strands_dark, 1, "back")
            pen.stroke(_both([(W + 12, 4), (W + 20, 34), (W + 14, 58 + low)], side), f.strands, 5, 1, "back")
            pen.oval(side * (W + 8), 0, 6, 7, CLOTHES[who.marks % len(CLOTHES)], 1, "back")
    if f.loose > .36:
        for side in (-1, 1):
            pen.shape(_both([(0, f.top - f.thick * .6), (W * .8, f.top * .72 - f.thick * .4),
                (f.spread - 2, -10), (f.spread, f.fall * .6), (f.spread - 3, f.fall), (W * .55, f.fall + 4),
                (0, f.fall - 10)], side), f.strands_dark, min(1, .5 + f.hair / 2), "back")
            if f.curly:
                for y in np.linspace(f.top * .6, f.fall, 8):
                    pen.oval(side * (W + f.thick + 2), y, 13, 13, f.strands_dark, 1, "back")
                for x in (.45, .7, .95):
                    pen.oval(side * W * x, f.fall, 13, 13, f.strands_dark, 1, "back")
    pen.shape([(-neck, 20), (neck, 20), (neck * 1.02, chin + 30), (neck * 1.3, 150), (-neck * 1.3, 150),
        (-neck * 1.02, chin + 30)], _mix(f.skin, f.shade, .40), 1, "back")
    pen.shape([(-neck + 1, 20), (neck - 1, 20), (neck - 1, chin + 6), (neck * .6, chin + 12), (0, chin + 14),
        (-neck * .6, chin + 12), (-neck + 1, chin + 6)], f.shade, .55, "back", smooth=False)
    collar = [(-neck * .98, chin + 21), (0, chin + 41), (neck * .98, chin + 21)]
    pen.shape([*collar, (neck * 2.1, chin + 35), (150, chin + 57), (150, 190), (-150, 190), (-150, chin + 57),
        (-neck * 2.1, chin + 35)], cloth, 1, "back")
    pen.stroke(collar, _mix(cloth, (20, 20, 40), .25), 3.5, 1, "back", taper=0)
    for side in (-1, 1):
        seen = 1 - .6 * max(0, side * np.sin(shot.yaw) * 2)      # the far ear is hidden
        pen.oval(side * (W * .985 + 1), 12 + f.ear * .25, f.ear * .5 * seen, f.ear * 1.05,
            _mix(f.skin, f.shade, .18), 1, "rim")
        pen.oval(side * (W * .985 + 1.5), 12 + f.ear * .25, f.ear * .28 * seen, f.ear * .65, f.shade, .45,
            "rim")
        if who.earrings and f.adult > .3:
            pen.oval(side * (W + 1), 16 + f.ear * 1.3, 2.8, 2.8, (238, 204, 110), 1, "rim")


def _head(pen: Pen, f) -> np.ndarray:
    """The bare head. Returns its outline on the canvas (k, 2)."""
    W, top = f.width, f.top
    half = np.array([(W * .50, top * .945), (W * .84, top * .70), (W * .985, top * .36), (W, 2),
        (f.cheek, f.nose_y * .75 + 4), (f.jaw * (1 + .02 * f.sag), f.mouth_y + 3 + 4 * f.sag),
        (f.chin_w * (1 + .10 * f.sag), f.chin - 5.5 + f.sag)])
    outline = pen.place(np.vstack([(0, top), half, (0, f.chin), half[::-1] * (-1, 1)]), "rim")
    pen.fill(outline, f.skin)
    return _curve(outline, closed=True)


def _marks(pen: Pen, f, who: Person) -> None:
    """Blush, freckles, spots of youth and of age; they keep their places in all pictures of a person."""
    W = f.width
    rosy = _mix((236, 96, 90), f.skin, .15 + .5 * who.tone)
    for side in (-1, 1):
        pen.glow(side * W * .62, f.nose_y * .92, W * .26, W * .20, rosy, .17 * f.blush + .10 * f.made_up)
        pen.glow(side * W * .55, f.nose_y * .75 - 3, W * .14, W * .09, f.light, .10 * (1 - .6 * f.sag))
    pen.glow(0, (f.top + f.line) * .42, W * .45, abs(f.top) * .17, f.light, .13)
    rng = np.random.default_rng(who.marks)
    for x, y, r, kind in zip(rng.normal(0, .45, 34), rng.uniform(-1, 1, 34), rng.uniform(.6, 1.5, 34),
        rng.random(34)):
        if kind < .55 and who.freckles and f.looks > 2:
            pen.oval(x * W * .8, f.nose_y * .75 + y * 11, r * .75, r * .75, _mix(f.skin, (150, 78, 40), .5),
                .55 * who.freckles)
        if kind < .35 and f.acne > .05:
            pen.oval(np.clip(x, -.65, .65) * W, 30 + y * 26 - 60 * (kind < .12), r * 1.3, r * 1.3,
                (206, 84, 80), .5 * f.acne)
        if kind > .95 - .55 * f.spots:
            size = r * (.9 + 1.8 * f.spots)
            forehead = (np.clip(x, -.6, .6) * W, f.line * .65 + 10 * y)
            cheek = (np.sign(x) * W * (.45 + .3 * abs(y)), 12 + 30 * min(abs(x), .8))
            pen.oval(*(forehead if kind > .72 else cheek), size * 1.2, size, _mix(f.skin, (116, 70, 44), .55),
                .62 * f.spots)


def _lines(pen: Pen, f, shot: Shot) -> None:
    """Wrinkles, folds, bags and jowls, each by its row of SIGNS."""
    W, ink, strong = f.width, f.ink, .62
    smile = max(shot.smile, 0)
    for i in range(4):                                  # forehead, from the lowest line up
        y, reach = f.brow_y - 11 - 7 * i, W * (.52 - .05 * i) * (.7 + .3 * f.forehead)
        amount = np.clip(f.forehead * 2.2 - i * .42, 0, 1) * f.forehead ** .4
        pen.stroke([(-reach, y + 2.5), (-reach * .4, y - 1), (0, y + .8), (reach * .4, y - 1),
            (reach, y + 2.5)], ink, 1.3 + f.forehead, strong * .8 * amount)
    fold = min(1, f.folds + .12 * smile * (f.looks > 5))         # everybody's cheeks fold in a smile
    outer, under = f.eye_x + f.eye_w, f.eye_h + 3.5
    for side in (-1, 1):
        def line(points, width, alpha):
            pen.stroke(_both(points, side), ink, width, strong * alpha)
        line([(3.2, f.brow_y + 6), (3.8, f.brow_y), (3, f.brow_y - 7)], 1.6, .8 * max(0, f.forehead - .2))
        line([(f.nose_w + 2.5, f.nose_y - 5), (f.nose_w + 8 + 2 * shot.smile, f.nose_y + 6),
            (f.mouth_w + 5.5, f.mouth_y - 6), (f.mouth_w + 6, f.mouth_y + 1 + 7 * f.folds)],
            1.4 + 1.8 * f.folds, fold)
        line([(f.mouth_w + 2, f.mouth_y + 5), (f.mouth_w + 4.5, f.mouth_y + 12),
            (f.mouth_w + 3.5, f.mouth_y + 20)], 1.3 + 1.6 * f.sag, .9 * f.sag)
        grow = .55 + .6 * f.crow
        for i, (dx, dy) in enumerate(((9, -7), (11, 0), (9.5, 7), (6, 12))):
            amount = np.clip(f.crow * 1.9 - i * .28, 0, 1) * (.8 + .3 * smile)
            line([(outer + 3, dy * .25 + 1), (outer + 3 + dx * grow * .5, dy * .55 + 1),
                (outer + 3 + dx * grow, dy * grow + 1.5)], 1.1 + .8 * f.crow, .85 * amount)
        x, w = f.eye_x, f.eye_w
        pen.shape(_both([(x - w * .8, under - 2), (x, under + .5), (x + w * .8, under - 2.5),
            (x + w * .5, under + 4 + 4 * f.bags), (x - w * .4, under + 4 + 4.5 * f.bags)], side),
            _mix(f.shade, (120, 80, 110), .35), .34 * f.bags)
        line([(x - w * .85, under), (x - w * .3, under + 4 + 4 * f.bags),
            (x + w * .4, under + 4 + 3.5 * f.bags), (x + w * .95, under - 1)], 1.1 + f.bags, .85 * f.bags)
        for i, (x0, y0, x1, y1) in enumerate(((.70, .75, .55, 1.35), (.80, .85, .68, 1.45),
            (.60, .98, .44, 1.36))):
            line([(W * x0, f.nose_y * y0), (W * (x0 + x1) / 2 + 2, f.nose_y * (y0 + y1) / 2),
                (W * x1, f.nose_y * y1)], 1.3, .6 * np.clip(f.fine * 1.5 - .25 * i, 0, 1))
        for x in (3, 8, 13):                            # above the lip
            line([(x, f.mouth_y - f.lip - 5.5), (x * 1.04, f.mouth_y - f.lip - 1)], 1.1, .6 * f.fine)
        line([(f.jaw * .86, f.mouth_y + 12 + 2 * f.sag), (f.jaw * .70, f.mouth_y + 16 + 3 * f.sag),
            (W * .40, f.chin - 11)], 1.6 + f.sag, .7 * f.sag)


def _beard(pen: Pen, f, who: Person) -> None:
    grown = f.adult * np.clip((f.looks - 16) / 6, 0, 1)
    if not who.beard or not grown:
        return
    colour = _mix(f.strands, (60, 40, 34), .25 * (1 - f.grey))
    alpha = (.26 if who.beard == "stubble" else .93) * grown
    w, y, nose_y = f.mouth_w, f.mouth_y, f.nose_y
    if who.beard in ("stubble", "full"):
        edge = np.array([(f.width * .985, 12), (f.jaw * 1.02, y + 3), (f.width * .40, f.chin - 3),
            (0, f.chin + (5 if who.beard == "full" else 1))])
        inner = np.array([(0, nose_y + 8), (w * .6, nose_y + 9), (w + 8, y - 3), (f.width * .70, nose_y + 12),
            (f.width * .90, 24)])
        edge = pen.place(np.vstack([edge, edge[-2::-1] * (-1, 1)]), "rim")
        inner = pen.place(np.vstack([inner[::-1] * (-1, 1), inner[1:]]), "face")
        pen.fill(np.vstack([edge, inner]), colour, alpha)
    if who.beard == "goatee":
        pen.shape([(-w * .7, y + 11), (0, y + 9), (w * .7, y + 11), (w * .65, f.chin - 5), (0, f.chin + 2),
            (-w * .65, f.chin - 5)], colour, alpha)
    if who.beard in ("moustache", "goatee"):
        pen.shape([(-w * 1.12, y + 3), (-w * .75, y - 8), (-4, nose_y + 9), (4, nose_y + 9), (w * .75, y - 8),
            (w * 1.12, y + 3), (w * .6, y - 3.5), (0, y - 4), (-w * .6, y - 3.5)], colour, alpha)


def _nose(pen: Pen, f, shot: Shot) -> None:
    y, w, grown = f.nose_y, f.nose_w, min(f.looks / 18, 1)
    dim = -1 if shot.light_x > 0 else 1                 # the shaded side
    pen.shape([(dim * 3.5, 2), (dim * 6, y * .6), (dim * (w + .5), y - 1), (dim * w * .6, y + 3),
        (0, y + 3.5), (dim, y * .6)], f.shade, .16 + .26 * grown)
    pen.stroke([(-dim * 1.5, 6), (-dim * 2, y * .6), (-dim * 2.2, y - 6)], f.light, 3.2, .30 * grown)
    pen.glow(-dim * 1.5, y - 3, w * .45, w * .38, f.light, .30)
    for side in (-1, 1):
        pen.stroke(_both([(w * .86, y - 5.5), (w * 1.08, y - .5), (w * .72, y + 2.6)], side), f.ink, 1.5,
            .30 + .45 * grown)
        pen.oval(side * w * .42, y + 2.2, w * .20, 1.5, f.ink, .8)
    pen.stroke([(-w * .35, y + 3.4), (0, y + 4.8), (w * .35, y + 3.4)], f.ink, 1.4, .55)


def _mouth(pen: Pen, f, who: Person, shot: Shot) -> None:
    smile, lip, inside = shot.smile, f.lip, (92, 30, 36)
    colour = _mix(f.lips, ((196, 46, 62), (206, 84, 96), (150, 44, 64))[who.marks % 3], .75 * f.made_up)
    w = f.mouth_w * (1 + .16 * max(smile, 0) - .12 * shot.opened * (smile < .3))
    gap = shot.opened * (9 + 5 * min(f.looks / 18, 1))
    rise, y = -4.5 * smile, f.mouth_y + 1.8 * smile     # of the corners; the middle of the mouth
    left, right = (-w, f.mouth_y + rise), (w, f.mouth_y + rise)
    low = y + gap
    if gap > 1:
        pen.shape([left, (-w * .5, y - 1), (0, y - .6), (w * .5, y - 1), right, (w * .55, y + gap * .85),
            (0, low), (-w * .55, y + gap * .85)], inside)
        if f.looks > .8:                                # teeth, first few, then with a gap, then yellower
            tall, few = min(gap * .45, 4.6), w * (.78 if f.looks > 3 else .35)
            pen.shape([(-few, y - .6 + rise * .5), (0, y - .4), (few, y - .6 + rise * .5),
                (few * .8, y + tall), (0, y + tall * 1.15), (-few * .8, y + tall)],
                _mix((252, 250, 246), (226, 208, 172), f.looks / 110))
            if 5.6 < f.looks < 8.2:
                pen.shape([(1, y - .5), (5, y - .5), (5, y + tall + 1), (1, y + tall + 1)], inside,
                    smooth=False)
        if gap > 7:
            pen.oval(0, y + gap * .82, w * .36, gap * .20, (206, 98, 98))
    pen.shape([left, (-w * .45, y - lip * .85), (-w * .16, y - lip), (0, y - lip * .74), (w * .16, y - lip),
        (w * .45, y - lip * .85), right, (w * .5, y - .4), (0, y + .2), (-w * .5, y - .4)],
        _mix(colour, f.shade, .22))
    pen.shape([left, (-w * .5, low - .2), (0, low + .3), (w * .5, low - .2), right, (w * .52, low + lip * .9),
        (0, low + lip * 1.35), (-w * .52, low + lip * .9)], colour)
    pen.oval(-w * .12, low + lip * .62, w * .26, lip * .2, (255, 240, 236), .28)
    if gap <= 1:
        pen.stroke([left, (-w * .4, y), (0, y + .5), (w * .4, y), right], f.ink, 1.7, .85, taper=.6)
    under = low + lip * 1.35 + 3
    pen.stroke([(-w * .4, under), (0, under + 1.2), (w * .4, under)], f.shade, 2, .5)


def _eye(pen: Pen, f, who: Person, shot: Shot, side: int) -> None:
    x, w, h, droop = f.eye_x, f.eye_w, f.eye_h, 2.6 * f.sag
    inner, outer = (x - w, 1.6), (x + w, -.4 + .9 * who.brow_tilt - (who.race == 2) + droop)
    lash = _mix((40, 26, 26), f.strands, .2)
    if shot.closed_eyes:
        pen.stroke(_both([inner, (x - w * .4, h * .55), (x + w * .4, h * .55), outer], side), lash, 2.4, .95,
            taper=.5)
    else:
        upper = [(x - w * .55, -h * .72), (x, -h), (x + w * .5, -h * .80 + droop * .7)]
        lower = [(x + w * .5, h * .62 + droop * .3), (x, h * .80), (x - w * .5, h * .62)]
        if f.made_up:
            lid = [inner, (x - w * .5, -h * 1.35), (x, -h * 1.75), (x + w * .7, -h * 1.4),
                (x + w * 1.15, -.5)]
            shadow = ((120, 84, 140), (150, 92, 76), (86, 110, 140))[who.marks % 3]
            pen.shape(_both([*lid, *upper[::-1]], side), shadow, .4 * f.made_up)
        white = [inner, *upper, outer, *lower]
        pen.shape(_both(white, side), _mix((252, 251, 248), (240, 226, 206), .55 * f.spots))
        _iris(pen, f, who, shot, side, white)
        fine = max(f.fem, 0) * f.adult
        pen.stroke(_both([inner, *upper, outer], side), lash, 2 + .9 * fine + 1.2 * f.made_up, .95, taper=.35)
        pen.stroke(_both([outer, *lower, inner], side), _mix(lash, f.skin, .45), 1.1, .75)
        size = .35 + .5 * fine + .6 * f.made_up
        for share in (.45, .75, 1):
            root = (x + w * share, -h * (1 - share ** 2 * .9) + droop * share)
            pen.stroke(_both(np.array([(-1, 0), (1.6 * size, -1.6 * size), (3.4 * size, -2.4 * size)]) + root,
                side), lash, 1.5, min(1, .5 + size / 2))
    lift = h * 1.38 - 1.5 * f.sag
    pen.stroke(_both([(x - w * .85, -h * .55), (x - w * .2, -lift), (x + w * .6, -lift * .84 + droop),
        (x + w * 1.12, -.5 + droop * 1.6)], side), f.ink, 1.2 + .9 * f.sag,
        (.30 + .45 * f.sag) * (.6 if who.race == 2 else 1))
    if f.sag > .25:                                     # the lid hangs over the outer corner
        pen.shape(_both([(x - w * .1, -h * 1.25), (x + w * .6, -h * 1.05), (x + w * 1.15, droop),
            (x + w * 1.2, droop + 2.2), (x + w * .7, -h * .45 + droop * .5), (x + w * .1, -h * .8)], side),
            _mix(f.skin, f.shade, .35), min(1, (f.sag - .25) * 1.3))


def _iris(pen: Pen, f, who: Person, shot: Shot, side: int, white) -> None:
    """Iris and pupil, cut off by the lids."""
    outline = _curve(pen.place(_both(white, side), "face"), closed=True)
    corner = np.floor(outline.min(0)).astype(int) - 1
    size = np.ceil(outline.max(0)).astype(int) + 2 - corner
    mask = Image.new("L", tuple(size.tolist()), 0)
    ImageDraw.Draw(mask).polygon((outline - corner).ravel().tolist(), fill=255)
    patch = pen.image.crop((*corner.tolist(), *(corner + size).tolist()))
    draw = ImageDraw.Draw(patch)
    centre = pen.place([(side * f.eye_x, -f.eye_h * .14)], "face")[0] + (shot.gaze * 3 * pen.unit, 0) - corner
    colour = _mix(EYES[who.eyes], (150, 165, 178), .30 * f.spots)

    def disc(radius, fill, shift=(0, 0)):
        radius, middle = radius * f.iris * pen.unit, centre + np.array(shift) * f.iris * pen.unit
        draw.ellipse([*(middle - radius), *(middle + radius)], fill=fill)
    disc(1, _mix(colour, (20, 14, 20), .45))
    disc(.84, colour)
    disc(.46, (24, 18, 20))
    disc(.24, (255, 255, 255), (.30 if shot.light_x > 0 else -.30, -.34))
    pen.image.paste(patch, tuple(corner.tolist()), mask)


def _brow(pen: Pen, f, who: Person, side: int) -> None:
    x, w, y, fem = f.eye_x, f.eye_w, f.brow_y, f.fem
    colour = _mix(_mix(f.dyed, (40, 28, 26), .35), _mix((150, 148, 148), (226, 224, 222),
        (f.looks - 60) / 30), f.grey * .9)
    points = [(x - w * .95, y + 1.5 - .6 * who.brow_tilt), (x - w * .1, y - 2.2 - .8 * fem),
        (x + w * .6, y - 2 - .6 * fem), (x + w * 1.12, y + 2 + 3 * f.sag + .8 * who.brow_tilt)]
    pen.stroke(_both(points, side), colour, 1.55 * f.brow_t * (1 - .24 * fem) * (1 + .12 * who.nose),
        min(.95, .35 + f.brow_t / 5.5), taper=.72)


def _hair(pen: Pen, f, who: Person, shot: Shot) -> None:
    """The hair in front: the cap with its hairline, strands, and the locks beside the face."""
    W, top, line, fringe = f.width, f.top, f.line, f.brow_y - 6
    alpha, rise, end = min(1, f.hair * 1.05), f.thick * (1 - .92 * f.bald), 8 + 10 * min(f.length, .4)
    # The hairline from the viewer's right to left: x as a share of the width, then y by style.
    x = np.array([.93, .82, .60, .30, 0, -.30, -.60, -.82, -.93])
    styles = {"fringe": [-6, -24, fringe + 2, fringe - 1, fringe - 2, fringe - 1, fringe + 2, -24, -6],
              "side": [-6, -22, line + 12, line + 2, line - 4, line - 9, line + 2, -26, -6],
              "centre": [-4, -18, line + 10, line - 2, line - 12, line - 2, line + 10, -18, -4],
              "back": [-8, -30, line + 2, line - 5, line - 5, line - 5, line + 2, -30, -8]}
    y = np.array(styles[who.style if f.looks > 2.5 else "back"])
    skull = top * np.sqrt(np.clip(1 - np.abs(x) ** 2.3, 0, 1))
    first = np.array([0, .63, 1.56, 1.38, 1.25, 1.38, 1.56, .63, 0])                   # temples recede first
    away = np.clip(f.bald * first, 0, 1)
    y = y * (1 - away) + (skull - 1) * away
    half = np.array([(-W - rise * .35 - 1, end), (-W - f.thick * .55, top * .36),
        (-W * .86 - rise * .55, top * .72 - rise * .3), (-W * .5, top * .955 - rise * .9), (0, top - rise)])
    outer = np.vstack([half, half[-2::-1] * (-1, 1)])
    if f.curly:
        ring = _curve(outer, closed=False, steps=3)
        for px, py in ring[np.abs(ring[:, 0]) > W * .75 * (f.bald > .35)][::2] * .98:
            pen.oval(px, py, 7 + f.thick * .3, 7 + f.thick * .3, f.strands, alpha, "rim")
    sideburn = (W * .965, end - 2)
    pen.shape(np.vstack([outer, sideburn, np.column_stack([x * W, y]), _both([sideburn], -1)]), f.strands,
        alpha, "rim")
    if f.hair > .3:
        for share in np.random.default_rng(who.marks + 1).uniform(-.85, .85, 9):
            if abs(share) < .75 and f.bald > .3:
                continue
            start = np.array((share * W * .55, top - rise * .5 + 10 * abs(share)))
            stop = np.array((share * W * .95, np.interp(-share, -x, y) - 3))
            pen.stroke([start, (start + stop) / 2 + (7 * np.sign(share), 0), stop],
                f.strands_light if share * shot.light_x > 0 else f.strands_dark, 2.2, .45 * alpha, "rim")
    for side in (-1, 1):
        if .08 < f.grey < .9:                           # white first at the temples
            for i in range(4):
                pen.stroke(_both([(W * (.86 + .03 * i), -32 + 2 * i), (W * (.93 + .03 * i), -16),
                    (W * (.96 + .02 * i), end - 6)], side), (226, 225, 224), 1.6, .75 * min(1, f.grey * 1.6),
                    "rim")
        if f.loose > .38 and f.bald < .6:
            near, far, fall = W * (.98 if who.hair_wish > 0 else .92), f.spread, f.fall
            pen.shape(_both([(W * .55, top * .80), (W * .80, -30), (near, 6), (near, fall * .55),
                (W * .90, fall - 4), (W + 4, fall + 2), (far - 2, fall - 3), (far, fall * .55),
                (far - 2, -10), (W * .9 + f.thick * .6, top * .62)], side), f.strands, alpha, "rim")
            for share, colour in ((.3, f.strands_dark), (.65, f.strands_light)):
                middle = near + (far - near) * share
                pen.stroke(_both([(W * .9, -28), (middle, 4), (middle + 1, fall * .55),
                    (middle - 1, fall - 8)], side), colour, 2.2, .5 * alpha, "rim")
            if f.curly:
                for k in np.linspace(-25, fall, 7):
                    pen.oval(side * (W + f.thick * .5 + 4), k, 10, 10, f.strands, alpha, "rim")


def _glasses(pen: Pen, f, who: Person) -> None:
    colour = ((40, 36, 40), (96, 60, 44), (150, 120, 70), (60, 70, 110))[who.marks % 4]
    rx, ry = f.eye_w * 1.35, max(f.eye_h * 1.55, 11.5)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.column_stack([np.cos(angle), np.sin(angle)])
    ring = np.sign(ring) * np.abs(ring) ** (.7 if who.marks % 2 else 1) * (rx, ry)     # squarish or round
    for side in (-1, 1):
        glass = ring + (side * (f.eye_x + 1), 2)
        pen.shape(glass, (235, 245, 255), .14)
        pen.stroke(np.vstack([glass, glass[:2]]), colour, 2.4, taper=0)
        pen.stroke([(side * (f.eye_x + rx + 1), 0), (side * f.width * .97, -3)], colour, 2.4, taper=0)
    pen.stroke([(rx - f.eye_x - 1, 0), (0, -3), (f.eye_x - rx + 1, 0)], colour, 2.4, taper=0)


def _hat(pen: Pen, f, shot: Shot) -> None:
    colour = CLOTHES[(shot.clothes + 3) % len(CLOTHES)]
    dark = _mix(colour, (20, 16, 30), .25)
    W, high, low = f.width, f.top - f.thick - 6, f.line + 8
    half = [(W * .62, f.top + (high - f.top) * .7), (W + 5, f.top * .5), (W + 5, low + 8), (W * .5, low + 2)]
    pen.shape([(0, high), *half, (0, low), *_both(half[::-1], -1)], colour, 1, "rim")
    if shot.hat == "beanie":
        half = [(W * .5, low - 13), (W + 6, low - 6), (W + 6, low + 10), (W * .5, low + 3)]
        pen.shape([(0, low - 15), *half, (0, low + 1), *_both(half[::-1], -1)], dark, 1, "rim")
    else:                                               # the peak of a cap
        half = [(W * .5, low - 7), (W * .95, low + 6), (W * .5, low + 5)]
        pen.shape([(0, low - 10), *half, (0, low + 3), *_both(half[::-1], -1)], dark)


def _light(image: Image.Image, outline: np.ndarray, shot: Shot, width: float) -> Image.Image:
    """Reduce to FRAME; put a shadow on the side of the head away from the light, and tint the whole."""
    image = image.resize((FRAME, FRAME), Image.Resampling.BOX)
    outline = outline / SCALE
    shift = np.array([shot.light_x, -.6 * abs(shot.light_y)]) * width * .30 * shot.zoom
    mask = Image.new("L", (FRAME, FRAME), 0)
    draw = ImageDraw.Draw(mask)
    draw.polygon(outline.ravel().tolist(), fill=255)
    middle = outline.mean(0)
    draw.polygon(((outline - middle) * 1.02 + middle + shift).ravel().tolist(), fill=0)
    mask = np.asarray(mask.filter(ImageFilter.GaussianBlur(3)), np.float32)[..., None] / 255
    across = np.linspace(-1, 1, FRAME, dtype=np.float32)
    lamp = 1 + .35 * shot.shadow * (across * shot.light_x + across[:, None] * shot.light_y)[..., None]
    factor = (1 - mask * shot.shadow * np.array([.85, 1, .95], np.float32)) * lamp
    factor *= 1 + shot.warm * np.array([.06, .01, -.07], np.float32)
    return Image.fromarray(np.clip(np.asarray(image, np.float32) * factor, 0, 255).astype(np.uint8))


def photograph(who: Person, shot: Shot, age: float, size: int) -> bytes:
    """One picture as the bytes of a JPEG file of `size` x `size` pixels, with the flaws of its `shot`."""
    image = paint(who, shot, age)
    if size != FRAME:
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    if shot.blur > .3:
        image = image.filter(ImageFilter.GaussianBlur(shot.blur * size / FRAME))
    grain = np.random.default_rng(shot.texture).standard_normal((size, size, 1), np.float32) * shot.noise
    pixels = np.asarray(image, np.float32) * shot.brightness + grain
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if shot.grey:
        image = ImageOps.grayscale(image).convert("RGB")
    return jpeg(image, shot.quality)


def jpeg(image: Image.Image, quality: int) -> bytes:
    """The bytes of a JPEG file of `image`."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()
