"""What each part of TVTSv2's loss, each mask and each group of parameters is for."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.flops import count_flops
from engine.optim import build_optimizer, set_lr
from modules.build import load_config
from modules.systems.base import Batch, Draws
from modules.systems.tvtsv2 import TVTSv2Settings
from tests.modules.tvtsv2_on_processes import batch_of as batch_of_six
from tests.modules.tvtsv2_on_processes import system as tiny
from utils.config import SolverConfig


def clips_of(num_clips: int, size: int) -> Tensor:
    return torch.zeros(num_clips, 3, 3, size, size, dtype=torch.uint8)


def draws_of(seed: int) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "kept"), [("b32", 49), ("b16", 98), ("h14", 76)])
def test_shipped_settings_keep_the_published_number_of_patches(repo_root, name, kept):
    config = load_config(repo_root / "configs" / "tvtsv2" / f"pretrain_{name}.yaml")
    section = config.section("tvtsv2", TVTSv2Settings)
    patch = {"b32": 32, "b16": 16, "h14": 14}[name]
    model = tiny(patch_size=patch, image_size=224, mask_ratio=section.mask_ratio)
    keep = model.kept_patches(clips_of(2, 224), draws_of(0))
    assert (49 if keep is None else keep.shape[1]) == kept
    assert (section.text_layers, section.sorter_heads) == ((6, 16) if name == "h14" else (3, 8))
    solver = config.solver
    assert (solver.optim, solver.loss_type, solver.lr, solver.clip_ratio) == (
        "adamw_transformers",
        "contrast",
        1e-4,
        1e-3,
    )


def test_each_clip_shows_other_patches_and_each_step_draws_them_anew():
    model = tiny(patch_size=2, mask_ratio=0.75)
    keep = model.kept_patches(clips_of(5, 16), draws_of(0))
    assert keep.shape == (5, 16)
    assert keep.dtype == torch.int64
    assert all(len(set(row)) == 16 and set(row) <= set(range(64)) for row in keep.tolist())
    assert len({tuple(row) for row in keep.tolist()}) == 5
    assert not torch.equal(keep, keep.sort(dim=1).values)  # the first of a permutation, as they come
    assert torch.equal(keep, model.kept_patches(clips_of(5, 16), draws_of(0)))
    assert not torch.equal(keep, model.kept_patches(clips_of(5, 16), draws_of(1)))
    # Drawn for the clip, not for the batch: the first of five clips is the first of two.
    assert torch.equal(keep[:2], model.kept_patches(clips_of(2, 16), draws_of(0)))


def test_a_step_without_mask_sees_all_patches_and_one_with_it_a_part():
    batch, _ = batch_of_six(slice(6), 1)
    losses = {ratio: tiny(mask_ratio=ratio)(batch, draws_of(0)).total for ratio in (0.0, 0.3, 0.75)}
    assert len({float(loss.detach()) for loss in losses.values()}) == 3
    model, seen = tiny(mask_ratio=0.75), []
    model.towers.visual.ln_pre.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1]))
    model(batch, draws_of(0))
    assert seen == [1 + 3 * 1]  # the class token, and one patch in each of three frames


def test_captions_leave_the_sorter_gradients_of_zero_so_that_decay_and_momentum_move_it():
    model = tiny()
    optimizer = build_optimizer(model.groups(), replace(model.solver, optim="adamw_transformers", weight_decay=0.5))
    batch, _ = batch_of_six(slice(6), 1)
    losses = model(batch, draws_of(0))
    losses.total.backward()
    assert losses.reported.keys() == {"contrastive"}
    assert all(value.grad is not None and not value.grad.any() for value in model.sorter.parameters())
    before = model.sorter.head.weight.detach().clone()
    set_lr(optimizer, 0.1)
    optimizer.step()
    torch.testing.assert_close(model.sorter.head.weight.detach(), 0.95 * before)


def test_the_loss_of_transcripts_is_the_contrast_and_the_weighted_sorting():
    batch, _ = batch_of_six(slice(6), 4)
    losses = tiny(sorting=3.0)(batch, draws_of(0))
    parts = losses.reported
    assert parts.keys() == {"contrastive", "sorting", "order_accuracy"}
    torch.testing.assert_close(losses.total.detach(), parts["contrastive"] + 3.0 * parts["sorting"])
    without = tiny(sorting=0.0)
    assert without.sorter is None
    alone = without(batch, draws_of(0))
    assert alone.reported.keys() == {"contrastive"}
    torch.testing.assert_close(alone.total, parts["contrastive"])


def test_sorting_does_not_train_the_text_tower():
    batch, _ = batch_of_six(slice(6), 4)
    of_text = {}
    for sorting in (0.0, 2.0):
        model = tiny(sorting=sorting)
        model(batch, draws_of(0)).total.backward()
        of_text[sorting] = {
            name: value.grad
            for name, value in model.towers.named_parameters()
            if not name.startswith("visual.") and value.requires_grad
        }
        assert all(value.grad is not None for value in model.parameters() if value.requires_grad)
    for name, gradient in of_text[0.0].items():
        torch.testing.assert_close(of_text[2.0][name], gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("text_layers", "fixed"), [(0, set()), (1, {0}), (2, set())])
def test_the_last_text_blocks_train_and_all_else_of_the_text_tower_but_no_logit_scale(text_layers, fixed):
    model = tiny(text_layers=text_layers)
    towers = model.towers
    assert {
        number
        for number, block in enumerate(towers.transformer.resblocks)
        if not any(value.requires_grad for value in block.parameters())
    } == fixed
    rest = (towers.token_embedding.weight, towers.positional_embedding, towers.ln_final.weight, towers.text_projection)
    assert all(value.requires_grad for value in rest)
    assert not towers.logit_scale.requires_grad
    assert all(value.requires_grad for value in towers.visual.parameters())


def test_more_text_blocks_than_there_are_is_an_error():
    with pytest.raises(ValueError, match=r"tvtsv2\.text_layers: expected at most 2, .* found 3"):
        tiny(text_layers=3)


@pytest.mark.parametrize(("which", "group"), [("published", "clip"), ("all", "new")])
def test_the_temporal_embedding_may_learn_at_the_full_rate(which, group):
    model = tiny(new_parameters=which)
    groups = {each.name: {id(value) for value in each.parameters} for each in model.groups()}
    assert id(model.towers.visual.temporal_embedding) in groups[group]
    assert id(model.towers.visual.transformer.resblocks[0].timeattn.in_proj_weight) in groups["new"]
    assert id(model.towers.visual.transformer.resblocks[0].ln_3.weight) in groups["new_no_decay"]
    assert sum(map(len, groups.values())) == len(list(model.parameters()))


def untrained(**section: object):
    """The system with attention over time as a CLIP of pictures begins with it."""
    model = tiny()
    transformer = model.towers.visual.transformer
    for block in transformer.resblocks:
        torch.nn.init.zeros_(block.timeattn.in_proj_weight)
        torch.nn.init.zeros_(block.timeattn.in_proj_bias)
        torch.nn.init.ones_(block.timeattn.out_proj.weight)
        torch.nn.init.zeros_(block.timeattn.out_proj.bias)
    settings = replace(model.settings, **section)
    return type(model)(model.towers, model.head, model.classes, settings, model.solver)


def gradient_of_time(model) -> float:
    """The largest gradient of the weights of attention over time."""
    blocks = model.towers.visual.transformer.resblocks
    weights = [weight for block in blocks for weight in (block.timeattn.in_proj_weight, block.timeattn.out_proj.weight)]
    return max(float(weight.grad.abs().max()) for weight in weights)


def test_attention_over_time_may_begin_as_that_over_space_which_learns_from_the_first_step():
    batch, _ = batch_of_six(slice(6), 1)
    totals, gradients = {}, {}
    for start in ("published", "space"):
        model = untrained(time_attention=start)
        losses = model(batch, draws_of(0))
        losses.total.backward()
        totals[start], gradients[start] = losses.reported["contrastive"], gradient_of_time(model)
    torch.testing.assert_close(totals["space"], totals["published"])  # it adds nothing yet, either way
    # The layer norm behind it takes away what all channels share, and ones give all channels the same.
    assert gradients["published"] < 1e-4 * gradients["space"]


def test_attention_over_time_that_was_trained_stays_as_it_is():
    model = tiny()
    block = model.towers.visual.transformer.resblocks[0]
    torch.nn.init.normal_(block.timeattn.in_proj_weight)
    before = block.timeattn.in_proj_weight.detach().clone()
    model.towers.visual.transformer.start_time_from_space()
    torch.testing.assert_close(block.timeattn.in_proj_weight.detach(), before)


def test_a_temporal_embedding_that_is_random_may_begin_larger():
    plain, larger = (untrained(temporal_scale=scale).towers.image_tower for scale in (1.0, 4.0))
    torch.testing.assert_close(larger.temporal_embedding, 4 * plain.temporal_embedding)
    torch.testing.assert_close(larger.positional_embedding, plain.positional_embedding)


def test_labels_alone_are_for_cross_entropy_which_needs_no_sorter():
    clips = batch_of_six(slice(6), 1)[0].clips
    batch = Batch(clips=clips, labels=torch.zeros(6, dtype=torch.long))
    with pytest.raises(ValueError, match=r"solver\.loss_type contrast: expected clips with texts, of data\.sources"):
        tiny()(batch, draws_of(0))
    model = tiny(solver=SolverConfig(loss_type="CE"))
    assert model.sorter is None
    losses = model(batch, draws_of(0))
    losses.total.backward()
    assert losses.reported.keys() == {"ce", "logit_scale"}


def test_another_number_of_transcripts_than_places_is_told():
    with pytest.raises(ValueError, match=r"tvtsv2\.sorter_places is 4, but a clip has 3 transcripts"):
        tiny()(batch_of_six(slice(6), 3)[0], draws_of(0))
    assert tiny(sorter_places=3)(batch_of_six(slice(6), 3)[0], draws_of(0)).total.isfinite()


def test_padding_frames_do_not_count():
    batch, _ = batch_of_six(slice(6), 1)
    batch.clips[0, 1:] = 255
    lengths = torch.tensor([1, 3, 3, 3, 3, 3])
    one = tiny()(batch._replace(lengths=lengths), draws_of(0)).total
    batch.clips[0, 1:] = 7
    torch.testing.assert_close(tiny()(batch._replace(lengths=lengths), draws_of(0)).total, one)


def test_operations_of_a_step_are_counted_from_shapes_alone():
    batch, _ = batch_of_six(slice(6), 4)
    shapes = Batch(clips=batch.clips.to("meta"), texts=batch.texts)
    masked, whole = (count_flops(tiny(mask_ratio=ratio), shapes, draws_of(0)) for ratio in (0.75, 0.0))
    assert 0 < masked < whole


def test_under_autocast_the_losses_stay_fp32_and_near_those_without():
    batch, _ = batch_of_six(slice(6), 4)
    expected = tiny()(batch, draws_of(0)).reported
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = tiny()(batch, draws_of(0))
    losses.total.backward()
    assert {value.dtype for value in losses.reported.values()} == {torch.float32}
    for name in ("contrastive", "sorting"):
        torch.testing.assert_close(losses.reported[name], expected[name], rtol=0.1, atol=0)


def test_activations_may_be_computed_twice_with_a_mask():
    batch, _ = batch_of_six(slice(6), 4)
    gradients = []
    for is_on in (False, True):
        model = tiny(mask_ratio=0.5)
        model.towers.checkpoint_activations(is_on)
        model.train()(batch, draws_of(0)).total.backward()
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.requires_grad})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5)
