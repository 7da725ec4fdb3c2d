"""The log's Merkle tree against published vectors, a naive tree, and tampering."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from touchmark.domain.errors import CatalogueDamagedError, EventNotFoundError, InvalidFieldError
from touchmark.domain.ledger import (
    EMPTY_TREE,
    TreeHead,
    append,
    consistency_proof,
    hash_leaf,
    hash_nodes,
    inclusion_proof,
    parse_frontier,
    verify_consistency,
    verify_inclusion,
)

# The reference inputs and roots of the certificate-transparency project's Merkle tree tests.
REFERENCE_LEAVES = [
    bytes.fromhex(text)
    for text in ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
]
REFERENCE_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# (index, size, audit path) of the same tests, with indexes from 0.
REFERENCE_PATHS: list[tuple[int, int, list[str]]] = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
REFERENCE_CONSISTENCY: list[tuple[int, int, list[str]]] = [
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]

LARGEST = 70


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, as it is written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


class Log:
    """A grown tree: its leaves, its head at every size, and the nodes that storage would hold."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = list(leaves)
        self.heads = [EMPTY_TREE]
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.calls = 0
        for leaf in leaves:
            head, completed = append(self.heads[-1], hash_leaf(leaf))
            self.heads.append(head)
            for node in completed:
                assert (node.level, node.position) not in self.nodes
                self.nodes[node.level, node.position] = node.hash

    def get_nodes(self, wanted: Sequence[tuple[int, int]]) -> Mapping[tuple[int, int], bytes]:
        self.calls += 1
        return {part: self.nodes[part] for part in wanted}


LOG = Log([f"entry {number}".encode() for number in range(LARGEST)])
REFERENCE = Log(REFERENCE_LEAVES)


def test_the_published_roots_come_out() -> None:
    assert [head.root.hex() for head in REFERENCE.heads[1:]] == REFERENCE_ROOTS


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert EMPTY_TREE.root.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(("index", "size", "path"), REFERENCE_PATHS)
def test_the_published_audit_paths_come_out(index: int, size: int, path: list[str]) -> None:
    assert [part.hex() for part in inclusion_proof(index, size, REFERENCE.get_nodes)] == path


@pytest.mark.parametrize(("old", "new", "proof"), REFERENCE_CONSISTENCY)
def test_the_published_consistency_proofs_come_out(old: int, new: int, proof: list[str]) -> None:
    assert [part.hex() for part in consistency_proof(old, new, REFERENCE.get_nodes)] == proof


def test_every_head_has_the_root_of_the_naive_tree() -> None:
    for size, head in enumerate(LOG.heads):
        assert head.size == size
        assert head.root == naive_root(LOG.leaves[:size])


def test_every_complete_subtree_is_given_out_once_with_its_naive_root() -> None:
    expected = {(level, position) for level in range(LARGEST.bit_length()) for position in range(LARGEST >> level)}
    assert set(LOG.nodes) == expected
    for (level, position), found in LOG.nodes.items():
        assert found == naive_root(LOG.leaves[position << level : (position + 1) << level])


def test_a_stored_frontier_reads_back_as_the_same_head() -> None:
    for head in LOG.heads:
        assert parse_frontier(head.size, head.to_bytes()) == head


@pytest.mark.parametrize(("size", "stored"), [(1, b""), (0, bytes(32)), (3, bytes(32)), (1, bytes(31)), (-1, b"")])
def test_a_frontier_that_does_not_fit_its_size_is_damage(size: int, stored: bytes) -> None:
    with pytest.raises(CatalogueDamagedError):
        parse_frontier(size, stored)


def test_a_frontier_of_hashes_of_wrong_length_is_damage() -> None:
    with pytest.raises(CatalogueDamagedError):
        TreeHead(3, (bytes(31), bytes(33)))


def test_a_leaf_hash_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidFieldError):
        append(EMPTY_TREE, b"not a hash")


def test_every_inclusion_proof_verifies_and_only_for_its_own_place() -> None:
    for size in range(1, LARGEST + 1):
        root = LOG.heads[size].root
        for index in range(size):
            leaf = hash_leaf(LOG.leaves[index])
            proof = inclusion_proof(index, size, LOG.get_nodes)
            assert len(proof) <= (size - 1).bit_length()
            assert verify_inclusion(index, size, leaf, proof, root)
            assert not verify_inclusion((index + 1) % (size + 1), size, leaf, proof, root)
            assert not verify_inclusion(index, size, hash_leaf(b"another"), proof, root)
            if size < LARGEST:
                assert not verify_inclusion(index, size, leaf, proof, LOG.heads[size + 1].root)


def test_every_consistency_proof_verifies_and_only_for_its_own_roots() -> None:
    other = hash_leaf(b"another")
    for new in range(LARGEST + 1):
        for old in range(new + 1):
            proof = consistency_proof(old, new, LOG.get_nodes)
            roots = LOG.heads[old].root, LOG.heads[new].root
            assert verify_consistency(old, new, *roots, proof)
            assert not verify_consistency(old, new, other, roots[1], proof)
            if old:  # the empty tree says nothing about the new root
                assert not verify_consistency(old, new, roots[0], other, proof)


