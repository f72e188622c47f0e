"""One pass over a list: every view of every video in its row, whatever batch, share or failure."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datasets.build import build_eval_loader
from datasets.lists.labels import read_class_names
from datasets.read import read_lists
from engine.collect import Pass, Tables, collect, score_views
from modules.build import build_classes, build_system, build_towers, load_config
from modules.classes.base import Classes
from modules.heads.experts import ExpertFFN
from modules.systems.base import Batch, System
from utils.config import Config

CLIPS, CROPS = 2, 3
GONE = (1, 4, 5)  # rows of the list that cannot be read; with batches of 2 one batch fails as a whole


@pytest.fixture(scope="module")
def config(debug_config) -> Config:
    return load_config(debug_config, ["data.batch_size=2", "data.num_segments=2", "network.templates=single"])


@pytest.fixture
def broken(config, tmp_path) -> Config:
    """A list in which three videos are missing."""
    lines = Path(config.data.val_list).read_text().splitlines()
    for row in GONE:
        lines[row] = f"gone {row}.mp4 0"
    (tmp_path / "val.txt").write_text("\n".join(lines))
    return replace(config, data=replace(config.data, val_list=str(tmp_path / "val.txt")))


def build(config: Config) -> tuple[System, Classes]:
    towers = build_towers(config.network, config.data.num_segments, config.data.input_size, config.seed)
    classes = build_classes(config, towers, read_class_names(config.data.label_list))
    model = build_system(config, towers, classes)
    with torch.no_grad():  # far enough from its initialisation that experts and modulation matter
        generator = torch.Generator().manual_seed(0)
        for parameter in model.head.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        model.head.spe_cls_feature += 0.05 * torch.randn(model.head.spe_cls_feature.shape, generator=generator)
    return model, classes


def loader_of(config: Config, rank: int = 0, world_size: int = 1):
    videos = read_lists(config.data, "val", 4)
    return build_eval_loader(config.data, videos, rank, world_size, CLIPS, CROPS)


def evaluate(model: System, loader, classes: Classes, precision, clips_at_once: int = 100) -> Tables:
    return score_views(model, loader, classes, CLIPS * CROPS, Pass(precision, clips_at_once, "test"))


@pytest.fixture(scope="module")
def run(config, fp32):
    """Evaluate one and the same model on the list of a configuration."""
    model, classes = build(config)

    def run(config: Config, clips_at_once: int = 100, **share: int) -> Tables:
        return evaluate(model, loader_of(config, **share), classes, fp32, clips_at_once)

    return run


@pytest.fixture(scope="module")
def whole(run, config) -> Tables:
    """The table of the whole, readable list."""
    return run(config)


def test_every_row_is_the_video_s_own_logits(whole, config):
    assert whole.tables["scores"].shape == (8, CLIPS * CROPS, 4)
    assert whole.tables["scores"].dtype == torch.float32
    assert whole.failures == {}
    model, classes = build(config)
    with torch.no_grad():
        for index, sample in enumerate(loader_of(config).dataset):
            expected = model.eval().score(model.encode(sample.clips), classes.encode(model.towers))
            torch.testing.assert_close(whole.tables["scores"][index], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("batch_size", "clips_at_once"), [(1, 1), (3, 4), (8, 48)])
def test_rows_do_not_depend_on_batch_size_or_clips_in_a_pass(run, whole, config, batch_size, clips_at_once):
    changed = replace(config, data=replace(config.data, batch_size=batch_size))
    torch.testing.assert_close(
        run(changed, clips_at_once).tables["scores"], whole.tables["scores"], rtol=1e-4, atol=1e-5
    )


def test_the_shares_of_processes_sum_to_the_whole_table(run, whole, broken):
    shares = [run(broken, rank=rank, world_size=3) for rank in range(3)]
    expected = whole.tables["scores"].clone()
    expected[list(GONE)] = torch.nan
    table = sum(share.tables["scores"] for share in shares)
    torch.testing.assert_close(table, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
    assert sorted(path for share in shares for path in share.failures) == [f"gone {row}.mp4" for row in GONE]


def test_unreadable_videos_are_rows_of_nan_and_named_with_a_reason(run, whole, broken, caplog):
    views = run(broken)
    failed = views.tables["scores"].isnan()
    assert [row for row in range(8) if failed[row].any()] == list(GONE)
    assert failed[list(GONE)].all()
    assert views.failures == {f"gone {row}.mp4": "no such file" for row in GONE}
    others = [row for row in range(8) if row not in GONE]
    torch.testing.assert_close(views.tables["scores"][others], whole.tables["scores"][others], rtol=1e-4, atol=1e-5)
    assert all(any(f"gone {row}.mp4" in record.message for record in caplog.records) for row in GONE)


def test_a_list_without_a_readable_video_is_all_nan(run, config, tmp_path):
    (tmp_path / "val.txt").write_text("gone.mp4 0\nlost.mp4 1\n")
    views = run(replace(config, data=replace(config.data, val_list=str(tmp_path / "val.txt"))))
    assert views.tables["scores"].shape == (2, 6, 4)
    assert views.tables["scores"].isnan().all()
    assert sorted(views.failures) == ["gone.mp4", "lost.mp4"]


def test_experts_are_merged_once_for_the_whole_pass(config, fp32, monkeypatch):
    merged = []
    merge = ExpertFFN.merged
    monkeypatch.setattr(ExpertFFN, "merged", lambda self: merged.append(self) or merge(self))
    monkeypatch.setattr(ExpertFFN, "forward", lambda *_: pytest.fail("experts ran unmerged"))
    model, classes = build(config)
    evaluate(model, loader_of(config), classes, fp32, clips_at_once=2)
    blocks = model.head.transformer.resblocks
    assert merged == [block.mlp for block in blocks]
    assert all(isinstance(block.mlp, ExpertFFN) for block in blocks)


def test_tokens_are_encoded_once_and_give_what_their_features_give(whole, config, fp32, monkeypatch):
    model, texts = build(replace(config, network=replace(config.network, fix_text=False)))
    calls = []
    encode = model.towers.encode_text
    monkeypatch.setattr(model.towers, "encode_text", lambda tokens: calls.append(len(tokens)) or encode(tokens))
    found = evaluate(model, loader_of(config), texts, fp32, clips_at_once=5).tables["scores"]
    assert calls == [4]
    torch.testing.assert_close(found, whole.tables["scores"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("is_training", [True, False])
def test_the_model_keeps_its_mode_and_gets_no_gradients(config, fp32, is_training):
    model, classes = build(config)
    model.train(is_training)
    views = evaluate(model, loader_of(config), classes, fp32, clips_at_once=100)
    assert model.training == is_training
    assert not views.tables["scores"].requires_grad


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_cosines_that_are_not_finite_are_no_wrong_predictions(broken, fp32, value):
    """With unreadable videos in the list, whose rows are NaN by design."""
    model, classes = build(broken)
    with torch.no_grad():
        model.head.transformer.resblocks[0].ln_1.bias[0] = value
    message = r"^test: the scores of 5 of 8 videos are not finite, the first is val 00\.mp4; the weights are damaged"
    with pytest.raises(FloatingPointError, match=message):
        evaluate(model, loader_of(broken), classes, fp32, clips_at_once=100)
    with torch.no_grad():
        model.head.transformer.resblocks[0].ln_1.bias[0] = 0
    views = evaluate(model, loader_of(broken), classes, fp32, clips_at_once=100)
    assert views.tables["scores"].isnan().flatten(1).any(dim=1).nonzero()[:, 0].tolist() == list(GONE)


def test_one_video_that_is_not_finite_is_named(config, fp32):
    model, classes = build(config)
    encode = model.towers.encode_clips
    model.towers.encode_clips = lambda clips, _: encode(clips) * torch.where(clips.sum() == darkest, torch.nan, 1.0)
    loader = loader_of(config)
    frames = [sample.clips for sample in loader.dataset]
    darkest = frames[3][:2].sum()
    with pytest.raises(
        FloatingPointError, match=r"the scores of 1 of 8 videos are not finite, the first is val 03\.mp4"
    ):
        evaluate(model, loader, classes, fp32, clips_at_once=2)


def test_several_tables_come_from_one_pass(config, broken, fp32):
    model, classes = build(config)
    model.eval()

    def compute(batch: Batch) -> dict[str, torch.Tensor]:
        video = model.video_of(batch)
        return {"embeddings": model.embed(video), "scores": model.score(video, classes.encode(model.towers))}

    shapes = {"scores": (CLIPS * CROPS, 4), "embeddings": (CLIPS * CROPS, 32)}
    found = collect(compute, loader_of(broken), shapes, Pass(fp32, 5, "test"))
    assert {name: tuple(table.shape) for name, table in found.tables.items()} == {
        "scores": (8, 6, 4), "embeddings": (8, 6, 32),
    }  # fmt: skip
    for table in found.tables.values():
        assert table.isnan().flatten(1).all(dim=1).nonzero()[:, 0].tolist() == list(GONE)


def test_a_pass_over_videos_gives_clips_and_nothing_that_could_take_their_place(config, fp32):
    seen = []

    def compute(batch: Batch) -> dict[str, torch.Tensor]:
        seen.append((len(batch.clips), batch.features, batch.labels))
        return {"sums": batch.clips.flatten(1).float().sum(dim=1)}

    collect(compute, loader_of(config), {"sums": (CLIPS * CROPS,)}, Pass(fp32, 5, "test"))
    assert seen == [(5, None, None), (1, None, None)] * 8  # six views a video
