"""From a configuration to the model, and what contradicts each other there."""

from dataclasses import replace

import pytest
import torch

from modules.build import build_classes, build_system, build_towers, load_config, plain
from modules.check import check_network
from modules.classes.templates import template_classes
from modules.heads.mean import MeanPooling
from modules.systems.base import Batch, System
from modules.systems.clip import PlainCLIP
from modules.systems.mote import MoTE
from utils.config import Config

NAMES = ["yoga", "juggling balls", "zumba"]


@pytest.fixture
def config(debug_config) -> Config:
    return load_config(debug_config)


def with_network(config: Config, **changes) -> Config:
    return replace(config, network=replace(config.network, **changes))


def with_mote(config: Config, **changes) -> Config:
    return replace(config, sections={"mote": replace(config.sections["mote"], **changes)})


def model_of(config: Config) -> System:
    check_network(config)
    towers = build_towers(config.network, config.data.num_segments, config.data.input_size, config.seed)
    return build_system(config, towers, build_classes(config, towers, NAMES))


def step_of(system: System, draws) -> dict[str, torch.Tensor]:
    """What a training step on cached features reports."""
    return system(Batch(features=torch.randn(2, 3, 32), labels=torch.tensor([0, 2])), draws).reported


def test_the_published_configuration_builds_the_mixture_of_experts(config, draws):
    model = model_of(config)
    assert isinstance(model, MoTE)
    assert model.head.spe_cls_feature.shape == (3, 32)
    assert len(model.head.transformer.resblocks) == 2
    assert len(model.head.transformer.resblocks[0].mlp.fc_up) == 4
    reported = step_of(model, draws)
    assert reported["draws"].shape == (2, 4)
    assert "merged_ce" in reported
    how = model.settings
    assert (how.modulation, how.modulation_classes, how.modulation_temperature) == (True, 5, 0.05)
    assert (how.expert, how.merged, how.feature_mse) == (1.0, 0.5, 0.1)
    assert all(p.requires_grad for p in model.parameters())


def test_the_head_remembers_the_features_of_the_training_classes(config):
    towers = build_towers(config.network, 4, 32, 0)
    expected = template_classes(towers, NAMES, "mote28").encode(towers)
    torch.testing.assert_close(model_of(config).head.spe_cls_feature, expected)
    torch.testing.assert_close(model_of(with_network(config, fix_text=False)).head.spe_cls_feature, expected)


def test_a_seed_gives_one_head_and_another_seed_another(config):
    heads = []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(number)  # what was drawn before does not matter
        heads.append(model_of(replace(config, seed=seed)).head.frame_position_embeddings.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_fix_video_freezes_the_image_tower_and_nothing_else(config):
    model = model_of(with_network(config, fix_video=True))
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("towers.visual.")}


def test_fix_text_false_keeps_a_training_text_tower_and_its_tokens(config):
    config = with_network(config, fix_text=False)
    towers = build_towers(config.network, 4, 32, 0)
    classes = build_classes(config, towers, NAMES)
    assert classes.tokens.shape == (3, 28, 77)
    assert build_system(config, towers, classes).towers.token_embedding.weight.requires_grad


def test_the_text_tower_is_dropped_unless_it_trains(config):
    names = {name.split(".")[1] for name in model_of(config).state_dict() if name.startswith("towers.")}
    assert names == {"visual", "logit_scale"}


def test_sim_header_none_is_mean_pooling(config):
    model = model_of(with_network(config, sim_header="None"))
    assert isinstance(model, PlainCLIP)
    assert isinstance(model.head, MeanPooling)


def test_clip_s_own_head_is_mean_pooling(config):
    for clip in (plain(config), with_network(config, system="clip", sim_header="")):
        model = model_of(clip)
        assert isinstance(model, PlainCLIP)
        assert isinstance(model.head, MeanPooling)


def test_without_weights_on_the_merged_pass_it_is_not_run(config, draws):
    config = with_mote(config, merged=0.0, feature_mse=0.0)
    assert step_of(model_of(config), draws).keys() == {"expert_ce", "logit_scale", "draws"}


def test_modulation_can_be_switched_off_and_set(config):
    assert not model_of(with_mote(config, modulation=False)).settings.modulation
    how = model_of(with_mote(config, modulation_classes=3, modulation_temperature=0.1)).settings
    assert (how.modulation_classes, how.modulation_temperature) == (3, 0.1)


def test_the_towers_learn_at_their_share_of_the_rate(config):
    solver = replace(config.solver, clip_ratio=0.07)
    groups = model_of(replace(config, solver=solver)).groups()
    assert [(group.name, group.lr_ratio) for group in groups] == [("clip", 0.07), ("head", 1.0)]


def test_options_of_the_configuration_reach_clip(config):
    network = replace(config.network, drop_out=0.1, emb_dropout=0.2, activation="gelu", joint_st=True)
    clip_config = build_towers(network, 4, 32, 0).config
    assert (clip_config.drop_path, clip_config.emb_dropout) == (0.1, 0.2)
    assert (clip_config.activation, clip_config.joint_frames) == ("gelu", 4)


def test_init_false_takes_the_image_tower_alone(config):
    trained = build_towers(config.network, 4, 32, 0)
    random_text = build_towers(replace(config.network, init=False), 4, 32, 0)
    assert torch.equal(random_text.visual.proj, trained.visual.proj)
    assert not torch.equal(random_text.text_projection, trained.text_projection)


def test_joint_attention_with_a_temporal_head_is_an_error(config):
    with pytest.raises(ValueError, match=r"network.joint_st.*network.sim_header must be None"):
        check_network(with_network(config, joint_st=True))
    check_network(with_network(config, joint_st=True, sim_header="None"))


def test_unknown_templates_are_an_error_that_lists_them(config):
    with pytest.raises(ValueError, match=r"network.templates: expected one of .*mote28.*, found 'mote29'"):
        check_network(with_network(config, templates="mote29"))


def test_another_input_size_than_the_weights_is_an_error(config):
    with pytest.raises(ValueError, match=r"data.input_size is 224, but .*tiny_clip.pt takes 32 pixels"):
        build_towers(config.network, 4, 224, 0)


def test_an_unknown_head_is_an_error_that_lists_them(config):
    with pytest.raises(ValueError, match=r"sim_header: expected one of Transf, transformer, None, found 'LSTM'"):
        check_network(with_network(config, sim_header="LSTM"))


def test_drop_path_of_a_fixed_text_tower_stays_off_while_classes_are_encoded(config):
    config = with_network(config, drop_out=0.9)
    clip = build_towers(config.network, 4, 32, 0).train()
    features = [build_classes(config, clip, NAMES).features for _ in range(2)]
    assert torch.equal(*features)


def test_what_the_weights_do_not_hold_is_drawn_alike_in_training_and_tests(config):
    network = replace(config.network, init=False)
    texts = [build_towers(network, 4, 32, seed=seed).token_embedding.weight for seed in (1, 1, 2)]
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])
