"""Pictures that show the same photograph: found, grouped, and their labels compared.

A copy in the test part of a face whose twin was trained on makes any result look better than it is, and
two labels of one photograph tell how noisy labels are. Copies are found in three steps:

1. equal bytes, by digest;
2. candidates by perceptual hash: the 64-bit pHash of ``imagehash`` (signs of the low frequencies of a cosine
   transform), of each picture as it is, cropped, mirrored and both, within a Hamming radius of any other
   picture. Neighbours come from an index over parts of the hash, never from an n x n matrix;
3. each candidate is checked on the thumbnails, after the one picture was fitted to the other by a small
   shift, scale and rotation (to first order: the tangent distance of Simard, LeCun and Denker, 1993). Aligned
   faces of different people agree in their coarse structure, so only fine detail is compared; and what many
   pictures of the set have in common (hairlines, say) counts for less (Mahalanobis' metric).

The thresholds were chosen by looking at pairs of UTKFace, where every pair looked at above them showed one
photograph, and on drawn faces, which are more alike than photographs and need the higher similarity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.fft import dct
from scipy.ndimage import uniform_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from threadpoolctl import threadpool_limits

SIDE = 64          # of a thumbnail, pixels
RADIUS = 8         # hashes that differ in at most this many of 64 bits are candidates
SIMILARITY = 0.88  # correlation of fine detail from which two pictures are one photograph
CROP = 0.03        # cut from each side for the cropped hash: the middle of the 2-4 % to be recognised
FLAT = 0.5         # grey levels: pictures whose fine detail deviates less have nothing to compare by
COMMON = 0.01      # share of all detail from which on a direction counts for less; chosen with SIMILARITY
BLOCK = 512        # pictures, then pairs, handled at once: bounds the memory

_PAIRS = {"i": "int64", "j": "int64", "kind": "str", "similarity": "float64"}


@dataclass(frozen=True)
class Duplicates:
    """What `find` found among n pictures."""

    group: np.ndarray    # int64 (n,): position of the first picture of the group (its own, if it is alone)
    pairs: pd.DataFrame  # i < j (positions), kind (identical | near | mirrored), similarity (up to 1)


def find(
    thumbs: np.ndarray, digests: Sequence[str], radius: int = RADIUS, similarity: float = SIMILARITY
) -> Duplicates:
    """Find pictures that are copies of each other, also re-encoded, resized, cropped, brightened or mirrored.

    Parameters
    ----------
    thumbs : uint8 (n, 64, 64), grey; each picture resized from its original. May be a memory map.
    digests : n hex digests of the files' bytes.
    radius : bits in which the hashes of candidates may differ.
    similarity : least correlation of fine detail (-1 to 1) of copies.

    Of byte-identical files each is paired with the first, and only the first is compared with other pictures.
    Pictures without detail (one colour) are compared by their bytes only.
    """
    n = len(thumbs)
    if thumbs.shape != (n, SIDE, SIDE) or thumbs.dtype != np.uint8:
        raise ValueError(f"thumbs: expected uint8 (n, {SIDE}, {SIDE}), got {thumbs.dtype} {thumbs.shape}")
    if len(digests) != n:
        raise ValueError(f"digests: expected one per thumbnail, {n}, got {len(digests)}")
    if not 0 <= radius < 32:
        raise ValueError(f"radius: expected 0 to 31 bits, got {radius}")
    first = same_bytes(digests)
    copies = np.flatnonzero(first != np.arange(n))
    found = [pd.DataFrame({"i": first[copies], "j": copies, "kind": "identical", "similarity": 1.0})]
    with threadpool_limits(1):  # small products: on a busy machine more threads only wait for each other
        found += _alike(thumbs, np.flatnonzero(first == np.arange(n)), radius, similarity)
    pairs = pd.concat(found).sort_values(["i", "j", "similarity"], ascending=[True, True, False])
    pairs = pairs.drop_duplicates(["i", "j"]).reset_index(drop=True).astype(_PAIRS)
    return Duplicates(components(n, pairs.i, pairs.j), pairs)


def same_bytes(digests: Sequence[str]) -> np.ndarray:
    """Groups of byte-identical files alone: int64 (n,), the position of the first file with that digest."""
    codes, values = pd.factorize(np.asarray(digests, dtype=object), use_na_sentinel=False)
    first = np.full(len(values), len(codes), dtype=np.int64)
    np.minimum.at(first, codes, np.arange(len(codes)))
    return first[codes]


def hashes(thumbs: np.ndarray, crop: float = 0.0) -> np.ndarray:
    """The 64 bits of each thumbnail's pHash: bool (n, 64), after `crop` (a share) is cut from each side.

    Equal to ``imagehash.phash(thumb, hash_size=8, highfreq_factor=8)``, for all pictures at once.
    """
    low = dct(np.eye(SIDE), axis=0)[:8] @ _cropping(crop)
    bits = np.empty((len(thumbs), 64), dtype=bool)
    for start in range(0, len(thumbs), BLOCK):
        waves = (low @ thumbs[start:start + BLOCK].astype(np.float64) @ low.T).reshape(-1, 64)
        bits[start:start + BLOCK] = waves > np.median(waves, axis=1, keepdims=True)
    return bits


def _cropping(share: float) -> np.ndarray:
    """(64, 64): takes the middle of an axis, `share` cut off at both ends, back to 64 points, linearly."""
    at = np.clip((np.arange(SIDE) + 0.5) * (1 - 2 * share) + share * SIDE - 0.5, 0, SIDE - 1)
    left = np.minimum(at.astype(int), SIDE - 2)
    matrix = np.zeros((SIDE, SIDE))
    matrix[np.arange(SIDE), left] = left + 1 - at
    matrix[np.arange(SIDE), left + 1] = at - left
    return matrix


def _alike(thumbs: np.ndarray, which: np.ndarray, radius: int, similarity: float) -> Iterator[pd.DataFrame]:
    """Pairs (i < j) among the pictures at the positions `which` that show one photograph, block by block."""
    blocks = [which[start:start + BLOCK] for start in range(0, len(which), BLOCK)]
    if not blocks:
        return
    flat, metric = _survey(thumbs, blocks)
    which = which[~flat]
    index = _Index(np.concatenate([hashes(thumbs[b]) for b in blocks])[~flat], radius)
    for start in range(0, len(which), BLOCK):
        block = thumbs[which[start:start + BLOCK]]
        for kind, seen in (("near", block), ("mirrored", np.ascontiguousarray(block[:, :, ::-1]))):
            for crop in (0.0, CROP):
                q, j = index.near(hashes(seen, crop))
                # as it is, a pair is met from both sides; cropped, either may be the crop of the other
                keep = q + start < j if crop == 0 else q + start != j
                q, j = q[keep], j[keep]
                cut = _cropping(crop).astype(np.float32)
                looks = _small(seen if crop == 0 else cut @ seen.astype(np.float32) @ cut.T)
                for s in range(0, len(q), BLOCK):
                    a, b = q[s:s + BLOCK], j[s:s + BLOCK]
                    ours, theirs = _fitted(looks[a], _small(thumbs[which[b]]))
                    a, b = which[a + start], which[b]
                    # the metric hardly ever raises a correlation, and most candidates are far off without it
                    some = np.flatnonzero(_correlation(ours, theirs) > similarity - 0.1)
                    score = _correlation(ours[some] @ metric, theirs[some] @ metric)
                    pairs = pd.DataFrame({"i": np.minimum(a, b)[some], "j": np.maximum(a, b)[some],
                                          "kind": kind, "similarity": score.clip(max=1)})
                    yield pairs[pairs["similarity"] >= similarity]


def _survey(thumbs: np.ndarray, blocks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Which pictures are flat, and the metric for detail: bool (n,) and float32 (1024, 1024).

    Details multiplied by the metric are what is compared: directions that hold more than COMMON of
    the detail of all pictures and their mirror images are shrunk.
    """
    side = SIDE // 2
    flat, spread, n = [], np.zeros((side * side, side * side)), 0
    for block in blocks:
        detail = _detail(_small(thumbs[block]))
        flat.append(detail.std(axis=1) < FLAT)
        detail = detail[~flat[-1]]
        detail /= np.linalg.norm(detail, axis=1, keepdims=True)
        spread += detail.T @ detail
        n += len(detail)
    mirror = np.arange(side * side).reshape(side, side)[:, ::-1].ravel()
    spread = (spread + spread[np.ix_(mirror, mirror)]) / 2 / max(n, 1)
    metric = np.linalg.cholesky(np.linalg.inv(spread + COMMON * np.eye(side * side)))
    return np.concatenate(flat), metric.astype(np.float32)


