"""Optimal transport: against the published code's results, against POT, and its own promises."""

import copy
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.export import Dim

from modules.transport import TransportSettings, solve, transport_plans, transport_scores

SHARED = TransportSettings(shared_stop=True)  # as published
CASES = (
    "typical_T8_N4", "typical_T32_N4", "typical_T8_N2", "typical_T8_N8", "typical_T32_N8", "wide_T5_N3", "wide_T8_N4",
    "clip_like_T8_N4", "clip_like_T32_N4", "limit_T8_N4", "single_T1_N1", "single_T8_N1", "single_T1_N4",
    "ties_all_equal", "ties_repeated", "stop_at_first", "stop_at_second", "coupled", "steep_T8_N4",
)  # fmt: skip
RESULTS, GRADIENTS = 1e-5, 2e-5  # the tolerances of the published results


@pytest.fixture(scope="module")
def published(ost_golden) -> dict[str, torch.Tensor]:
    """``solver.npz``, by CASE/NAME."""
    with np.load(ost_golden / "solver.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def similarity_of(case: dict[str, torch.Tensor]) -> torch.Tensor:
    """[B, A, T, N]"""
    return torch.einsum("btd,knd->bktn", case["f"], case["d"])


@pytest.fixture
def case(request, published) -> dict[str, torch.Tensor]:
    found = {
        name.split("/")[1]: value.clone() for name, value in published.items() if name.split("/")[0] == request.param
    }
    return found | {"is_steep": request.param.startswith("steep")}


def test_all_cases_of_the_published_solver_are_tested(published):
    assert {name.split("/")[0] for name in published} == set(CASES)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_with_a_shared_stop_plan_and_scalings_are_the_published_ones(case, relative_error):
    found = solve(similarity_of(case), SHARED)
    assert relative_error(found.plan, case["plan"]) < RESULTS
    assert relative_error(found.rows.exp(), case["r"]) < RESULTS
    assert relative_error(found.columns.exp(), case["c"]) < RESULTS
    if not case["is_steep"]:  # there the tolerance is below what fp32 can tell
        assert found.iterations.unique().tolist() == [case["iterations"]]


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_scalings_change_from_iteration_to_iteration_as_published(case):
    if case["is_steep"]:
        pytest.skip("the changes of its last iterations are rounding")
    before, changes = torch.ones_like(case["r"]), []
    for number in range(1, int(case["iterations"]) + 1):
        rows = solve(similarity_of(case), TransportSettings(iterations=number, shared_stop=True)).rows.exp()
        changes.append((rows - before).abs().mean())
        before = rows
    # Differences of large numbers: as exact as these.
    torch.testing.assert_close(torch.stack(changes), case["err"], rtol=1e-4, atol=1e-5 * float(case["r"].abs().max()))


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_logits_and_their_gradients_are_the_published_ones(case, relative_error):
    inputs = [case[name].requires_grad_() for name in ("f", "d", "scale")]
    similarity = similarity_of(case)
    logits = case["scale"] * (solve(similarity, SHARED).plan * similarity).sum(dim=(-2, -1))
    assert relative_error(logits, case["logits"]) < RESULTS
    gradients = torch.autograd.grad((case["cotangent"] * logits).sum(), inputs)
    for name, gradient in zip(("grad_f", "grad_d", "grad_scale"), gradients, strict=True):
        assert relative_error(gradient, case[name]) < GRADIENTS, name


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_each_problem_ends_as_if_it_were_alone(case, relative_error):
    similarity = similarity_of(case)
    found = solve(similarity)
    logits = case["scale"] * (found.plan * similarity).sum(dim=(-2, -1))
    assert relative_error(logits, case["logits_alone"]) < RESULTS
    for video, rows in enumerate(similarity):
        for label, row in enumerate(rows):
            torch.testing.assert_close(solve(row, SHARED).plan, found.plan[video, label], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_without_a_tolerance_the_plan_converges(case, relative_error):
    similarity = similarity_of(case).double()
    plan = solve(similarity, TransportSettings(tolerance=0.0, iterations=5000)).plan
    logits = case["scale"].double() * (plan * similarity).sum(dim=(-2, -1))
    # fp32 cosines went into one of the two.
    assert relative_error(logits, case["logits_converged"]) < RESULTS
    assert relative_error(plan.sum(-1), torch.full(plan.shape[:-1], 1 / plan.shape[-2])) < 1e-6


def test_the_plan_converges_to_that_of_pot():
    ot = pytest.importorskip("ot", reason="POT is not installed (requirements-dev.txt)")
    similarity = torch.rand(2, 3, 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.6
    for epsilon in (0.02, 0.1, 1.0):
        plans = solve(similarity, TransportSettings(epsilon=epsilon, tolerance=0.0, iterations=3000)).plan
        for values, plan in zip(similarity.flatten(0, 1), plans.flatten(0, 1), strict=True):
            masses = np.full(7, 1 / 7), np.full(4, 1 / 4)
            expected = ot.sinkhorn(
                *masses, 1 - values.numpy(), epsilon, method="sinkhorn_log", stopThr=1e-13, numItermax=10**5
            )
            np.testing.assert_allclose(plan.numpy(), expected, rtol=1e-6, atol=1e-12)


def test_the_published_example_by_hand():
    """T=4, N=2, similarities 0.2 + 0.05 sin(1 + t + 2n), in fp64."""
    t, n = torch.meshgrid(torch.arange(4.0, dtype=torch.float64), torch.arange(2.0, dtype=torch.float64), indexing="ij")
    similarity = 0.2 + 0.05 * torch.sin(1 + t + 2 * n)
    found = solve(similarity, SHARED)
    expected = [[0.12337025, 0.12662975], [0.1530635, 0.09693648], [0.13583332, 0.11416667], [0.0877329, 0.16226710]]
    torch.testing.assert_close(found.plan, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5e-8)
    assert float(100 * (found.plan * similarity).sum()) == pytest.approx(19.9272806, abs=1e-6)
    assert found.iterations == 5


def test_an_epsilon_at_which_the_kernel_underflows_still_has_a_plan():
    similarity = torch.tensor([[0.9, -0.9], [-0.9, 0.9]])
    assert torch.exp((similarity - 1) / 0.01)[0, 1] == 0  # what the plain iterations would divide by
    plan = solve(similarity, TransportSettings(epsilon=0.01)).plan
    torch.testing.assert_close(plan, torch.tensor([[0.5, 0.0], [0.0, 0.5]]))


@pytest.fixture
def features() -> tuple[torch.Tensor, torch.Tensor]:
    """Frames [3, 6, 16] and unit descriptors [2, 5, 4, 16]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 6, 16, generator=generator), F.normalize(
        torch.randn(2, 5, 4, 16, generator=generator), dim=-1
    )


def test_a_score_does_not_depend_on_the_videos_and_classes_beside_it(features):
    frames, descriptors = features
    scores = transport_scores(frames, descriptors)
    for video in range(3):
        for label in range(5):
            alone = transport_scores(frames[video, None], descriptors[:, label, None])
            torch.testing.assert_close(alone[0, 0], scores[video, label], rtol=1e-5, atol=1e-6)
    assert (transport_scores(frames, descriptors, SHARED) - scores).abs().max() > 1e-6


def test_the_length_of_a_frames_features_does_not_matter(features):
    frames, descriptors = features
    lengths = torch.rand(3, 6, 1, generator=torch.Generator().manual_seed(1)) + 0.5
    torch.testing.assert_close(transport_scores(frames * lengths, descriptors), transport_scores(frames, descriptors))


@pytest.mark.parametrize("file", ["forward_T8", "forward_T32"])
def test_scores_of_videos_are_the_published_ones(ost_golden, relative_error, file):
    with np.load(ost_golden / f"{file}.npz") as found:
        g = {name: torch.from_numpy(found[name]) for name in found.files if found[name].dtype.kind == "f"}
        if file == "forward_T32":  # without texts, which are those of the other
            with np.load(ost_golden / "forward_T8.npz") as other:
                g |= {name: torch.from_numpy(other[name]) for name in ("text_spatio", "text_temporal")}
        labels = torch.from_numpy(found["train_labels"])
    descriptors = F.normalize(torch.stack([g["text_spatio"], g["text_temporal"]]), dim=-1)
    scale = g["logit_scale"]
    scale = scale.exp() if scale < 10 else scale
    assert relative_error(scale * transport_scores(g["frame_features"], descriptors, SHARED), g["logits"]) < RESULTS
    assert relative_error(scale * transport_scores(g["frame_features"], descriptors), g["logits_alone"]) < RESULTS
    of_batch = transport_scores(g["frame_features"], descriptors[:, labels], SHARED)
    assert relative_error(scale * of_batch, g["train_logits"]) < RESULTS
    for place, name in enumerate(("spatio", "temporal")):
        one = transport_scores(g["frame_features"], descriptors[place, None], SHARED)
        assert relative_error(scale * one, g[f"pool_{name}"] + g[f"ot_{name}"]) < RESULTS


@pytest.mark.parametrize("length", ["T8", "T32"])
def test_gradients_of_scores_are_the_published_ones(ost_golden, relative_error, length):
    with np.load(ost_golden / "head_step.npz") as found:
        g = {name.split("/")[1]: torch.from_numpy(found[name]) for name in found.files if name.startswith(f"{length}/")}
    inputs = [g[name].requires_grad_() for name in ("frame_features", "spatio", "temporal", "log_scale")]
    descriptors = F.normalize(torch.stack([g["spatio"], g["temporal"]]), dim=-1)
    logits = g["log_scale"].exp() * transport_scores(g["frame_features"], descriptors, SHARED)
    assert relative_error(logits, g["logits"]) < RESULTS
    gradients = torch.autograd.grad((logits * g["grad_logits"]).sum(), inputs)
    for name, gradient in zip(("frame_features", "spatio", "temporal", "log_scale"), gradients, strict=True):
        assert relative_error(gradient, g[f"grad_{name}"]) < GRADIENTS, name


def test_scores_are_in_fp32_under_autocast(features):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = transport_scores(*features)
    assert torch.equal(under, transport_scores(*features))


def test_plans_of_chosen_classes_are_those_behind_the_scores(features):
    frames, descriptors = features
    similarity = torch.einsum("btd,sknd->bsktn", F.normalize(frames, dim=-1), descriptors)
    for settings in (TransportSettings(), SHARED):
        plans = transport_plans(frames, descriptors, torch.tensor([4, 1]), settings)
        assert plans.shape == (3, 2, 2, 6, 4)
        torch.testing.assert_close(plans.sum(dim=(-2, -1)), torch.ones(3, 2, 2))
        moved = ((plans + 1 / 24) * similarity[:, :, [4, 1]]).sum(dim=(-2, -1)).mean(dim=1)
        torch.testing.assert_close(moved, transport_scores(frames, descriptors, settings)[:, [4, 1]])


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_an_error_that_names_the_video_or_class(features, wrong):
    frames, descriptors = (copy.deepcopy(x) for x in features)
    frames[1, 2, 3] = wrong
    with pytest.raises(FloatingPointError, match="because of the frame features of video 1 of this batch"):
        transport_scores(frames, descriptors)
    descriptors[1, 3, 0, 0] = descriptors[0, 4, 0, 0] = wrong
    with pytest.raises(FloatingPointError, match="because of the descriptors of class 3 and 1 more of this batch"):
        transport_plans(features[0], descriptors, torch.arange(5))


def test_features_of_other_shapes_are_an_error(features):
    with pytest.raises(
        ValueError, match=r"expected frames \[B, T, D\] and descriptors .* \[3, 6, 8\] and \[2, 5, 4, 16\]"
    ):
        transport_scores(features[0][..., :8], features[1])


def test_an_exported_graph_gives_the_same_scores_of_any_number_of_frames(features):
    few = TransportSettings(iterations=9)  # a graph holds them all
    frames, descriptors = features[0] + 2, F.normalize(features[1] + 0.5, dim=-1)
    ends = solve(torch.einsum("btd,sknd->bsktn", F.normalize(frames, dim=-1), descriptors)).iterations
    assert ends.min() < ends.max() < 9

    class Score(torch.nn.Module):
        def forward(self, frames, descriptors):
            return transport_scores(frames, descriptors, few)

    free = {"frames": {0: Dim("videos", min=1), 1: Dim("frames", min=1)}, "descriptors": None}
    exported = torch.export.export(Score(), (frames, descriptors), dynamic_shapes=free).module()
    torch.testing.assert_close(exported(frames, descriptors), transport_scores(frames, descriptors))
    few_frames = frames[:1, :2]
    torch.testing.assert_close(exported(few_frames, descriptors), transport_scores(few_frames, descriptors, few))


def test_shapes_alone_can_be_computed(features):
    assert transport_scores(*(x.to("meta") for x in features)).shape == (3, 5)


def fastest(function: Callable[[], object]) -> float:
    """Seconds of the fastest of five runs."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def test_400_classes_cost_far_less_than_the_video_they_are_compared_with():
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(1, 32, 512, generator=generator) + 3
    descriptors = F.normalize(torch.randn(2, 400, 4, 512, generator=generator) + 3, dim=-1)
    # ViT-B/16 multiplies and adds 17.6e9 times a frame: 400 such products, if all of it were as fast as one.
    a, b = torch.randn(2, 1120, 1120).unbind()
    encoding = 400 * fastest(lambda: a @ b)
    assert fastest(lambda: transport_scores(frames, descriptors)) < 0.05 * encoding
