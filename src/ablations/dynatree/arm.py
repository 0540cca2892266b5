"""From the spec of a decoding configuration to what decodes with it."""

from collections.abc import Callable
from functools import partial

from ablations.dynatree.decoding import Draft, Generation, decode_autoregressive, decode_speculative
from ablations.dynatree.drafters.build import Find, Loaded, build_drafter
from ablations.dynatree.growth.cost_aware import CostAwareGrowth, CostModel
from ablations.dynatree.growth.dynamic import DynamicGrowth
from ablations.dynatree.growth.fixed import FixedGrowth, Growth
from ablations.dynatree.tree import TokenTree
from ablations.lm.cache import StaticCache
from ablations.lm.graphs import cache_for
from ablations.lm.layered import LayeredLM
from ablations.specs.dynatree.arm import ArmSpec, CostAwareTree, DynamicTree, tree_nodes
from ablations.specs.dynatree.costs import read_costs
from ablations.specs.lm import Compute

WARMUP_TOKENS = 8

Decoder = Callable[[list[int], int], Generation]
"""Takes the token ids of a prompt and the most new tokens; returns what decoding gave."""


class DecoderBuilder:
    """Builds decoders on one target, which run one after another and share what they load and write into.

    Each run drops what its cache holds. So decoders of trees of one size share a cache, and it has the shape
    that each of them would have alone: on a GPU, the largest cache for all would let small trees attend to
    rows that they never use, while one for each decoder would hold its own captured forwards.

    Args:
        target: The model that decides.
        compute: How a draft model computes.
        capacity: Most tokens of a prompt and its continuation.
    """

    def __init__(self, target: LayeredLM, compute: Compute, capacity: int) -> None:
        self._target = target
        self._capacity = capacity
        self._loaded = Loaded(target, compute)
        self._caches: dict[int, StaticCache] = {}

    def autoregressive(self) -> Decoder:
        """The decoder that takes a token at a time."""
        return partial(decode_autoregressive, self._target, self._cache(0))

    def arm(self, arm: ArmSpec, find: Find) -> Decoder:
        """The decoder that a spec describes, its buffers allocated.

        Args:
            arm: The configuration.
            find: Where artefacts lie.

        Raises:
            UserError: a contradictory spec, or a drafter of another vocabulary.
        """
        if arm.drafter is None:
            return self.autoregressive()
        draft = build_draft(arm, find, self._loaded, self._capacity)
        return partial(decode_speculative, self._target, self._cache(draft.tree.max_nodes), draft)

    def clear_caches(self) -> None:
        """Zero all caches, after a decoder failed: a captured forward reads a NaN of masked rows too."""
        for cache in self._caches.values():
            for rows in (*cache.keys, *cache.values):
                rows.zero_()

    def _cache(self, nodes: int) -> StaticCache:
        if nodes not in self._caches:
            self._caches[nodes] = cache_for(self._target, self._capacity + nodes, nodes + 1)
        return self._caches[nodes]


def build_draft(arm: ArmSpec, find: Find, loaded: Loaded, tokens: int) -> Draft:
    """Drafter, growth and tree of a speculative arm.

    Args:
        arm: The configuration; it has a drafter.
        find: Where artefacts lie.
        loaded: What drafters are made of, and the model that decides.
        tokens: Most tokens of a prompt and its continuation.

    Raises:
        UserError: a drafter of another vocabulary, or trees whose cost is not known.
    """
    shape, pruning, adaptation = arm.shape, arm.pruning, arm.adaptation
    depth, breadths = shape.depth, (shape.branching,)
    if isinstance(adaptation, DynamicTree):
        depth, breadths = adaptation.max_depth, adaptation.breadths
    nodes = tree_nodes(depth, max(breadths), pruning.max_nodes)
    growth: Growth = FixedGrowth(shape.depth, shape.branching, pruning.tau)
    if isinstance(adaptation, DynamicTree):
        growth = DynamicGrowth(adaptation, shape.depth, pruning.tau, loaded.target.device)
    elif isinstance(adaptation, CostAwareTree):
        costs = read_costs(find("costs"))
        model = CostModel(costs, nodes, loaded.target.device)
        growth = CostAwareGrowth(model, shape.depth, shape.branching, pruning.tau)
    drafter = build_drafter(arm.drafter, find, loaded, tokens, nodes, max(breadths), arm.calibrated)
    return Draft(drafter, TokenTree(nodes, loaded.target.device), growth)


def warm_up(decoder: Decoder, prompt: list[int], new_tokens: int, whole: bool) -> None:
    """Decode a prompt untimed, so that no length or number of rows is new to a library when it is timed.

    The first forward over a prompt of a length, or over a number of rows, takes milliseconds longer: kernels
    are chosen and generated for each, once in a process. A few tokens show a prompt's length. How many rows a
    drafting decoder verifies depends on the text, so it decodes the whole of one prompt.

    Args:
        decoder: What will be timed.
        prompt: Token ids of a prompt on which it will be timed.
        new_tokens: Most tokens that it will be asked for.
        whole: Whether it decodes all of them: a drafting decoder, on its first prompt.
    """
    decoder(prompt, new_tokens if whole else min(WARMUP_TOKENS, new_tokens))
