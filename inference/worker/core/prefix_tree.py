"""What earlier requests left in memory, as a tree over their tokens: what several have in common is held once.

A node is a span of at most ``NODE_TOKENS`` tokens with their keys and values, and, where a model has layers that cannot
be cut, perhaps the state of those at its end (``Whole``). The stepping thread changes the tree; ``match``, ``nbytes``
and ``entries`` may be called from any thread.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from inference.worker.core import prefix_kv
from inference.worker.core.prefix_kv import Pair, Source, Whole
from inference.worker.core.prefix_store import Tokens, common_length

NODE_TOKENS = 2048
"""Long enough for few arrays: each is one small job of the device when they are put together again. Short enough that
what is thrown away is not much more than what is needed.
"""


@dataclass(eq=False, slots=True)
class Node:
    """``end`` counts the tokens from the root to its end. ``used`` and ``whole_used`` are ticks of the tree.

    ``sound`` is an array of one truth, whether what was computed are numbers; None once it has been looked at.
    """

    tokens: Tokens
    pairs: list[Pair]
    parent: Node | None
    end: int
    nbytes: int
    children: dict[int, Node] = field(default_factory=dict)
    whole: Whole | None = None
    used: int = 0
    whole_used: int = 0
    sound: mx.array | None = None

    @property
    def first(self) -> int:
        return int(self.tokens[0])

    def path(self) -> list[Node]:
        """From below the root to here."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def prompt(self) -> Tokens:
        """All tokens from the root to its end."""
        return np.concatenate([node.tokens for node in self.path()])


@dataclass(slots=True)
class Found:
    """``pieces`` hold at least ``length`` tokens."""

    length: int
    pieces: list[list[Pair]]
    whole: Whole | None


