"""Classes that are vectors against the published code's numbers, and LDA against its definition."""

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modules.classes.templates import TEMPLATES, tokenize_classes
from modules.classes.vectors import Vectors, lda_vectors, linear_vectors, orthogonal_vectors, random_vectors
from modules.scores import cosines

TOLERANCE = 1e-5  # of the largest magnitude
NAMES = ["yoga", "zumba", "tai chi"]


@pytest.fixture(scope="module")
def classifiers(text4vis_golden) -> dict[str, Tensor]:
    """classifiers.npz."""
    with np.load(text4vis_golden / "classifiers.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def matrices(classifiers, published_clip, published_names) -> dict[str, Tensor]:
    """The matrices of classifiers.npz as this code makes them."""
    tokens = tokenize_classes(published_clip, published_names, "single")[:, 0]
    assert TEMPLATES["single"] == ("a video of a person {}.",)
    assert torch.equal(tokens.int(), classifiers["tokens"])
    return {
        "text": published_clip.encode_text(tokens).detach(),
        "random": random_vectors(12, 64, int(classifiers["random_seed"])),
        "orthogonal": orthogonal_vectors(12, 64, int(classifiers["orthogonal_seed"])),
    }


@pytest.mark.parametrize("name", ["text", "random", "orthogonal"])
def test_matrices_are_those_of_the_published_code(classifiers, matrices, relative_error, name):
    assert relative_error(matrices[name], classifiers[f"{name}/matrix"]) < TOLERANCE


@pytest.mark.parametrize("name", ["text", "random", "orthogonal"])
def test_logits_and_gradients_are_those_of_the_published_code(classifiers, matrices, tiny_clip, relative_error, name):
    classes = Vectors(matrices[name], is_trained=True)
    features, scale = (classifiers[key].clone().requires_grad_() for key in ("features", "logit_scale"))
    logits = scale.exp() * cosines(features[:, None], classes.encode(tiny_clip))
    loss = F.cross_entropy(logits, classifiers["labels"])
    loss.backward()
    found = {"logits": logits, "ce": loss, "grad_features": features.grad, "grad_logit_scale": scale.grad}
    found["grad_matrix"] = classes.vectors.grad
    errors = {key: relative_error(value, classifiers[f"{name}/{key}"]) for key, value in found.items()}
    assert max(errors.values()) < TOLERANCE, errors


def test_vectors_are_in_the_state_and_train_only_if_told(tiny_clip):
    fixed, trained = (Vectors(torch.ones(3, 64), is_trained) for is_trained in (False, True))
    assert list(fixed.state_dict()) == ["vectors"]
    assert not fixed.encode(tiny_clip).requires_grad
    assert trained.encode(tiny_clip).requires_grad
    assert len(fixed) == 3


def test_vectors_are_unit_in_fp32_under_autocast(tiny_clip):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = Vectors(random_vectors(5, 64, 0)).encode(tiny_clip)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=1), torch.ones(5))


def test_drawn_vectors_depend_on_their_seed_alone():
    torch.manual_seed(8)
    np.random.seed(8)  # noqa: NPY002 - the generator that must be left alone
    for draw in (random_vectors, orthogonal_vectors, linear_vectors):
        first = draw(5, 16, 1)
        torch.randn(3)
        np.random.rand()  # noqa: NPY002
        assert torch.equal(draw(5, 16, 1), first)
        assert not torch.equal(draw(5, 16, 2), first)


def test_orthogonal_vectors_are_at_right_angles_up_to_one_a_dimension():
    rows = orthogonal_vectors(64, 64, 1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(64), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"text4vis.classifier: orthogonal .* expected at most 64, found 65"):
        orthogonal_vectors(65, 64, 1)


def test_learned_vectors_start_about_one_long():
    lengths = linear_vectors(100, 512, 0).norm(dim=1)
    assert float((lengths - 1).abs().max()) < 0.15


def videos(num_classes: int, each: int) -> tuple[Tensor, Tensor]:
    """Features of classes that differ where videos of one class differ little."""
    generator = torch.Generator().manual_seed(5)
    spread = torch.linspace(0.05, 1.0, 16)
    labels = torch.arange(num_classes).repeat(each)
    centres = 3.0 + 0.3 * torch.randn(num_classes, 16, generator=generator)
    return 7 * (centres[labels] + spread * torch.randn(len(labels), 16, generator=generator)), labels


