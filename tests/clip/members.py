"""Small random members of the families of open_clip, made from its own descriptions, as folders for ``local-dir:``."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import pytest
import timm
import torch
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file

# By the beginning of a timm model's name: what makes it small, and nothing of its family less.
SMALL_TRUNKS: dict[str, dict[str, Any]] = {
    "vit_pe_core_large": {"embed_dim": 64, "depth": 3, "num_heads": 4, "attn_pool_num_heads": 4, "img_size": 28},
    "vit_pe_core": {"embed_dim": 64, "depth": 3, "num_heads": 4, "attn_pool_num_heads": 4, "img_size": 32},
    "vit_base_patch16_siglip": {"embed_dim": 64, "depth": 3, "num_heads": 4, "img_size": 32},
    "vit_base_patch32_siglip": {"embed_dim": 64, "depth": 3, "num_heads": 4, "img_size": 64},
    "eva02_base": {"embed_dim": 64, "depth": 3, "num_heads": 4, "img_size": 32},
    "vit_base_mci": {"depth": 2, "img_size": 32},
    "vit_large_patch14_clip": {"embed_dim": 64, "depth": 3, "num_heads": 4, "img_size": 28},
    "fastvit_mci0": {"layers": (1, 1, 1, 1), "embed_dims": (16, 32, 64, 128)},
    "convnext_tiny": {"depths": (1, 1, 1, 1), "dims": (16, 32, 64, 128)},
}


class Member(NamedTuple):
    """A model of open_clip's list, and what is smaller in the one that tests build."""

    name: str
    tag: str
    image_size: int = 32
    vision: dict[str, Any] = {}  # noqa: RUF012 - never changed
    context_length: int = 77
    vocab_size: int = 49408


PLAIN = {"width": 64, "layers": 3, "patch_size": 8, "head_width": 16}
FAMILIES = {
    "PE-Core-T": Member("PE-Core-T-16-384", "meta", context_length=32),
    "PE-Core-S": Member("PE-Core-S-16-384", "meta", context_length=32),
    "PE-Core-B": Member("PE-Core-B-16", "meta", context_length=32),
    "PE-Core-L": Member("PE-Core-L-14-336", "meta", image_size=28, context_length=32),
    "SigLIP2-B-16": Member("ViT-B-16-SigLIP2", "webli", context_length=64, vocab_size=300),
    "SigLIP2-B-32": Member("ViT-B-32-SigLIP2-256", "webli", image_size=64, context_length=64, vocab_size=300),
    "MobileCLIP2-S0": Member("MobileCLIP2-S0", "dfndr2b", image_size=64),
    "MobileCLIP2-B": Member("MobileCLIP2-B", "dfndr2b"),
    "MobileCLIP2-L-14": Member("MobileCLIP2-L-14", "dfndr2b", image_size=28),
    "EVA02": Member("EVA02-B-16", "merged2b_s8b_b131k"),
    "ConvNeXt": Member("convnext_base", "laion400m_s13b_b51k", 64, {"timm_model_name": "convnext_tiny"}),
    "DFN": Member("ViT-B-16-quickgelu", "dfn2b", vision=PLAIN),
    "DFN, squashed": Member("ViT-H-14-378-quickgelu", "dfn5b", vision=PLAIN),
    "DataComp": Member("ViT-B-16", "datacomp_xl_s13b_b90k", vision=PLAIN),
    "MetaCLIP": Member("ViT-B-16-quickgelu", "metaclip_fullcc", vision=PLAIN),
    "OpenAI": Member("ViT-B-16-quickgelu", "openai", vision=PLAIN),
    "CLIPA": Member("ViT-L-14-CLIPA", "datacomp1b", vision=PLAIN, context_length=32, vocab_size=300),
}  # fmt: skip
FAST = ("DFN", "DFN, squashed", "DataComp", "MetaCLIP", "OpenAI")  # computed by clip.model


def shrink_trunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let timm build small models under the names of ``SMALL_TRUNKS``."""
    create = timm.create_model

    def create_small(name: str, **options: Any) -> torch.nn.Module:
        small = next((sizes for start, sizes in SMALL_TRUNKS.items() if name.startswith(start)), {})
        return create(name, **options, **small)

    monkeypatch.setattr(timm, "create_model", create_small)


def description(family: str) -> dict[str, Any]:
    """The content of an ``open_clip_config.json``: open_clip's own, with few layers, narrow and for small pictures."""
    member = FAMILIES[family]
    model, told = open_clip.get_model_config(member.name), open_clip.get_pretrained_cfg(member.name, member.tag)
    model["embed_dim"] = 64
    model["vision_cfg"] |= {"image_size": member.image_size, **member.vision}
    sizes = {"width": 64, "heads": 4, "layers": 2, "vocab_size": member.vocab_size}
    assert model["text_cfg"].get("context_length", 77) == member.context_length  # the family's, and stays
    model["text_cfg"] |= sizes
    model["quick_gelu"] = told.get("quick_gelu", model.get("quick_gelu", False))
    rules = {name: told[name] for name in ("mean", "std", "interpolation", "resize_mode")}
    return {"model_cfg": model, "preprocess_cfg": rules}


def reference_of(tree: dict[str, Any]) -> torch.nn.Module:
    """open_clip's own model of a description, in eval mode, with weights that differ from those it starts with."""
    model = dict(tree["model_cfg"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = (CustomTextCLIP if model.pop("custom_text", False) else CLIP)(**model)
        for name, value in built.named_parameters():
            if value.ndim > 1:
                torch.nn.init.normal_(value, std=0.15)
            elif value.ndim == 1:
                torch.nn.init.normal_(value, mean=1.0 if name.endswith("weight") else 0.0, std=0.1)
        for norm in built.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(norm.running_mean, std=0.1)
                torch.nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return built.eval()


def write_member(family: str, folder: Path) -> tuple[str, torch.nn.Module]:
    """Write a member of a family; its ``network.arch``, and open_clip's own model with the same weights."""
    tree = description(family)
    reference = reference_of(tree)
    return save_member(folder, tree, reference), reference


def save_member(folder: Path, tree: dict[str, Any], reference: torch.nn.Module) -> str:
    """Write a description and its weights; ``network.arch``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(tree))
    tensors = {name: value.contiguous().clone() for name, value in reference.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def some_tokens(context_length: int, vocab_size: int, num_texts: int = 5) -> torch.Tensor:
    """Token ids of texts of several lengths, each ended by the highest id: int64 [N, L]."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.zeros(num_texts, context_length, dtype=torch.long)
    for number, row in enumerate(tokens):
        length = 3 + 4 * number
        row[:length] = torch.randint(1, vocab_size - 1, (length,), generator=generator)
        row[length] = vocab_size - 1
    return tokens
