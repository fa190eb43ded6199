"""Which way triangles face: made alike on every surface, before a winding number is asked what is inside.

A *piece* is what hangs together by edges of exactly two triangles. On one whose triangles already agree nothing is changed,
unless it is closed and faces inward without another closed piece around it: then it and what is in it are turned over. So a
cavity, a closed piece in another that faces inward, stays one.
"""

import igl
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

MAJORITY = 3 / 4  # of a piece's area that faces one way decides which way it was meant; less decides nothing
PROBES = 64  # vertices of a piece that are asked whether they are in another


WELD = (
    2e-6  # of a mesh in the unit sphere: nearer vertices at edges that lack a neighbour are one that was rounded twice
)


class OneSidedError(ValueError):
    """A surface has one side, as a Möbius strip has: nothing is inside."""


def faces_alike(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return triangles (F, 3) such that those of one surface face the same way and closed surfaces outward, cavities inward.

    A double-sided surface, with every triangle in both directions, becomes single. Raise OneSidedError if a surface cannot
    face one way.
    """
    faces = single_sided(faces)
    turned, labels = turn_alike(faces)
    changed = np.bincount(labels, turned) > 0
    normals = cross_products(vertices, faces)
    areas = np.linalg.norm(normals, axis=1)
    over = np.bincount(labels, areas * turned) / np.maximum(np.bincount(labels, areas), np.finfo(float).tiny)
    # How the triangles now face: 1 as they were meant to, -1 the other way, 0 unknown.
    meant = np.select([over <= 1 - MAJORITY, over >= MAJORITY], [1, -1])
    faces = np.where(turned[:, None], faces[:, ::-1], faces)
    closed, sign = is_closed(faces, labels), volume_signs(vertices, faces, labels)
    over_again = ~closed & changed & (meant + (meant == 0) * sign < 0)  # surfaces with a hole, and sheets
    if (closed & ((meant != 1) | (sign < 0))).any():
        chosen = np.flatnonzero(closed)
        over_again[chosen] = turned_outward(vertices, faces, labels, chosen, sign, meant)
    return np.where(over_again[labels][:, None], faces[:, ::-1], faces)


def welded(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return triangles (F, 3) in which vertices at open edges that are nearer than WELD have one number.

    Parts that were rounded or moved apart would else be surfaces of their own, which may face either way.
    """
    numbers, _ = edges_of(faces)
    open_edges = np.bincount(numbers.ravel()) == 1
    at_edges = open_edges[numbers]  # (F, 3)
    ends = np.unique(np.concatenate([faces[at_edges], np.roll(faces, -1, axis=1)[at_edges]]))
    if not len(ends):
        return faces
    pairs = cKDTree(vertices[ends]).query_pairs(WELD, output_type="ndarray")
    if not len(pairs):
        return faces
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (len(ends), len(ends)))
    labels = connected_components(graph, directed=False)[1]
    _, first = np.unique(labels, return_index=True)
    new = np.arange(len(vertices))
    new[ends] = ends[first[labels]]
    return new[faces]