@pytest.fixture
def sklearn():
    return pytest.importorskip("sklearn", reason="scikit-learn is not installed")


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_lda_is_the_inverse_covariance_times_centred_means_without_their_part_along_the_common_one(
    sklearn, num_classes
):
    from sklearn.covariance import ledoit_wolf

    features, labels = videos(num_classes, 12)
    found = lda_vectors(features, labels, [f"class {number}" for number in range(num_classes)])
    unit = F.normalize(features.double(), dim=-1).numpy()
    covariance = np.zeros((16, 16))
    for label in range(num_classes):
        own = unit[labels.numpy() == label]
        scale = own.std(axis=0)  # scikit-learn shrinks standardised features
        covariance += scale[:, None] * ledoit_wolf((own - own.mean(axis=0)) / scale)[0] * scale / num_classes
    means = np.stack([unit[labels.numpy() == label].mean(axis=0) for label in range(num_classes)])
    common = means.mean(axis=0)
    expected = np.linalg.solve(covariance, (means - common).T).T
    expected = expected @ (np.eye(16) - np.outer(common, common) / (common @ common))
    assert found.shape == (num_classes, 16)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("num_classes", [2, 5])
def test_lda_rows_differ_as_scikit_learn_s_coefficients_but_for_the_common_mean(sklearn, num_classes):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    features, labels = videos(num_classes, 12)
    unit = F.normalize(features.double(), dim=-1).numpy()
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(unit, labels.numpy())
    expected = lda.coef_ if num_classes == 2 else lda.coef_[1:] - lda.coef_[:-1]
    common = lda.means_.mean(axis=0)
    expected = expected - np.outer(expected @ common / (common @ common), common)
    found = lda_vectors(features, labels, ["?"] * num_classes).numpy()
    np.testing.assert_allclose(np.diff(found, axis=0), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(found @ common, 0, atol=1e-5 * np.abs(found).max())


def test_lda_tells_classes_with_much_in_common_apart_better_than_their_means_do(sklearn, tiny_clip):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    features, labels = videos(10, 40)
    train, test = slice(200), slice(200, None)
    unit = F.normalize(features, dim=-1)
    means = torch.stack([unit[train][labels[train] == label].mean(dim=0) for label in range(10)])
    rows = lda_vectors(features[train], labels[train], ["?"] * 10)
    right = {}
    for name, matrix in (("lda", rows), ("means", means)):
        scores = cosines(features[test][:, None], Vectors(matrix).encode(tiny_clip))
        right[name] = float((scores.argmax(dim=1) == labels[test]).float().mean())
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(unit[train].numpy(), labels[train].numpy())
    assert right["lda"] > right["means"] + 0.2
    assert right["lda"] > lda.score(unit[test].numpy(), labels[test].numpy()) - 0.1  # with its intercepts


def test_lda_leaves_out_videos_that_were_not_read_and_says_so(sklearn, caplog):
    features, labels = videos(3, 12)
    expected = lda_vectors(features, labels, NAMES)
    gone = torch.full((2, 16), torch.nan)
    with caplog.at_level(logging.WARNING):
        found = lda_vectors(torch.cat([gone, features]), torch.cat([torch.tensor([0, 2]), labels]), NAMES)
    assert torch.equal(found, expected)
    assert "lda leaves out 2 of 38 videos" in caplog.text


def test_lda_names_classes_without_a_video(sklearn):
    features, labels = videos(3, 12)
    features[labels == 1] = torch.nan
    with pytest.raises(
        ValueError, match=r"text4vis.classifier: lda needs .* of every class, .* none of 'zumba', 'boxing'$"
    ):
        lda_vectors(features, labels, [*NAMES, "boxing"])
    with pytest.raises(ValueError, match=r"none of 'zumba', 'c0', 'c1', 'c2', 'c3' and 6 more$"):
        lda_vectors(features, labels, [*NAMES, *(f"c{number}" for number in range(10))])


def test_lda_refuses_too_few_videos_and_copies_of_one(sklearn):
    features, labels = videos(3, 2)
    with pytest.raises(ValueError, match="more videos than classes, found 3 classes and 3 videos"):
        lda_vectors(features[:3], labels[:3], NAMES)
    with pytest.raises(ValueError, match=r"at least 2 classes .* found 1 classes and 2 videos"):
        lda_vectors(features[:2], torch.zeros(2, dtype=torch.long), ["yoga"])
    with pytest.raises(ValueError, match="no difference between videos of one class"):
        lda_vectors(torch.eye(16)[labels], labels, NAMES)


def test_lda_without_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.discriminant_analysis", None)
    with pytest.raises(ValueError, match=r"lda needs scikit-learn: pip install scikit-learn"):
        lda_vectors(*videos(3, 2), NAMES)
