"""From a configuration to the model, and what contradicts each other there."""

from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
import torch

from modules.build import HEADS, build_classes, build_clip, build_model, check_network
from modules.classes.templates import encode_classes
from modules.heads.transformer import MeanPooling
from utils.config import Config, NetworkConfig, load_config

NAMES = ["yoga", "juggling balls", "zumba"]


@pytest.fixture
def config(debug_config) -> Config:
    return load_config(debug_config)


def with_network(config: Config, **changes) -> Config:
    return replace(config, network=replace(config.network, **changes))


def model_of(config: Config):
    check_network(config)
    clip = build_clip(config.network, config.data.num_segments, config.data.input_size, config.seed)
    return build_model(config, clip, build_classes(config.network, clip, NAMES))


def test_the_published_configuration_builds_the_mixture_of_experts(config):
    model = model_of(config)
    assert model.head.spe_cls_feature.shape == (3, 32)
    assert len(model.head.transformer.resblocks) == 2
    assert len(model.head.transformer.resblocks[0].mlp.fc_up) == 4
    assert model.draw_mixing(torch.Generator()).shape == (2, 2, 4)
    assert model.modulation == (5, 0.05)
    assert all(p.requires_grad for p in model.parameters())


def test_the_head_remembers_the_features_of_the_training_classes(config):
    clip = build_clip(config.network, 4, 32, 0)
    expected = encode_classes(clip, NAMES, "mote28")
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
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("clip.visual.")}


def test_fix_text_false_keeps_a_training_text_tower_and_its_tokens(config):
    config = with_network(config, fix_text=False)
    clip = build_clip(config.network, 4, 32, 0)
    classes = build_classes(config.network, clip, NAMES)
    assert classes.shape == (3, 28, 77)
    assert build_model(config, clip, classes).clip.token_embedding.weight.requires_grad


def test_sim_header_none_is_mean_pooling(config):
    assert isinstance(model_of(with_network(config, sim_header="None")).head, MeanPooling)


def test_without_weights_on_the_merged_pass_it_is_not_drawn(config):
    config = replace(config, loss=replace(config.loss, merged=0.0, feature_mse=0.0))
    assert model_of(config).draw_mixing(torch.Generator()).shape == (2, 1, 4)


def test_modulation_can_be_switched_off_and_set(config):
    assert model_of(replace(config, eval=replace(config.eval, modulation=False))).modulation is None
    changed = replace(config.eval, modulation_classes=3, modulation_temperature=0.1)
    assert model_of(replace(config, eval=changed)).modulation == (3, 0.1)


def test_options_of_the_configuration_reach_clip(config):
    network = replace(config.network, drop_out=0.1, emb_dropout=0.2, activation="gelu", joint_st=True)
    clip_config = build_clip(network, 4, 32, 0).config
    assert (clip_config.drop_path, clip_config.emb_dropout) == (0.1, 0.2)
    assert (clip_config.activation, clip_config.joint_frames) == ("gelu", 4)


def test_init_false_takes_the_image_tower_alone(config):
    trained = build_clip(config.network, 4, 32, 0)
    random_text = build_clip(replace(config.network, init=False), 4, 32, 0)
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
        build_clip(config.network, 4, 224, 0)


def test_every_choice_of_sim_header_has_a_head():
    assert set(get_args(get_type_hints(NetworkConfig)["sim_header"])) == set(HEADS)


def test_drop_path_of_a_fixed_text_tower_stays_off_while_classes_are_encoded(config):
    network = replace(config.network, drop_out=0.9)
    clip = build_clip(network, 4, 32, 0).train()
    features = [build_classes(network, clip, NAMES) for _ in range(2)]
    assert torch.equal(*features)


def test_what_the_weights_do_not_hold_is_drawn_alike_in_training_and_tests(config):
    network = replace(config.network, init=False)
    texts = [build_clip(network, 4, 32, seed=seed).token_embedding.weight for seed in (1, 1, 2)]
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])