def cross_products(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return twice the area of each triangle, along its normal (F, 3)."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


def edges_of(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number (F, 3) of each triangle's edges, whichever way they go, and whether each goes up (F, 3)."""
    ends = np.stack([faces, np.roll(faces, -1, axis=1)], axis=2)  # (F, 3, 2)
    low, high = ends.min(axis=2), ends.max(axis=2)
    _, numbers = np.unique(low * (faces.max() + 1) + high, return_inverse=True)
    return numbers.reshape(faces.shape), ends[..., 0] < ends[..., 1]


def single_sided(faces: np.ndarray) -> np.ndarray:
    """Return the triangles, each once where all come in both directions, or where once each they close a surface."""
    _, first, inverse, counts = np.unique(
        np.sort(faces, axis=1), axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    if counts.max() == 1:
        return faces
    once = np.sort(first)
    if is_double(faces, inverse.reshape(-1), len(first)).all():
        return faces[once]
    numbers, _ = edges_of(faces)
    labels = components(numbers, np.ones(numbers.max() + 1, bool))
    open_edge = np.bincount(numbers[once].ravel(), minlength=numbers.max() + 1) != 2
    leaky = np.zeros(labels.max() + 1, bool)
    np.logical_or.at(leaky, labels[once], open_edge[numbers[once]].any(axis=1))
    keep = leaky[labels]
    keep[once] = True
    return faces[keep]


def is_double(faces: np.ndarray, which: np.ndarray, num: int) -> np.ndarray:
    """Return for each of `num` triangles, of which `which` (F,) says who is where, whether it comes in both directions."""
    smallest = faces.argmin(axis=1)
    rolled = np.take_along_axis(faces, (smallest[:, None] + np.arange(3)) % 3, axis=1)
    up = rolled[:, 1] < rolled[:, 2]
    has_up, has_down = (np.bincount(which[each], minlength=num) > 0 for each in (up, ~up))
    return has_up & has_down


def components(numbers: np.ndarray, joins: np.ndarray) -> np.ndarray:
    """Return a label (F,) for triangles that hang together by the edges, numbered (F, 3), of which `joins` is true."""
    num, edges = len(numbers), len(joins)
    chosen = joins[numbers]
    rows = np.repeat(np.arange(num), 3)[chosen.ravel()]
    graph = coo_array((np.ones(len(rows), bool), (rows, num + numbers[chosen])), (num + edges, num + edges))
    labels = connected_components(graph, directed=False)[1][:num]
    return np.unique(labels, return_inverse=True)[1].reshape(-1)


def turn_alike(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which triangles (F,) to turn over so that pieces face one way, and each one's piece (F,).

    Raise OneSidedError if a piece cannot.
    """
    num = len(faces)
    numbers, up = edges_of(faces)
    order = np.argsort(numbers.ravel(), kind="stable")
    counts = np.bincount(numbers.ravel())
    starts = (np.cumsum(counts) - counts)[counts == 2]
    one, two = order[starts], order[starts + 1]
    against = up.ravel()[one] == up.ravel()[two]  # two neighbours that agree go along their edge in opposite directions
    one, two = one // 3, two // 3
    # Every triangle is there twice, as it is and turned over (+ num): neighbours that agree are joined as they are.
    across = num * against
    rows, columns = np.concatenate([one, one + num]), np.concatenate([two + across, two + num - across])
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), (2 * num, 2 * num))
    both = connected_components(graph, directed=False)[1]
    given, over = both[:num], both[num:]
    if (given == over).any():
        raise OneSidedError
    pieces = np.minimum(given, over)
    return given != pieces, np.unique(pieces, return_inverse=True)[1].reshape(-1)


def is_closed(faces: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return which pieces (P,) are closed: as many of their triangles go along each edge one way as the other."""
    numbers, up = edges_of(faces)
    _, edges = np.unique(labels[:, None] * (numbers.max() + 1) + numbers, return_inverse=True)
    balance = np.bincount(edges.ravel(), np.where(up, 1, -1).ravel())
    return np.bincount(labels, (balance[edges.reshape(faces.shape)] != 0).any(axis=1)) == 0


def volume_signs(vertices: np.ndarray, faces: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the sign (P,) of each piece's volume, seen from the centre of its area: 1 if it faces outward."""
    normals, centres = cross_products(vertices, faces), vertices[faces].mean(axis=1)
    areas = np.linalg.norm(normals, axis=1)
    total = np.maximum(np.bincount(labels, areas), np.finfo(float).tiny)
    middle = np.stack([np.bincount(labels, areas * centres[:, i]) / total for i in range(3)], axis=1)
    return np.sign(np.bincount(labels, np.einsum("ni,ni->n", centres - middle[labels], normals)))


def turned_outward(
    vertices: np.ndarray, faces: np.ndarray, labels: np.ndarray, closed: np.ndarray, sign: np.ndarray, meant: np.ndarray
) -> np.ndarray:
    """Return which of the closed pieces, labels (C,), to turn over: the outermost must face outward, others as they were meant.

    What is in a piece keeps its way relative to it. Where nobody knows which way a piece was meant, pieces in each other face
    outward and inward by turns.
    """
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], closed, side="right")
    of = [faces[order[start:end]] for start, end in zip(np.searchsorted(labels[order], closed), ends)]
    lower = np.array([vertices[each].min((0, 1)) for each in of])
    upper = np.array([vertices[each].max((0, 1)) for each in of])
    around: list[list[int]] = [[] for _ in of]
    for j in np.argsort(-(upper - lower).prod(axis=1), kind="stable"):  # the largest first
        candidates = np.flatnonzero((lower > lower[j]).all(axis=1) & (upper < upper[j]).all(axis=1))
        if not len(candidates):
            continue
        probes = [np.unique(of[i])[:PROBES] for i in candidates]
        winding = np.abs(igl.fast_winding_number(vertices, of[j], vertices[np.concatenate(probes)]))
        for i, inside in zip(candidates, np.split(winding > 0.5, np.cumsum([len(each) for each in probes])[:-1])):
            if inside.all():
                around[i].append(j)
    outward = (sign * meant)[closed]  # as they were meant: 1, inward -1, unknown 0
    desired = [
        outward[i] * (outward[within[0]] or 1) if within and outward[i] else (-1) ** len(within)
        for i, within in enumerate(around)
    ]
    return sign[closed] * np.array(desired) < 0