class _Index:
    """Hashes that can be asked for all those within a Hamming radius.

    If two hashes differ in at most r bits, then of m parts of them with 2 m > r one differs in at most one
    (Norouzi, Punjani and Fleet, 2012). So each part is looked up as it is and with each of its bits flipped.
    """

    def __init__(self, bits: np.ndarray, radius: int):
        self.bits, self.radius, self.parts = bits, radius, radius // 2 + 1
        self.words = _words(bits)
        self.keys = [_words(bits[:, part::self.parts]) for part in range(self.parts)]
        self.order = [np.argsort(keys, kind="stable") for keys in self.keys]
        self.sorted = [keys[order] for keys, order in zip(self.keys, self.order)]

    def near(self, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For queries bool (q, 64): all pairs, each once, as positions in the queries and in the index."""
        words, n = _words(bits), len(self.words)
        hits = [np.empty(0, dtype=np.int64)]
        for part in range(self.parts):
            keys = _words(bits[:, part::self.parts])
            length = bits[:, part::self.parts].shape[1]
            for flip in [0] + [1 << bit for bit in range(length)]:
                wanted = keys ^ np.uint64(flip)
                low = np.searchsorted(self.sorted[part], wanted, "left")
                count = np.searchsorted(self.sorted[part], wanted, "right") - low
                q = np.repeat(np.arange(len(words)), count)
                j = self.order[part][np.arange(count.sum()) + np.repeat(low - count.cumsum() + count, count)]
                close = np.bitwise_count(words[q] ^ self.words[j]) <= self.radius
                hits.append(q[close] * n + j[close])
        pairs = np.unique(np.concatenate(hits))
        return pairs // max(n, 1), pairs % max(n, 1)


def _words(bits: np.ndarray) -> np.ndarray:
    """bool (n, up to 64) as one uint64 each; the first bit is the lowest."""
    return bits @ (np.uint64(1) << np.arange(bits.shape[1], dtype=np.uint64))


def _small(thumbs: np.ndarray) -> np.ndarray:
    """(n, 64, 64) as float32 (n, 32, 32): halved, which takes off what compression left."""
    thumbs = thumbs.astype(np.float32)
    rows = thumbs[:, ::2] + thumbs[:, 1::2]
    return (rows[:, :, ::2] + rows[:, :, 1::2]) / 4


def _detail(pictures: np.ndarray) -> np.ndarray:
    """(n, 32, 32) as (n, 1024): what is left when the mean of the 7 x 7 pixels around each is taken off."""
    return (pictures - uniform_filter(pictures, (0, 7, 7), mode="nearest")).reshape(len(pictures), -1)


def _fitted(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fine detail of a fitted to b, and of b: float32 (n, 1024) each, from (n, 32, 32).

    The fit is least squares over a and its derivatives by shift, scale, rotation and shear, with any
    brightness and contrast; it reaches about two pixels of a thumbnail.
    """
    n, side = len(a), a.shape[1]
    y, x = np.mgrid[-1:1:side * 1j, -1:1:side * 1j].astype(np.float32)
    dy, dx = np.gradient(a, axis=(1, 2))
    base = np.stack([a, dx, dy, x * dx, y * dy, y * dx, x * dy], axis=1).reshape(n, 7, -1)
    base -= base.mean(axis=2, keepdims=True)
    target = b.reshape(n, 1, -1)
    target = target - target.mean(axis=2, keepdims=True)
    square = base @ base.transpose(0, 2, 1)
    # a little ridge keeps pictures without edges solvable
    square += 1e-4 / 7 * np.trace(square, axis1=1, axis2=2)[:, None, None] * np.eye(7, dtype=np.float32)
    weights = np.linalg.solve(square, base @ target.transpose(0, 2, 1))
    return _detail((weights.transpose(0, 2, 1) @ base).reshape(a.shape)), _detail(b)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine (n,) of the angle between the rows of a and b; details have no mean worth taking off."""
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(size, 1e-9)


def components(n: int, i: Sequence[int], j: Sequence[int]) -> np.ndarray:
    """Connected components of n positions joined by pairs (i, j): int64 (n,), the first position of each."""
    graph = coo_array((np.ones(len(i), dtype=bool), (np.asarray(i), np.asarray(j))), shape=(n, n))
    return same_bytes(connected_components(graph, directed=False)[1]) if n else np.empty(0, dtype=np.int64)


def conflicts(table: pd.DataFrame, group: np.ndarray) -> pd.DataFrame:
    """Groups of more than one face and how far their labels agree, the most at odds first.

    `table` as `Faces.table` (file, age, gender), `group` int (n,) as from `find` or `same_bytes`. One row per
    group: group, faces, files (list of str), age_min, age_max, age_spread (years), genders_differ, conflict
    (ages or genders differ). Unknown labels contradict nothing: a group with no known age has NaN ages.
    """
    _same_length("group", table, group)
    sizes = pd.Series(group).value_counts()
    rows = table.reset_index(drop=True).assign(group=group)
    rows = rows[rows["group"].isin(sizes.index[sizes > 1])].groupby("group", sort=True)
    found = pd.DataFrame({
        "faces": rows.size(),
        "files": rows["file"].agg(list),
        "age_min": rows["age"].min(),
        "age_max": rows["age"].max(),
        "genders_differ": rows["gender"].nunique() > 1,
    }).reset_index()
    found.insert(found.columns.get_loc("age_max") + 1, "age_spread", found["age_max"] - found["age_min"])
    found["conflict"] = found["genders_differ"] | (found["age_spread"] > 0)
    return found.sort_values(["conflict", "age_spread"], ascending=False, kind="stable", ignore_index=True)


def summary(found: pd.DataFrame) -> pd.Series:
    """Counts over what `conflicts` returned: groups, faces, largest, conflicts, genders_differ, ages_differ
    (all numbers of groups or faces) and age_spread (mean over groups, years; NaN where there is none)."""
    return pd.Series({
        "groups": len(found),
        "faces": int(found["faces"].sum()),
        "largest": int(found["faces"].max()) if len(found) else 0,
        "conflicts": int(found["conflict"].sum()),
        "genders_differ": int(found["genders_differ"].sum()),
        "ages_differ": int((found["age_spread"] > 0).sum()),
        "age_spread": float(found["age_spread"].mean()),
    }, dtype=object)


def label_gaps(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """How far two labels of one photograph lie apart: the pairs of `find` with age_mean, age_gap (years, not
    negative) and gender_differs (boolean, <NA> where a gender is unknown)."""
    one, two = (table.iloc[pairs[side].to_numpy()].reset_index(drop=True) for side in "ij")
    return pairs.reset_index(drop=True).assign(
        age_mean=(one["age"] + two["age"]) / 2,
        age_gap=(one["age"] - two["age"]).abs(),
        gender_differs=one["gender"].astype("Int8") != two["gender"].astype("Int8"),
    )


def evaluate(table: pd.DataFrame, group: np.ndarray, truth: pd.DataFrame) -> pd.DataFrame:
    """Groups found against the copies planted in the drawn sample, counted in pairs of faces.

    `truth` as the sample's ``truth.csv``: file, twin_of (file of the original or empty), twin_kind. One row
    per planted kind, then "all"; columns: planted (pairs of copy and original), found (of these, in one
    group), recall = found / planted, together (pairs in one group that hold a copy of this kind; for "all",
    any pair in one group), right (of these, showing one picture), precision = right / together. NaN where
    there is nothing to divide by. Faces of `table` that are not in `truth` are an error; planted copies that
    were set aside, and so are not in `table`, don't count.
    """
    _same_length("group", table, group)
    position = pd.Series(np.arange(len(table)), index=table["file"].to_numpy())
    truth = truth.fillna({"twin_of": "", "twin_kind": ""}).set_index("file")
    if missing := sorted(set(position.index) - set(truth.index)):
        raise ValueError(f"truth: no row for {len(missing)} of the faces, the first is {missing[0]!r}")
    number = pd.Series(np.arange(len(truth)), index=truth.index)
    copies = truth[truth["twin_of"] != ""]
    if missing := sorted(set(copies["twin_of"]) - set(truth.index)):
        raise ValueError(f"truth: twin_of names {missing[0]!r}, which is no file in it")
    picture = components(len(truth), number[copies.index], number[copies["twin_of"]])[number[table["file"]]]
    kind = truth.loc[table["file"], "twin_kind"].to_numpy()

    planted = copies[copies.index.isin(position.index) & copies["twin_of"].isin(position.index)]
    a, b = position[planted.index].to_numpy(), position[planted["twin_of"]].to_numpy()
    group = np.asarray(group)
    planted = pd.DataFrame({"kind": planted["twin_kind"].to_numpy(), "found": group[a] == group[b]})
    i, j = _within(group)
    together = pd.DataFrame({"a": kind[i], "b": kind[j], "right": picture[i] == picture[j]})

    rows = []
    for name in [*sorted(set(planted["kind"])), "all"]:
        some = planted if name == "all" else planted[planted["kind"] == name]
        held = together if name == "all" else together[(together["a"] == name) | (together["b"] == name)]
        rows.append({"kind": name, "planted": len(some), "found": int(some["found"].sum()),
                     "recall": some["found"].mean(), "together": len(held), "right": int(held["right"].sum()),
                     "precision": held["right"].mean()})
    return pd.DataFrame(rows).set_index("kind")


def _within(group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of positions (i, j) in one group."""
    members = pd.Series(np.arange(len(group))).groupby(group).agg(list)
    found = [np.array(m)[np.array(np.triu_indices(len(m), 1))] for m in members if len(m) > 1]
    return tuple(np.concatenate(found, axis=1)) if found else (np.empty(0, int), np.empty(0, int))


def _same_length(name: str, table: pd.DataFrame, values: np.ndarray) -> None:
    if len(values) != len(table):
        raise ValueError(f"{name}: expected one value per face, {len(table)}, got {len(values)}")
