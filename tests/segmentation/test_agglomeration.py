import os
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.errors import ConfigError, DataError
from incasem.metrics.partition import PartitionAccumulator
from incasem.segmentation._pairs import EdgeCounter, count_fragments
from incasem.segmentation.affinity_map import NEAREST
from incasem.segmentation.agglomeration import SizeRules, agglomerate, check_thresholds
from incasem.segmentation.region_graph import EdgeTable, FragmentTable
from incasem.segmentation.scoring import parse_scoring
from tests.segmentation.maps import phantom

SCORINGS = ("mean", "max", "aff50_his256", "aff85_his256", "hist_quant_25", "hist_quant_90")


def table(pairs, ids=None):
    """Return edges and fragments of a graph written as (u, v) → affinities in steps."""
    rows = sorted(pairs.items())
    histograms = [np.unique(steps, return_counts=True) for _, steps in rows]
    first_bin = np.concatenate([[0], np.cumsum([bins.size for bins, _ in histograms])]).astype(np.int64)
    edges = EdgeTable(
        u=np.array([u for (u, _), _ in rows], np.uint64),
        v=np.array([v for (_, v), _ in rows], np.uint64),
        contact=np.array([len(steps) for _, steps in rows], np.int64),
        count=np.array([len(steps) for _, steps in rows], np.int64),
        total=np.array([sum(steps) for _, steps in rows], np.int64),
        highest=np.array([max(steps) for _, steps in rows], np.uint8),
        first_bin=first_bin,
        bins=np.concatenate([np.zeros(0, np.uint8), *(b.astype(np.uint8) for b, _ in histograms)]),
        bin_counts=np.concatenate([np.zeros(0, np.int64), *(n for _, n in histograms)]),
    )
    ids = sorted({node for pair in pairs for node in pair}) if ids is None else ids
    return edges, FragmentTable(np.array(ids, np.uint64), np.full(len(ids), 10, np.int64))


def plain_score(steps, maxima, scoring):
    """Affinities of two regions, and the largest ones between their fragments → score."""
    if scoring.kind == "mean":
        return 1.0 - sum(steps) / (255.0 * len(steps))
    if scoring.kind == "max":
        return 1.0 - max(steps) / 255.0
    values = sorted(maxima if scoring.of_maxima else steps)
    return 1.0 - (values[scoring.quantile * len(values) // 100] + 0.5) / 256


def plain_agglomeration(pairs, ids, scoring, threshold):
    """Score all, merge the best, score all again; ties go to the pair that was listed first."""
    number = {pair: i for i, pair in enumerate(sorted(pairs))}
    graph = {pair: (list(steps), [max(steps)], number[pair]) for pair, steps in pairs.items()}
    region = {i: i for i in ids}
    while graph:
        scored = [(plain_score(s, m, scoring), n, pair) for pair, (s, m, n) in graph.items()]
        score, _, (a, b) = min(scored)
        if score >= threshold:
            break
        region = {i: a if r == b else r for i, r in region.items()}
        old, graph = graph, {}
        for (u, v), (steps, maxima, n) in old.items():
            u, v = sorted((a if u == b else u, a if v == b else v))
            if u == v:
                continue
            if (u, v) in graph:
                s, m, k = graph[u, v]
                graph[u, v] = (s + steps, m + maxima, min(k, n))
            else:
                graph[u, v] = (steps, maxima, n)
    return region


def partition(region):
    groups = {}
    for fragment, segment in region.items():
        groups.setdefault(segment, set()).add(fragment)
    return {frozenset(group) for group in groups.values()}


def random_graph(seed, nodes, edges):
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.choice(10_000, nodes, replace=False) + 1).tolist()
    pairs = {}
    for _ in range(edges):
        u, v = sorted(rng.choice(ids, 2, replace=False).tolist())
        # Prime numbers of affinities, so that means hardly ever tie.
        pairs[u, v] = rng.integers(0, 256, rng.choice([1, 2, 3, 5, 7, 11, 13])).tolist()
    return pairs, ids


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(("mean", "max", "hist_quant_50", "aff50_his256")))
def test_equal_to_scoring_everything_after_each_merge(seed, name):
    pairs, ids = random_graph(seed, nodes=12, edges=30)
    scoring = parse_scoring(name)
    thresholds = [0.2, 0.45, 0.7]
    edges, fragments = table(pairs, ids)
    found = agglomerate([edges], [fragments], scoring, thresholds)
    for t, segments in zip(thresholds, found.segments, strict=True):
        region = dict(zip(found.fragments[1:].tolist(), segments[1:].tolist(), strict=True))
        assert all(region[i] == min(j for j in ids if region[j] == region[i]) for i in ids)
        if name == "mean" or name == "max":  # the others tie all the time, and ties are settled elsewhere
            assert partition(region) == partition(plain_agglomeration(pairs, ids, scoring, t))
        else:
            # At the end no score is below the threshold, whatever the order was.
            merged = {}
            for (u, v), steps in pairs.items():
                pair = tuple(sorted((region[u], region[v])))
                s, m = merged.setdefault(pair, ([], []))
                s.extend(steps)
                m.append(max(steps))
            left = [plain_score(*stats, scoring) for pair, stats in merged.items() if pair[0] != pair[1]]
            assert all(score >= t for score in left)


