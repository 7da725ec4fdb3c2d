"""The log's Merkle tree: hashing, growing, proving and checking, after RFC 6962 section 2.1 and RFC 9162 section 2.1.

Here are pure functions over hashes. What an entry's bytes are is decided in `events`; where the nodes are stored, in
storage. A log of n entries is kept as its entries, the roots of its perfect subtrees (the frontier, at most 63 hashes)
and every complete subtree's hash, so that appending reads one row and a proof reads at most about 2·log2(n) of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from touchmark.domain.errors import CatalogueDamagedError, EventNotFoundError, InvalidFieldError

HASH_BYTES = 32
"""The length of every hash here: SHA-256."""

GetNodes = Callable[[Sequence[tuple[int, int]]], Mapping[tuple[int, int], bytes]]
"""Fetches complete subtrees' hashes by (level, position): all that a proof needs in one call, so in one statement."""


def hash_leaf(data: bytes) -> bytes:
    """Return the leaf hash of an entry's bytes: SHA-256(0x00 || data) (RFC 6962 section 2.1)."""
    return hashlib.sha256(b"\x00" + data).digest()


def hash_nodes(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node: SHA-256(0x01 || left || right) (RFC 6962 section 2.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Node:
    """The root of a complete subtree: the leaves from `position << level` up to `(position + 1) << level`."""

    level: int
    position: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class TreeHead:
    """A tree of `size` leaves, as the roots of its perfect subtrees, largest (leftmost) first.

    The frontier holds one hash for each 1 in the binary form of `size`. Raises CatalogueDamagedError where it does not:
    a head is only ever made by `append` or read back from storage.
    """

    size: int
    frontier: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.frontier) != self.size.bit_count():
            raise CatalogueDamagedError(reason=f"the log's head does not hold the hashes of {self.size} entries")
        if any(len(part) != HASH_BYTES for part in self.frontier):
            raise CatalogueDamagedError(reason="the log's head holds a hash of the wrong length")

    @property
    def root(self) -> bytes:
        """The Merkle tree hash, 32 bytes; of the empty tree SHA-256 of nothing (RFC 6962 section 2.1)."""
        return _join(self.frontier) if self.frontier else hashlib.sha256(b"").digest()

    def to_bytes(self) -> bytes:
        """Return the frontier as it is stored: its hashes one after the other. The size is stored beside it."""
        return b"".join(self.frontier)


EMPTY_TREE = TreeHead(0, ())
"""The head of a log without entries."""


def parse_frontier(size: int, stored: bytes) -> TreeHead:
    """Return the head stored as `size` and `TreeHead.to_bytes()`. Raises CatalogueDamagedError."""
    if len(stored) % HASH_BYTES:
        raise CatalogueDamagedError(reason="the log's head holds a part of a hash")
    return TreeHead(size, tuple(stored[at : at + HASH_BYTES] for at in range(0, len(stored), HASH_BYTES)))


def append(head: TreeHead, leaf_hash: bytes) -> tuple[TreeHead, list[Node]]:
    """Return the head with one more leaf, and every subtree this leaf completes: the leaf itself first, then upwards.

    Costs two hashes on average and 63 at most. Raises InvalidFieldError if `leaf_hash` is not 32 bytes.
    """
    if len(leaf_hash) != HASH_BYTES:
        raise InvalidFieldError(field="leaf_hash", reason=f"must be {HASH_BYTES} bytes")
    frontier = list(head.frontier)
    level, position, current = 0, head.size, leaf_hash
    completed = [Node(level, position, current)]
    while position & 1:  # a right child completes its parent; the sibling is always the frontier's last
        current = hash_nodes(frontier.pop(), current)
        level, position = level + 1, position >> 1
        completed.append(Node(level, position, current))
    frontier.append(current)
    return TreeHead(head.size + 1, tuple(frontier)), completed


# ── proving ──────────────────────────────────────────────────────────────────────────────────────────────────────


def inclusion_proof(index: int, size: int, get_nodes: GetNodes) -> list[bytes]:
    """Return the audit path of leaf `index` (from 0) in the tree of the first `size` leaves (RFC 6962 section 2.1.1).

    Raises EventNotFoundError if the tree has no such leaf, and CatalogueDamagedError if a node is not there.
    """
    if not 0 <= index < size:
        raise EventNotFoundError(index=index)
    beside: list[tuple[int, int]] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            beside.append((middle, high))
            high = middle
        else:
            beside.append((low, middle))
            low = middle
    return _hash_ranges(beside[::-1], get_nodes)


def consistency_proof(old_size: int, new_size: int, get_nodes: GetNodes) -> list[bytes]:
    """Return the proof that the first `old_size` of `new_size` leaves are unchanged (RFC 6962 section 2.1.2).

    The proof is empty when the sizes are equal, and from the empty tree (RFC 6962 leaves that case out: everything
    extends nothing). Raises InvalidFieldError unless 0 <= old_size <= new_size, and CatalogueDamagedError if a node is
    not there.
    """
    if not 0 <= old_size <= new_size:
        raise InvalidFieldError(field="old_size", reason=f"must be from 0 to {new_size}")
    if old_size in (0, new_size):
        return []
    beside: list[tuple[int, int]] = []
    low, high = 0, new_size
    while high != old_size:  # ends with the subtree whose right edge is the old tree's right edge
        middle = low + _split(high - low)
        if old_size <= middle:
            beside.append((middle, high))
            high = middle
        else:
            beside.append((low, middle))
            low = middle
    if low:  # otherwise that subtree is the old tree itself, whose root the verifier holds already
        beside.append((low, high))
    return _hash_ranges(beside[::-1], get_nodes)


def root_at(size: int, get_nodes: GetNodes) -> bytes:
    """Return the root of the tree of the first `size` leaves. Raises CatalogueDamagedError if a node is not there."""
    return _hash_ranges([(0, size)], get_nodes)[0] if size else EMPTY_TREE.root


def _split(leaves: int) -> int:
    """Return the largest power of two smaller than `leaves` (at least 2): where RFC 6962 divides a tree."""
    return 1 << ((leaves - 1).bit_length() - 1)


def _cover(low: int, high: int) -> list[tuple[int, int]]:
    """Return the complete subtrees, as (level, position) from left to right, that make up a subtree of the tree."""
    parts: list[tuple[int, int]] = []
    while low < high:
        level = (high - low).bit_length() - 1
        parts.append((level, low >> level))
        low += 1 << level
    return parts


def _hash_ranges(ranges: Sequence[tuple[int, int]], get_nodes: GetNodes) -> list[bytes]:
    """Return the hash of each range of leaves. Fetches the nodes of all of them at once."""
    covers = [_cover(low, high) for low, high in ranges]
    wanted = [part for cover in covers for part in cover]
    if not wanted:
        return []
    found = get_nodes(wanted)
    for level, position in wanted:
        if len(found.get((level, position), b"")) != HASH_BYTES:
            raise CatalogueDamagedError(reason=f"the log's node {position} at level {level} is not there")
    return [_join([found[part] for part in cover]) for cover in covers]


def _join(parts: Sequence[bytes]) -> bytes:
    """Return the root over perfect subtrees given largest first."""
    root = parts[-1]
    for left in reversed(parts[:-1]):
        root = hash_nodes(left, root)
    return root


# ── checking: needs nothing but what an auditor holds ────────────────────────────────────────────────────────────


def verify_inclusion(index: int, size: int, leaf_hash: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Answer whether `proof` shows the leaf at `index` in the tree of `size` leaves (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size or not _are_hashes(leaf_hash, root, *proof):
        return False
    at, last, current = index, size - 1, leaf_hash
    for part in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            current = hash_nodes(part, current)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            current = hash_nodes(current, part)
        at, last = at >> 1, last >> 1
    return last == 0 and current == root


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Answer whether `proof` shows that the new tree begins with the old one (RFC 9162 section 2.1.4.2).

    The two cases the RFC leaves out: trees of one size are consistent if their roots are equal, and every tree extends
    the empty one; both with an empty proof.
    """
    if not 0 <= old_size <= new_size or not _are_hashes(old_root, new_root, *proof):
        return False
    if old_size == new_size:
        return not proof and old_root == new_root and (new_size > 0 or new_root == EMPTY_TREE.root)
    if old_size == 0:
        return not proof and old_root == EMPTY_TREE.root
    if not proof:
        return False
    # An old tree that is a perfect subtree is not repeated in the proof.
    path = [old_root, *proof] if old_size.bit_count() == 1 else list(proof)
    at, last = old_size - 1, new_size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = path[0]
    for part in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old, new = hash_nodes(part, old), hash_nodes(part, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = hash_nodes(new, part)
        at, last = at >> 1, last >> 1
    return last == 0 and old == old_root and new == new_root


def _are_hashes(*values: bytes) -> bool:
    # Without this a 31-byte and a 33-byte part could stand for two real hashes: their concatenation is the same.
    return all(len(value) == HASH_BYTES for value in values)