class PrefixTree:
    """``cuttable``: any beginning of a path can be used; else only what ends at a node with a ``whole``.

    ``token_bytes`` is what the keys and values of one token take.
    """

    def __init__(self, cuttable: bool, token_bytes: int) -> None:
        self._cuttable = cuttable
        self._token_bytes = token_bytes
        self._root = Node(np.zeros(0, np.int32), [], None, 0, 0)
        self._lock = threading.Lock()
        self._tick = 0
        self._nbytes = 0
        self._entries = 0

    @property
    def nbytes(self) -> int:
        return self._nbytes

    @property
    def entries(self) -> int:
        """Prompts that are not the beginning of another."""
        return self._entries

    # --------------------------------------------------------------------------------------------------- looking up

    def match(self, tokens: Tokens) -> int:
        """How many of ``tokens`` are held and can be used. Any thread."""
        with self._lock:
            return self._usable(*self._walk(tokens))[1]

    def common(self, tokens: Tokens) -> int:
        """How many of ``tokens`` an earlier prompt had in common, usable or not. Any thread."""
        with self._lock:
            return self._walk(tokens)[1]

    def find(self, tokens: Tokens) -> Found | None:
        """What can be used for ``tokens``, marked as used now; what turns out not to be numbers is thrown away."""
        while True:
            node, length = self._usable(*self._walk(tokens))
            if not length:
                return None
            path = node.path()
            spoiled = next((one for one in path if not _is_sound(one)), None)
            if spoiled is None:
                break
            self._cut_off(spoiled)
        self._touch(path)
        node.whole_used = self._tick
        return Found(length, [one.pairs for one in path], None if self._cuttable else node.whole)

    def _walk(self, tokens: Tokens) -> tuple[Node, int]:
        """The last node that ``tokens`` reach into, and how many they share with the path to its end."""
        node, length = self._root, 0
        while length < tokens.size:
            child = node.children.get(int(tokens[length]))
            if child is None:
                break
            common = common_length(child.tokens, tokens[length:])
            node, length = child, length + common
            if common < child.tokens.size:
                break
        return node, length

    def _usable(self, node: Node, length: int) -> tuple[Node, int]:
        if self._cuttable:
            return node, length
        up: Node | None = node
        while up is not None and (up.whole is None or up.end > length):
            up = up.parent
        return (up, up.end) if up is not None else (self._root, 0)

    def _touch(self, path: list[Node]) -> None:
        self._tick += 1
        for node in path:
            node.used = self._tick

    # ----------------------------------------------------------------------------------------------------- keeping

    def insert(self, tokens: Tokens, source: Source, limit: int) -> list[mx.array]:
        """Keep ``tokens``, the first of ``source.length``, within ``limit`` bytes; others give way.

        Returns the arrays that are to be computed before ``source`` changes. Of more than fits a beginning is kept that
        takes half of the limit, or, where layers cannot be cut, nothing.
        """
        whole = None if self._cuttable else source.whole()
        extra = whole.nbytes if whole is not None else 0
        if tokens.size * self._token_bytes + extra > limit:
            if whole is not None:
                return []
            tokens = tokens[: limit // 2 // max(self._token_bytes, 1)]
        node, length = self._walk(tokens)
        self._touch(node.path())
        if whole is not None and node.whole is not None and node.end == length == tokens.size:
            node.whole_used = self._tick
            return []
        if not self._make_room((int(tokens.size) - length) * self._token_bytes + extra, limit, node):
            return []
        new: list[mx.array] = []
        if length < node.end and (length < tokens.size or whole is not None):
            node = self._split(node, length, new)
        node = self._grow(node, length, tokens, source, new)
        if whole is not None:
            self._set_whole(node, whole)
            node.sound = prefix_kv.and_numbers(node.sound, whole)
            new += [*whole.arrays(), node.sound]
        return new

    def _grow(self, node: Node, length: int, tokens: Tokens, source: Source, new: list[mx.array]) -> Node:
        """Hang the rest of ``tokens`` below ``node``, which ends at ``length``."""
        while length < tokens.size:
            end = min(length + NODE_TOKENS, int(tokens.size))
            pairs = source.cut(length, end)
            child = Node(tokens[length:end].copy(), pairs, node, end, _bytes_of(pairs), used=self._tick)
            child.sound = prefix_kv.all_numbers(pairs)
            self._attach(child)
            new += [*prefix_kv.arrays_of(pairs), *([child.sound] if child.sound is not None else [])]
            node, length = child, end
        return node

    def _split(self, node: Node, at: int, new: list[mx.array]) -> Node:
        """Divide a node's span so that an upper part ends at ``at`` tokens from the root; returns that."""
        cut = at - (node.end - node.tokens.size)
        pairs = prefix_kv.part(node.pairs, 0, cut)
        upper = Node(node.tokens[:cut].copy(), pairs, node.parent, at, _bytes_of(pairs), used=node.used)
        upper.sound = node.sound
        lower = prefix_kv.part(node.pairs, cut, node.tokens.size)
        new += prefix_kv.arrays_of(upper.pairs) + prefix_kv.arrays_of(lower)
        with self._lock:
            if node.parent is not None:
                node.parent.children[node.first] = upper
            self._nbytes -= node.nbytes
            node.tokens, node.pairs, node.parent = node.tokens[cut:].copy(), lower, upper
            node.nbytes = _bytes_of(lower)
            upper.children[node.first] = node
            self._nbytes += upper.nbytes + node.nbytes
        return upper

    def _attach(self, child: Node) -> None:
        parent = child.parent
        if parent is None:
            raise ValueError("a node without a parent is the root")
        with self._lock:
            self._entries += 1 if parent.children or parent is self._root else 0
            parent.children[child.first] = child
            self._nbytes += child.nbytes

    def _set_whole(self, node: Node, whole: Whole | None) -> None:
        with self._lock:
            self._nbytes += (whole.nbytes if whole is not None else 0) - (node.whole.nbytes if node.whole else 0)
            node.whole, node.whole_used = whole, self._tick

    # ------------------------------------------------------------------------------------------------- giving way

    def trim(self, limit: int) -> None:
        """Give up what was used least recently until ``limit`` bytes are left."""
        self._make_room(0, limit, None)

    def clear(self) -> None:
        with self._lock:
            self._root.children.clear()
            self._nbytes = self._entries = 0

    def _make_room(self, nbytes: int, limit: int, keep: Node | None) -> bool:
        """Whether ``nbytes`` more fit, after others than the path to ``keep`` gave way. Ends of paths go first."""
        if self._nbytes + nbytes <= limit:
            return True
        kept = set(keep.path()) if keep is not None else set()
        if sum(one.nbytes + (one.whole.nbytes if one.whole else 0) for one in kept) + nbytes > limit:
            return False
        heap = [(used, id(node), node, inner) for node, used, inner in self._candidates() if node not in kept]
        heapq.heapify(heap)
        while heap and self._nbytes + nbytes > limit:
            _, _, node, inner = heapq.heappop(heap)
            if inner:
                if node.children and node.whole is not None:
                    self._set_whole(node, None)
                continue
            parent = self._prune(self._remove(node), kept)
            if not parent.children and parent is not self._root and parent not in kept:
                heapq.heappush(heap, (parent.used, id(parent), parent, False))
        return self._nbytes + nbytes <= limit

    def _candidates(self) -> Iterator[tuple[Node, int, bool]]:
        """Ends of paths, and states inside them, with their last use."""
        for node in self.nodes():
            if not node.children:
                yield node, node.used, False
            elif node.whole is not None:
                yield node, node.whole_used, True

    def nodes(self) -> Iterator[Node]:
        stack = list(self._root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def _remove(self, node: Node) -> Node:
        """Take out an end of a path; returns its parent."""
        parent = node.parent
        if parent is None:
            raise ValueError("the root stays")
        with self._lock:
            del parent.children[node.first]
            self._nbytes -= node.nbytes + (node.whole.nbytes if node.whole is not None else 0)
            self._entries -= 1 if parent.children or parent is self._root else 0
        return parent

    def _prune(self, node: Node, kept: Container[Node] = ()) -> Node:
        """Take out the end of a path that cannot be used without a state; returns what is its end then."""
        while not (self._cuttable or node is self._root or node.children or node.whole or node in kept):
            node = self._remove(node)
        return node

    def _cut_off(self, node: Node) -> None:
        """Take out a node and all below it."""
        below = [node]
        for one in below:
            below.extend(one.children.values())
        for one in reversed(below[1:]):
            self._remove(one)
        self._prune(self._remove(node))

    # --------------------------------------------------------------------------------------------------- to disk

    def ends(self) -> list[Node]:
        """The ends of what can be used, those used last first: what is worth writing down."""
        ends = {node for node in self.nodes() if not node.children}
        if not self._cuttable:
            ends |= {before for node in ends if (before := _whole_before(node)) is not None}
        return sorted(ends, key=lambda node: -node.used)

    def holds(self, node: Node) -> bool:
        """Whether it is still here, sound, and can be used to its end."""
        path = node.path()
        here = path[0].parent is self._root and all(
            one.parent is not None and one.parent.children.get(one.first) is one for one in path
        )
        return here and all(map(_is_sound, path)) and (self._cuttable or node.whole is not None)


def _bytes_of(pairs: list[Pair]) -> int:
    return sum(array.nbytes for array in prefix_kv.arrays_of(pairs))


def _is_sound(node: Node) -> bool:
    """Whether what was computed for it are numbers; waits for the device the first time."""
    if node.sound is not None and bool(node.sound.item()):
        node.sound = None
    return node.sound is None


def _whole_before(node: Node) -> Node | None:
    """The place before the end where the next turn may depart from what was templated for the answer."""
    up = node.parent
    while up is not None and up.whole is None:
        up = up.parent
    return up