def test_the_order_of_the_input_does_not_matter():
    pairs, ids = random_graph(5, nodes=200, edges=900)
    edges, fragments = table(pairs, ids)
    whole = agglomerate([edges], [fragments], parse_scoring("hist_quant_50"), [0.3, 0.6])
    parts = [edges.rows(i, min(i + 100, len(edges))) for i in range(0, len(edges), 100)][::-1]
    nodes = [fragments.rows(i, i + 1) for i in range(len(fragments))][::-1]
    apart = agglomerate(parts, nodes, parse_scoring("hist_quant_50"), [0.3, 0.6])
    np.testing.assert_array_equal(whole.segments, apart.segments)
    np.testing.assert_array_equal(whole.fragments, apart.fragments)


@pytest.mark.parametrize("name", SCORINGS)
def test_several_thresholds_in_one_pass_are_those_of_single_passes(name):
    pairs, ids = random_graph(1, nodes=80, edges=300)
    edges, fragments = table(pairs, ids)
    thresholds = [0.1, 0.4, 0.55, 0.9]
    rules = SizeRules(min_size=25, join_affinity=0.3, dust=15)
    together = agglomerate([edges], [fragments], parse_scoring(name), thresholds, rules)
    for i, t in enumerate(thresholds):
        alone = agglomerate([edges], [fragments], parse_scoring(name), [t], rules)
        np.testing.assert_array_equal(together.segments[i], alone.segments[0])


@contextmanager
def silence():
    """waterz writes to the standard output from C++."""
    kept, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(null)


@pytest.fixture(scope="module")
def realistic():
    """A phantom's affinities, waterz's fragments, and the region graph."""
    waterz = pytest.importorskip("waterz")
    steps, _ = phantom((48, 56, 64))
    affinities = steps / np.float32(255)
    with silence():
        fragments = next(
            waterz.agglomerate(affinities, [0], aff_threshold_low=0.05, aff_threshold_high=0.995)
        ).copy()
    padded = np.pad(fragments.astype(np.uint64), ((1, 0),) * 3)
    counter = EdgeCounter(histograms=True)
    for axis, offset in enumerate(NEAREST):
        counter.add(padded, (1, 1, 1), offset, steps[axis], near=True)
    assert fragments.max() > 100
    return affinities, fragments, counter.table(), count_fragments(fragments.astype(np.uint64))


NAMES = {
    "mean": "MeanAffinity<RegionGraphType, ScoreValue>",
    "aff50_his256": "HistogramQuantileAffinity<RegionGraphType, 50, ScoreValue, 256>",  # as PyTC writes it
    "aff85_his256": "HistogramQuantileAffinity<RegionGraphType, 85, ScoreValue, 256, true>",
    "hist_quant_25": "HistogramQuantileAffinity<RegionGraphType, 25, ScoreValue, 256, false>",
}


@pytest.mark.parametrize("name", NAMES)
def test_equal_to_waterz_up_to_ties(realistic, name):
    import waterz

    affinities, fragments, edges, nodes = realistic
    thresholds = [0.1, 0.3, 0.6]
    found = agglomerate([edges], [nodes], parse_scoring(name), thresholds)
    with silence():
        theirs = [
            segments.copy()
            for segments in waterz.agglomerate(
                affinities,
                thresholds,
                fragments=fragments.copy(),
                scoring_function=f"OneMinus<{NAMES[name]}>",
            )
        ]
    for segments, wanted in zip(found.segments, theirs, strict=True):
        accumulator = PartitionAccumulator(None)
        accumulator.add(segments[fragments], wanted)
        assert accumulator.scores().voi < 0.02
    assert 1 < np.unique(theirs[-1]).size < fragments.max()


def test_equal_edges_merge_in_order_of_the_ids():
    chain = {(1, 2): [200], (2, 3): [200], (3, 4): [200]}
    edges, fragments = table(chain)
    found = agglomerate([edges], [fragments], parse_scoring("mean"), [0.1, 0.3])
    assert found.segments.tolist() == [[0, 1, 2, 3, 4], [0, 1, 1, 1, 1]]
    assert found.edges == 3
    assert [found.count(0), found.count(1)] == [4, 1]


def test_thresholds_are_waterzs():
    edges, fragments = table({(1, 2): [255], (2, 3): [51], (3, 4): [0]})
    found = agglomerate([edges], [fragments], parse_scoring("mean"), [0, 1e-9, 0.79, 0.81, 1])
    assert found.segments.tolist() == [
        [0, 1, 2, 3, 4], [0, 1, 1, 3, 4], [0, 1, 1, 3, 4], [0, 1, 1, 1, 4], [0, 1, 1, 1, 4],
    ]  # fmt: skip