def test_a_proof_asks_for_all_its_nodes_in_one_call() -> None:
    log = Log(LOG.leaves)
    inclusion_proof(40, 69, log.get_nodes)
    consistency_proof(21, 69, log.get_nodes)
    assert log.calls == 2


def test_a_proof_of_nothing_asks_for_no_node() -> None:
    log = Log(LOG.leaves)
    assert inclusion_proof(0, 1, log.get_nodes) == []
    assert consistency_proof(0, 69, log.get_nodes) == consistency_proof(69, 69, log.get_nodes) == []
    assert log.calls == 0


def spoil(proof: list[bytes]) -> list[list[bytes]]:
    """Every proof with one bit turned, one part missing, doubled or added, and two parts exchanged."""
    spoilt = [[*proof, bytes(32)], [bytes(32), *proof]]
    for at, part in enumerate(proof):
        spoilt.append([*proof[:at], bytes([part[0] ^ 1]) + part[1:], *proof[at + 1 :]])
        spoilt.append(proof[:at] + proof[at + 1 :])
        spoilt.append([*proof[:at], part, *proof[at:]])
    spoilt.extend([*proof[:at], proof[at + 1], proof[at], *proof[at + 2 :]] for at in range(len(proof) - 1))
    return spoilt


@given(st.integers(1, LARGEST).flatmap(lambda size: st.tuples(st.integers(0, size - 1), st.just(size))))
def test_a_spoilt_inclusion_proof_does_not_verify(place: tuple[int, int]) -> None:
    index, size = place
    leaf, root = hash_leaf(LOG.leaves[index]), LOG.heads[size].root
    for proof in spoil(inclusion_proof(index, size, LOG.get_nodes)):
        assert not verify_inclusion(index, size, leaf, proof, root)


@given(st.integers(2, LARGEST).flatmap(lambda new: st.tuples(st.integers(1, new), st.just(new))))
def test_a_spoilt_consistency_proof_does_not_verify(sizes: tuple[int, int]) -> None:
    old, new = sizes
    for proof in spoil(consistency_proof(old, new, LOG.get_nodes)):
        assert not verify_consistency(old, new, LOG.heads[old].root, LOG.heads[new].root, proof)


@given(st.integers(2, LARGEST).flatmap(lambda new: st.tuples(st.integers(1, new - 1), st.just(new))), st.data())
def test_a_rewritten_entry_breaks_consistency_with_a_saved_root(sizes: tuple[int, int], data: st.DataObject) -> None:
    old, new = sizes
    changed = data.draw(st.integers(0, old - 1))
    forged = Log([*LOG.leaves[:changed], b"forged", *LOG.leaves[changed + 1 : new]])
    proof = consistency_proof(old, new, forged.get_nodes)
    assert not verify_consistency(old, new, LOG.heads[old].root, forged.heads[new].root, proof)


def test_parts_of_wrong_length_that_join_to_the_same_bytes_do_not_verify() -> None:
    # hash(left || right) is the same when a byte moves from the proof's part to the leaf
    left, right = hash_leaf(b"a"), hash_leaf(b"b")
    root = hash_nodes(left, right)
    assert verify_inclusion(0, 2, left, [right], root)
    assert hash_nodes(left + right[:1], right[1:]) == root
    assert not verify_inclusion(0, 2, left + right[:1], [right[1:]], root)


@pytest.mark.parametrize(("index", "size"), [(-1, 5), (5, 5), (0, 0)])
def test_there_is_no_proof_for_a_leaf_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(EventNotFoundError):
        inclusion_proof(index, size, LOG.get_nodes)
    assert not verify_inclusion(index, size, bytes(32), [], bytes(32))


@pytest.mark.parametrize(("old", "new"), [(-1, 5), (6, 5)])
def test_there_is_no_proof_from_a_larger_tree_to_a_smaller(old: int, new: int) -> None:
    with pytest.raises(InvalidFieldError):
        consistency_proof(old, new, LOG.get_nodes)
    assert not verify_consistency(old, new, bytes(32), bytes(32), [])


@pytest.mark.parametrize(
    "get_nodes",
    [
        lambda wanted: {},
        lambda wanted: dict.fromkeys(wanted, b"short"),
        lambda wanted: dict.fromkeys(wanted[1:], bytes(32)),
    ],
)
def test_a_missing_or_cut_node_is_damage(
    get_nodes: Callable[[Sequence[tuple[int, int]]], Mapping[tuple[int, int], bytes]],
) -> None:
    with pytest.raises(CatalogueDamagedError):
        inclusion_proof(3, 7, get_nodes)


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.lists(st.binary(min_size=32, max_size=32), max_size=50))
def test_verifying_rubbish_answers_no(a: int, b: int, proof: list[bytes]) -> None:
    index, size = min(a, b), max(a, b) + 1
    assert not verify_inclusion(index, size, bytes(32), proof, bytes(31) + b"\x01")
    assert not verify_consistency(index + 1, size + 1, bytes(32), bytes(31) + b"\x01", proof)
