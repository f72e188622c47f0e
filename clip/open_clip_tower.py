"""Towers of any open_clip model: PE-Core, SigLIP2, MobileCLIP2, EVA02 and what else its list, the Hub or a folder has.

The modules are open_clip's and timm's own, under their names, so their weights load as they are. A model of OpenAI's
kind (DFN, DataComp, MetaCLIP and LAION's ViTs) is none of these: ``clip.load`` gives it to the towers of
``clip.model``.
"""

import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from clip import trunk
from clip.names.open_clip import HUB, TEXT, Described
from clip.tokenizer import CONTEXT_LENGTH, check_length, tokenize
from clip.towers import Towers, TowerSpec
from utils.weights.files import one_line
from utils.weights.state_dicts import check_fit

# Options of the fast towers, by the keys that set them.
KEYS = {"joint_frames": "joint_st", "time_module": "tm", "activation": "activation"}
TOKENIZER_EXTRA = "requirements-encoders.txt"
# What open_clip, timm and transformers raise about a description that they cannot build.
UNBUILT = (TypeError, ValueError, LookupError, AttributeError, RuntimeError, AssertionError, ImportError, OSError)


class OpenClipTower(Towers):
    """An image and a text tower of open_clip.

    ``logit_bias`` is what a loss of pairs (SigLIP) adds to all scores: it changes no order and no softmax, so nothing
    here uses it; it stays with the weights. None: there is none.
    """

    has_narrow_cone = False

    def __init__(
        self,
        spec: TowerSpec,
        visual: nn.Module | None,
        text: nn.Module,
        scale: nn.Parameter,
        bias: Tensor | None,
        tokenizer: Any,
    ):
        super().__init__(spec)
        self.visual, self.text, self.logit_scale = visual, text, scale
        self.register_buffer("logit_bias", bias)
        self.tokenizer = tokenizer

    @property
    def image_tower(self) -> nn.Module:
        """See ``Towers``."""
        return self.visual

    def checkpoint_activations(self, is_on: bool) -> None:
        """See ``Towers`` and ``clip.trunk.checkpoint``."""
        trunk.checkpoint(self.visual, is_on)

    def blocks(self) -> list[nn.Module]:
        """See ``Towers``."""
        parts = [part for part in (self.visual, getattr(self, "text", None)) if part is not None]
        return [block for part in parts for block in trunk.blocks_of(part)]

    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised images [N, 3, S, S] -> embeddings [N, D], not L2-normalised."""
        return self.visual(images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids [N, L] -> embeddings [N, D], not L2-normalised."""
        return self.text(tokens)

    def tokenize(self, texts: list[str], truncate: bool = False) -> Tensor:
        """See ``Towers``."""
        return self.tokenizer(texts, truncate)

    def text_reader(self) -> Callable[..., Tensor]:
        """See ``Towers``."""
        return self.tokenizer

    def statistics(self) -> list[Tensor]:
        """See ``Towers``."""
        norms = trunk.norms_of(self.visual) if self.visual is not None else []
        return [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]

    def train(self, mode: bool = True) -> "OpenClipTower":
        """BatchNorms whose parameters do not train keep their statistics: a fixed tower stays what it is."""
        super().train(mode)
        for norm in trunk.norms_of(self):
            norm.train(mode and norm.weight is not None and norm.weight.requires_grad)
        return self

    def freeze_text(self) -> None:
        """See ``Towers``."""
        self.text.requires_grad_(False)

    def drop_text(self) -> None:
        """See ``Towers``."""
        del self.text

    def text_part(self) -> "OpenClipTower":
        """See ``Towers``; in eval mode."""
        return OpenClipTower(self.spec, None, self.text, self.logit_scale, self.logit_bias, self.tokenizer).eval()


class ClipTokens:
    """CLIP's vocabulary with the model's own number of tokens, and its own cleaning of texts, if it has one."""

    def __init__(self, context_length: int, options: Mapping[str, Any]):
        self.context_length, self.options = context_length, dict(options)

    def __call__(self, texts: list[str], truncate: bool = False) -> Tensor:
        """See ``Towers.tokenize``."""
        from open_clip.tokenizer import SimpleTokenizer

        own = SimpleTokenizer(context_length=self.context_length, **self.options) if self.options else None
        return tokenize(texts, truncate, self.context_length, own)


class LibraryTokens:
    """A tokenizer of transformers (Gemma's of SigLIP2, for example), as open_clip uses it; read when it is needed."""

    def __init__(self, arch: str, source: str, context_length: int, options: Mapping[str, Any]):
        self.arch, self.source, self.context_length, self.options = arch, source, context_length, dict(options)
        self._read: Any = None

    def __call__(self, texts: list[str], truncate: bool = False) -> Tensor:
        """See ``Towers.tokenize``.

        Raises:
            ValueError: a text is too long; transformers is not installed; the tokenizer's files are missing.
        """
        self._read = self._read or self._build()
        if not truncate:
            for text in texts:
                ids = self._read.tokenizer(self._read.clean_fn(text)).input_ids
                check_length(text, len(ids), self.context_length)
        return self._read(texts)

    def _build(self) -> Any:
        if find_spec("transformers") is None:
            raise ValueError(
                f"network.arch {self.arch}: its tokenizer is one of transformers, not installed: "
                f"pip install -r {TOKENIZER_EXTRA}"
            )
        from open_clip.tokenizer import HFTokenizer

        try:
            return HFTokenizer(self.source, context_length=self.context_length, **self.options)
        except (OSError, ValueError, ImportError) as error:
            raise ValueError(
                f"network.arch {self.arch}: its tokenizer could not be read from {self.source}, expected its "
                f"tokenizer.json and tokenizer_config.json there ({one_line(error)})"
            ) from error


