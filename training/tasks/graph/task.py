"""Graph reachability: can the target be reached from the source along directed edges?

Problems follow "Thinking Deeper, Not Longer" (arXiv 2603.21676, section 4.1). Its test negatives
leak: that the target has few ancestors nearly gives them away. So the evaluation also has negatives
that are positives rewired until no path is left (negatives.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from model.codecs.graph import SOURCE, TARGET
from model.manifest import ClassSpec, CodecSpec, Domain
from model.network.perception import Context, GraphInputs
from model.network.recurrent import RecurrentTransformer
from training.task import Batch, Problems
from training.tasks.graph.generator import (
    UNREACHABLE,
    Bools,
    Graphs,
    Ints,
    concatenate,
    distances,
    negatives,
    positives,
)
from training.tasks.graph.negatives import ancestors, matched_negatives
from training.tasks.graph.unusual import LARGE, SHAPES, Draw


@dataclass(frozen=True)
class GraphTask:
    """How graphs are drawn for training, and what is asked about them.

    ask = "every-node" asks about each node of a positive graph whether the source reaches it, which
    is sound only while the network does not see the target (RecurrentConfig.target_role); nodes
    farther than the curriculum has come are left out. "target" asks one question per graph, half
    of the graphs being negatives: the paper's way. Either way both answers weigh the same.
    """

    name: ClassVar[str] = "graph"
    codec: ClassVar[CodecSpec] = CodecSpec(name="graph")
    unit: ClassVar[str] = "hops"
    interface: ClassVar[str] = "graph"
    classes: ClassVar[tuple[ClassSpec, ...]] = (
        ClassSpec(label="unreachable", answer=False),
        ClassSpec(label="reachable", answer=True),
    )
    splits: ClassVar[tuple[str, ...]] = ("matched", "wide", "paper")
    buckets: ClassVar[tuple[int, ...]] = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
    calibrated: ClassVar[tuple[int, ...]] = (1, 2, 5, 8, 12, 16, 32, 64)
    probe: ClassVar[int] = 16
    domain: ClassVar[Domain | None] = Domain(
        sentence="Right on every graph measured: paths of up to 64 hops in all tests and of some 200 in long "
        "chains, up to 256 nodes.",
        limits={"nodes": 256},
    )
    pictured: ClassVar[int] = 32

    min_nodes: int = 8
    max_nodes: int = 16
    frontier_share: float = 0.5  # share of batches at the curriculum's newest difficulty; the rest uniform
    ask: Literal["every-node", "target"] = "every-node"

    def __post_init__(self) -> None:
        if not 2 <= self.min_nodes <= self.max_nodes:
            raise ValueError("min_nodes must be at least 2 and at most max_nodes")
        if not 0 <= self.frontier_share <= 1:
            raise ValueError(f"frontier_share is {self.frontier_share}, but must be in [0, 1]")

    def cannot_draw(self, difficulty: int) -> str | None:
        """A path has at least one hop, and a graph as many nodes as its path needs."""
        return None if difficulty >= 1 else "a path has at least one hop"

    def sample(self, rng: np.random.Generator, rows: int, difficulty: int) -> Batch:
        """One size and one path length per batch, as everything in it then runs in step."""
        newest = rng.random() < self.frontier_share
        hops = difficulty if newest else int(rng.integers(1, difficulty + 1))
        nodes = max(int(rng.integers(self.min_nodes, self.max_nodes + 1)), hops + 1)
        if self.ask == "target":
            parts = [positives(rng, rows - rows // 2, nodes, hops), negatives(rng, rows // 2, nodes)]
            graphs = concatenate(parts)
        else:
            graphs = positives(rng, rows, nodes, hops)
        distance = graphs.distances()
        reached, never = distance <= difficulty, distance == UNREACHABLE
        if self.ask == "target":
            asked = np.arange(nodes) == graphs.target[:, None]
            reached, never = reached & asked, never & asked
        weights = 0.5 * reached / max(1, reached.sum()) + 0.5 * never / max(1, never.sum())
        weights /= weights.sum()
        return Batch(
            inputs_of(graphs),
            torch.from_numpy((distance < UNREACHABLE).astype(np.int64)),
            torch.from_numpy(weights.astype(np.float32)),
            difficulty,
        )

    def logits(self, network: RecurrentTransformer, state: Tensor, context: Context) -> Tensor:
        """What the readout would say were each node the target: (B, N, C)."""
        return network.readout_everywhere(state, context)

    def problems(self, rng: np.random.Generator, split: str, bucket: int, count: int) -> Problems:
        """Half positives of exactly `bucket` hops, half negatives of the split's kind.

        "paper": sizes and negatives of the paper. "matched": its sizes, each negative a rewired
        positive. "wide": the same with three times as many nodes as the path has, up to 70, where a
        negative has room for as many ancestors and descendants as a positive.
        """
        assert split in self.splits, split
        assert count % 2 == 0, "half of the problems are negatives"
        low, high = test_sizes(bucket, wide=split == "wide")
        sizes = rng.integers(low, high + 1, count // 2)
        graphs: list[Graphs] = []
        for nodes in np.unique(sizes).tolist():
            same = int((sizes == nodes).sum())
            graphs.append(positives(rng, same, nodes, bucket))
            if split == "paper":
                graphs.append(negatives(rng, same, nodes))
            else:
                graphs.append(matched_negatives(rng, same, nodes, bucket))
        padded = [inputs_of(part, high) for part in graphs]
        inputs = GraphInputs(*(torch.cat(parts) for parts in zip(*padded, strict=True)))
        labels = torch.cat([torch.from_numpy(part.hops() < UNREACHABLE).long() for part in graphs])
        return Problems(inputs, labels, bucket)

    def unusual(self, rng: np.random.Generator, count: int) -> Mapping[str, Problems]:
        """Graphs of other shapes, densities and sizes (unusual.py), each asked about one node."""
        return {
            name: _questions(rng, draw, max(1, count // 4) if name in LARGE else count)
            for name, draw in SHAPES.items()
        }

    def random_inputs(self, rng: np.random.Generator, rows: int, length: int) -> GraphInputs:
        """Digraphs of any density, loops included; now and then the target is the source."""
        edges = rng.random((rows, length, length)) < rng.random((rows, 1, 1)) ** 3
        real = np.arange(length) < rng.integers(1, length + 1, (rows, 1))
        real[0] = True  # one row fills the length
        sizes = real.sum(axis=1)
        ends = rng.integers(0, sizes, (2, rows))
        inputs = inputs_of(Graphs(edges & real[:, :, None] & real[:, None, :], ends[0], ends[1]))
        return inputs._replace(mask=torch.from_numpy(real))

    def heuristics(self, problems: Problems) -> Mapping[str, float]:
        """Shortcuts of local structure: an edge into the target; ancestor and descendant counts."""
        assert isinstance(problems.inputs, GraphInputs)
        edges = problems.inputs.adjacency.numpy().transpose(0, 2, 1)
        graphs = Graphs(
            edges,
            (problems.inputs.roles & SOURCE).argmax(1).numpy(),
            (problems.inputs.roles & TARGET).argmax(1).numpy(),
        )
        truth = problems.labels.numpy() == 1
        into = edges[np.arange(len(truth)), :, graphs.target].any(axis=1)
        reached = (graphs.distances() < UNREACHABLE).sum(axis=1)
        return {
            "target has an incoming edge": float((into == truth).mean()),
            "target's ancestor count": _best_threshold(ancestors(graphs), truth),
            "source's descendant count": _best_threshold(reached, truth),
        }


def test_sizes(hops: int, wide: bool) -> tuple[int, int]:
    """Smallest and largest number of nodes of a test graph (the paper's, continued past 20 nodes)."""
    if wide:
        low = max(min(max(3 * hops + 3, 10), 66), hops + 2)
        return low, low + 4
    low = max(hops + 2, 10)
    return low, max(min(max(hops + 6, 16), 20), hops + 6 if hops > 16 else low)


def inputs_of(graphs: Graphs, length: int | None = None) -> GraphInputs:
    """What the codec would make of these graphs, padded to `length` nodes."""
    count, nodes = graphs.edges.shape[:2]
    length = nodes if length is None else length
    roles = np.zeros((count, length), np.int64)
    rows = np.arange(count)
    roles[rows, graphs.source] |= SOURCE
    roles[rows, graphs.target] |= TARGET
    adjacency = np.zeros((count, length, length), np.bool_)
    adjacency[:, :nodes, :nodes] = graphs.edges.transpose(0, 2, 1)
    mask = np.zeros((count, length), np.bool_)
    mask[:, :nodes] = True
    return GraphInputs(torch.from_numpy(roles), torch.from_numpy(adjacency), torch.from_numpy(mask))


def _questions(rng: np.random.Generator, draw: Draw, count: int) -> Problems:
    """Graphs of a shape; the targets are as often out of reach as in reach where there are both."""
    graphs, labels, farthest = [], [], 1
    for _ in range(count):
        edges, source = draw(rng)
        distance = distances(edges[None], np.array([source]))[0]
        reached = distance < UNREACHABLE
        farthest = max(farthest, int(distance[reached].max()))
        wanted = bool(rng.random() < 0.5)
        choices = np.flatnonzero(reached == wanted)
        target = int(rng.choice(choices if len(choices) else np.arange(len(edges))))
        graphs.append(Graphs(edges[None], np.array([source]), np.array([target])))
        labels.append(int(reached[target]))
    longest = max(graph.edges.shape[1] for graph in graphs)
    padded = [inputs_of(graph, longest) for graph in graphs]
    inputs = GraphInputs(*(torch.cat(parts) for parts in zip(*padded, strict=True)))
    return Problems(inputs, torch.tensor(labels), farthest)


def _best_threshold(counts: Ints, truth: Bools) -> float:
    """Accuracy of `count >= threshold` or its opposite, with the best threshold there is."""
    candidates = np.unique(np.append(counts, counts.max() + 1))
    right = ((counts[None] >= candidates[:, None]) == truth[None]).mean(axis=1)
    return float(max(right.max(), 1 - right.min()))
