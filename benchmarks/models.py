"""The models that benchmarks compare: ours and the baseline, on the same random weights."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.baseline import BaselineHead, BaselineVision
from benchmarks.harness import device
from clip.model import CLIP, CLIPConfig
from engine.flops import count_flops
from modules.classes.base import FixedClasses
from modules.heads.experts import MERGE_TEMPERATURES, ExpertTransformer, draw_mixing
from modules.systems.base import Batch, Draws
from modules.systems.mote import MoTE

NUM_CLASSES, NUM_FRAMES = 400, 8

VIT_B16 = CLIPConfig(
    embed_dim=512, image_size=224, patch_size=16, vision_width=768, vision_layers=12, vision_heads=12,
    text_width=512, text_layers=1, text_heads=8,
)  # fmt: skip
VIT_L14 = CLIPConfig(
    embed_dim=768, image_size=224, patch_size=14, vision_width=1024, vision_layers=24, vision_heads=16,
    text_width=768, text_layers=1, text_heads=12,
)  # fmt: skip
TINY = CLIPConfig(
    embed_dim=64, image_size=224, patch_size=112, vision_width=64, vision_layers=2, vision_heads=1,
    text_width=64, text_layers=1, text_heads=1,
)  # fmt: skip
LAYERS = {VIT_B16: 4, VIT_L14: 6, TINY: 1}


def our_model(config: CLIPConfig) -> MoTE:
    """MoTE with four experts; the text tower, dropped anyway, is a single layer."""
    return model_on_cpu(config).to(device())


def model_on_cpu(config: CLIPConfig) -> MoTE:
    """The same, wherever it is to run."""
    torch.manual_seed(0)
    towers = CLIP(config)
    head = ExpertTransformer(config.embed_dim, LAYERS[config], config.text_heads, 4, NUM_CLASSES)
    towers.drop_text()
    return MoTE(towers, head, FixedClasses(class_features(config)))


def encoding_flops(config: CLIPConfig) -> float:
    """Operations of encoding one clip."""
    model = our_model(config)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.encode(random_frames(1).to(device()))
    return float(counter.get_total_flops())


def training_flops(config: CLIPConfig) -> float:
    """Operations of a training step on one clip."""
    labels = torch.zeros(1, dtype=torch.long, device="meta")
    draws = Draws(torch.Generator().manual_seed(0))
    return count_flops(our_model(config).train(), Batch(random_frames(1).to("meta"), labels=labels), draws)


def baseline_vision(config: CLIPConfig) -> BaselineVision:
    """The baseline's image tower with our weights."""
    vision = BaselineVision(config)
    vision.load_state_dict(our_model(config).towers.visual.state_dict())
    return vision.to(device())


def baseline_head(config: CLIPConfig) -> BaselineHead:
    """The baseline's head with our weights."""
    head = BaselineHead(config.embed_dim, LAYERS[config], config.text_heads, 4, NUM_CLASSES)
    head.load_state_dict(our_model(config).head.state_dict())
    return head.to(device())


def draws(config: CLIPConfig) -> torch.Tensor:
    """Mixing weights of one training step, [layers, 2, E]."""
    return draw_mixing(LAYERS[config], 4, MERGE_TEMPERATURES, torch.Generator().manual_seed(0)).to(device())


def random_frames(batch_size: int) -> torch.Tensor:
    """uint8 [B, T, 3, 224, 224], as loaders give them."""
    shape = (batch_size, NUM_FRAMES, 3, 224, 224)
    return as_loaded(torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))


def as_loaded(batch: torch.Tensor) -> torch.Tensor:
    """In page-locked memory where there is a GPU."""
    return batch.pin_memory() if torch.cuda.is_available() else batch


def class_features(config: CLIPConfig) -> torch.Tensor:
    """Unit vectors [K, D]."""
    features = torch.randn(NUM_CLASSES, config.embed_dim, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(features, dim=-1).to(device())