def load_open_clip(
    found: Described, visual_only: bool = False, drop_path: float = 0.0, emb_dropout: float = 0.0, **others: Any
) -> OpenClipTower:
    """A pair of towers with its pretrained weights, in fp32 on the CPU.

    Args:
        visual_only: leave the text tower at its random initialisation.
        drop_path: stochastic depth of the image tower, rising linearly to this rate of its last block.
        emb_dropout: dropout on embedded patches.
        **others: options of ``clip.model``, which these towers do not have.

    Raises:
        ValueError: the weights do not fit the description, or the towers lack an option.
    """
    if given := [f"network.{KEYS.get(name, name)}" for name, value in others.items() if value]:
        raise ValueError(f"{', '.join(given)}: the towers of {found.arch} have no such option")
    model = _built(found, drop_path)
    visual, size = model.visual, found.image_size
    trunk.fit_size(visual, size, found.arch)
    expected, state = model.state_dict(), _in_names_of(model, found.state())
    if visual_only:
        expected, state = (_without_text(names) for names in (expected, state))
    check_fit(expected, state, f"{found.arch}: the weights are not those of its description,")
    model.load_state_dict(state, strict=False)  # in fp32, whatever the file has
    if drop_path:
        trunk.check_drop_path(visual)
    if emb_dropout:
        trunk.add_dropout(visual, emb_dropout)
    trunk.read_first_only(visual)
    for part in (visual, model.text):
        trunk.let_recompute(part)
    text = found.model["text_cfg"]
    context = text.get("context_length", CONTEXT_LENGTH)
    facts = (size, found.model["embed_dim"], text.get("width") or found.model["embed_dim"], context)
    scale = nn.Parameter(model.logit_scale.detach().reshape(()))
    bias = None if model.logit_bias is None else model.logit_bias.detach().reshape(())
    spec = TowerSpec(*facts, **found.rules)
    towers = OpenClipTower(spec, visual, model.text, scale, bias, _tokenizer_of(found, context))
    towers.facts = {
        "activation": "quick_gelu" if found.quick_gelu else "gelu",
        "time_module": "none",
        "vision": json.dumps(found.model["vision_cfg"], sort_keys=True),
    }
    return towers.eval()


def _built(found: Described, drop_path: float) -> nn.Module:
    """open_clip's model with random weights, its text tower a module of its own.

    Raises:
        ValueError: the installed open_clip or timm cannot build it.
    """
    from open_clip.model import CustomTextCLIP

    vision = {**found.model["vision_cfg"], "timm_model_pretrained": False, "patch_dropout": 0.0, "output_tokens": False}
    if "timm_model_name" not in vision and drop_path:
        raise ValueError(f"network.drop_out: the image tower of {found.arch} has no such option")
    if vision.get("timm_drop_path") is not None or drop_path:
        vision["timm_drop_path"] = drop_path  # the configuration decides, not the recipe of the pretraining
    text = {**found.model["text_cfg"], "hf_model_pretrained": False, "output_tokens": False}
    others = {name: value for name, value in found.model.items() if name not in ("custom_text", "quick_gelu")}
    others |= {"vision_cfg": vision, "text_cfg": text, "quick_gelu": found.quick_gelu}
    try:
        return CustomTextCLIP(**others)
    except UNBUILT as error:
        hint = f" (pip install -r {TOKENIZER_EXTRA})" if "transformers" in str(error) else ""
        raise ValueError(
            f"network.arch {found.arch}: open_clip and timm cannot build it: {one_line(error)}{hint}"
        ) from error


def _in_names_of(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in the names of open_clip's newer models, scale and bias as scalars."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state = dict(convert_to_custom_text_state_dict(convert_state_dict(model, dict(state))))
    for name in ("logit_scale", "logit_bias"):
        if name in state and state[name].numel() == 1 and getattr(model, name) is not None:
            state[name] = state[name].reshape(getattr(model, name).shape)
    return state


def _without_text(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith(TEXT)}


def _tokenizer_of(found: Described, context_length: int) -> ClipTokens | LibraryTokens:
    text = found.model["text_cfg"]
    options = text.get("tokenizer_kwargs") or {}
    if not text.get("hf_tokenizer_name"):
        return ClipTokens(context_length, options)
    if mode := text.get("tokenizer_mode"):
        options = {**options, "tokenizer_mode": mode}
    return LibraryTokens(found.arch.removeprefix(HUB), found.tokenizer, context_length, options)