def test_without_fragments_and_without_edges():
    edges, fragments = table({}, [])
    found = agglomerate([edges], [fragments], parse_scoring("aff50_his256"), [0.5])
    assert found.segments.tolist() == [[0]]
    assert agglomerate([], [], parse_scoring("mean"), [0.5]).segments.tolist() == [[0]]
    edges, fragments = table({}, [7, 2**40])
    found = agglomerate([edges], [fragments], parse_scoring("hist_quant_50"), [0.5], SizeRules(20))
    assert found.segments.tolist() == [[0, 7, 2**40]]


def test_long_range_evidence_alone_joins_nothing():
    edges, fragments = table({(1, 2): [255, 255]})
    far = EdgeTable(**vars(edges) | {"contact": np.zeros(1, np.int64)})
    assert agglomerate([far], [fragments], parse_scoring("mean"), [1]).segments.tolist() == [[0, 1, 2]]


def test_small_segments_join_their_best_neighbour_and_dust_goes():
    pairs = {(1, 2): [100], (2, 3): [120], (3, 4): [20], (5, 6): [250]}
    edges, fragments = table(pairs)
    sizes = FragmentTable(fragments.ids, np.array([50, 5, 60, 4, 3, 3], np.int64))

    def segments(**rules):
        found = agglomerate([edges], [sizes], parse_scoring("mean"), [0.1], SizeRules(**rules))
        return found.segments[0, 1:].tolist()

    assert segments() == [1, 2, 3, 4, 5, 5]
    assert segments(min_size=10, join_affinity=0.2) == [1, 2, 2, 4, 5, 5]
    assert segments(min_size=10, join_affinity=0.05) == [1, 2, 2, 2, 5, 5]
    assert segments(min_size=10, join_affinity=0.48) == [1, 2, 3, 4, 5, 5]
    assert segments(dust=6) == [1, 0, 3, 0, 5, 5]
    assert segments(dust=7) == [1, 0, 3, 0, 0, 0]
    assert segments(min_size=10, join_affinity=0.2, dust=7) == [1, 2, 2, 0, 0, 0]
    assert segments(min_size=66, join_affinity=0) == [1, 1, 1, 1, 5, 5]


def test_histograms_grow_beyond_their_first_room():
    rng = np.random.default_rng(0)
    hub, leaves = 1, list(range(2, 400))
    pairs = {(hub, leaf): [255] * 3 for leaf in leaves}
    pairs |= {(leaf, 1000): rng.integers(0, 128, 40).tolist() for leaf in leaves}
    edges, fragments = table(pairs)
    found = agglomerate([edges], [fragments], parse_scoring("hist_quant_50"), [0.2, 0.74, 0.76])
    assert [found.count(t) for t in range(3)] == [2, 2, 1]


def test_a_histogram_that_is_missing_is_named():
    edges, fragments = table({(1, 2): [3]})
    bare = EdgeTable(
        **vars(edges)
        | {"first_bin": np.zeros(2, np.int64), "bins": edges.bins[:0], "bin_counts": edges.bin_counts[:0]}
    )
    with pytest.raises(DataError, match="has no histograms, which the scoring hist_quant_50 needs"):
        agglomerate([bare], [fragments], parse_scoring("hist_quant_50"), [0.5])
    with pytest.raises(DataError, match="a fragment of the region graph is 2"):
        agglomerate([edges], [fragments.rows(0, 1)], parse_scoring("mean"), [0.5])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("meen", "Did you mean 'mean'"),
        ("aff50_his255", "Did you mean 'aff50_his256'"),
        ("hist_quant_0", "NN from 1 to 99"),
        ("aff100_his256", "NN from 1 to 99"),
        ("", "allowed: mean, max"),
    ],
)
def test_unknown_scorings_are_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        parse_scoring(name)


def test_names_of_scorings():
    assert parse_scoring("hist_quant_50_initmax") == parse_scoring("aff050_his256")
    assert parse_scoring("aff050_his256").name == "aff50_his256"
    assert parse_scoring("aff05_his256").quantile == 5
    assert not parse_scoring("aff50_his256").needs_histograms
    assert parse_scoring("hist_quant_50").needs_histograms


@pytest.mark.parametrize("thresholds", [[], [0.5, 0.5], [-0.1], [1.1], [float("nan")]])
def test_senseless_thresholds_are_refused(thresholds):
    with pytest.raises(ConfigError, match=r"threshold is .*; allowed: different numbers from 0"):
        check_thresholds(thresholds)
    assert check_thresholds([0.5, 0.1]) == [0.1, 0.5]


@pytest.mark.parametrize("rules", [{"min_size": -1}, {"dust": -1}, {"join_affinity": 1.5}])
def test_senseless_sizes_are_refused(rules):
    with pytest.raises(ConfigError, match=next(iter(rules))):
        SizeRules(**rules)
