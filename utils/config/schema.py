"""What a configuration may hold: sections of typed settings, with ranges.

The keys are the published ones (BIKE's spelling), so published files load unchanged; ``eval`` is a section of ours. The
settings of one system are no field here: each system declares its own (``modules.systems``), with the types below.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, AllowInfNan, BeforeValidator, ConfigDict, Field, Strict, StrictBool, StrictInt
from pydantic.dataclasses import dataclass

from utils.text import has_control_characters

MAX_PIXELS = 40_000_000  # of a picture by default: somewhat more than 8K video has

# The most that a count may be where nothing else limits it: more is a slip of the hand, and no run can use it.
MANY = 10**6
MOST_SECONDS = 10.0**7  # four months; the timers of threads and processes cannot hold much more
LONGEST_TEXT = 4096  # of a value, as of a path
# A number in text: PyYAML takes 5e-5, without a dot, for text, and JSON has no infinity.
NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)(e[-+]?[0-9]+)?|[-+]?\.?inf", re.IGNORECASE)

# Published spellings of towers' names, each with the one that is used here, in paths too.
SAME_ARCHS = {"ViT-L/14-336px": "ViT-L/14@336px"}

Settings = TypeVar("Settings")

# Makes a class of settings: it cannot be changed, and knows no other keys than its fields.
settings = dataclass(frozen=True, config=ConfigDict(extra="forbid"))


@settings
class NoSettings:
    """Section of a system without settings."""


# --- types; what an error raised here says follows "expected"


def _number_of_text(value: Any) -> Any:
    return float(value) if isinstance(value, str) and NUMBER.fullmatch(value) else value


def _one_line(text: str) -> str:
    if len(text) > LONGEST_TEXT or has_control_characters(text):
        raise ValueError(f"one line of at most {LONGEST_TEXT} characters")
    return text


def _name_or_switch(value: Any) -> bool | str:
    if not isinstance(value, bool | str):
        raise ValueError("True, False or a name")
    return value if isinstance(value, bool) else _one_line(value)


def _shares(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) != 2:
        raise ValueError("2 values")
    if not 0.0 < values[0] <= values[1] <= 1.0:
        raise ValueError("two shares 0 < a <= b <= 1")
    return values


def _betas(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) != 2 or not all(0.0 <= value < 1.0 for value in values):
        raise ValueError("two shares of at least 0 and below 1")
    return values


def _positives(values: tuple[float, ...]) -> tuple[float, ...]:
    if not all(0.0 < value < math.inf for value in values) or len(set(values)) < len(values):
        raise ValueError("positive numbers, each once")
    return values


def _divisors(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values:
        raise ValueError("at least one number")
    if any(math.isnan(value) for value in values):
        raise ValueError("numbers")
    if 0.0 in values:
        raise ValueError("numbers other than 0, which would divide by zero")
    return values


Float = Annotated[float, Strict(), BeforeValidator(_number_of_text)]
Number = Annotated[float, Strict(), AllowInfNan(False), BeforeValidator(_number_of_text)]
Text = Annotated[str, Strict(), AfterValidator(_one_line)]
Arch = Annotated[Text, AfterValidator(lambda name: SAME_ARCHS.get(name, name))]
NameOrSwitch = Annotated[Any, AfterValidator(_name_or_switch)]
Shares = Annotated[tuple[Number, ...], AfterValidator(_shares)]
Betas = Annotated[tuple[Number, ...], AfterValidator(_betas)]
Positives = Annotated[tuple[Number, ...], AfterValidator(_positives)]
Temperatures = Annotated[tuple[Float, ...], AfterValidator(_divisors)]  # infinity is one: all are alike


# --- sections


@settings
class RandAugmentConfig:
    """torchvision's RandAugment: N operations of magnitude M, one draw a clip."""

    N: StrictInt = Field(2, ge=0, le=100)
    M: StrictInt = Field(9, ge=0, le=30)


@settings
class SourceConfig:
    """One of several lists that training takes batches from in turn, its videos matched with texts."""

    kind: Text = ""  # what its texts are, a name of datasets.sources.kinds.SOURCES
    root: Text = ""
    list: Text = ""  # captions: a list; transcripts: the folder that datasets.prepare wrote
    num_texts: StrictInt = Field(4, ge=1, le=77)  # K, of transcripts: neighbouring spans of a video
    batch_size: StrictInt = Field(0, ge=0, le=2**16)  # clips a process; 0: data.batch_size
    modality: Literal["video", "shards"] = "video"


@settings
class DataConfig:
    """Lists, frames and batches."""

    dataset: Text = ""  # names the run folder
    # files, folders of extracted frames, packed files, or a cache that extract_features.py wrote
    modality: Literal["video", "RGB", "shards", "features"] = "video"
    num_segments: StrictInt = Field(8, ge=1, le=77)  # T, frames a clip
    batch_size: StrictInt = Field(64, ge=1, le=2**16)  # clips a process
    workers: StrictInt = Field(8, ge=0, le=1024)
    prefetch: StrictInt = Field(2, ge=1, le=1024)  # batches that a worker prepares ahead
    # longest wait for a batch of the workers; 0: no limit
    loader_timeout_s: Number = Field(600.0, ge=0.0, le=MOST_SECONDS)
    decoder: Text = "auto"  # of video files, a name of datasets.decode.decoders; auto: pyav
    # a video or frame with larger pictures counts as unreadable
    max_pixels: StrictInt = Field(MAX_PIXELS, ge=1, le=2**30)
    # a video that takes longer counts as unreadable; 0: no limit
    decode_timeout_s: Number = Field(60.0, ge=0.0, le=MOST_SECONDS)
    num_classes: StrictInt = Field(0, ge=0, le=MANY)  # checked against the label file; 0: whatever it holds
    image_tmpl: Text = "img_{:05d}.jpg"
    index_bias: StrictInt = Field(1, ge=0, le=MANY)  # number of the first extracted frame
    train_root: Text = ""
    train_list: Text = ""
    # Lists to train on in turn, for systems that match videos with texts, in the place of train_list and label_list;
    # then val_list is one of captions
    sources: tuple[SourceConfig, ...] = ()
    val_root: Text = ""
    val_list: Text = ""
    val_transcripts: SourceConfig | None = None  # whose order validation asks for, too
    label_list: Text = ""
    folder: Text = ""  # one folder a class, instead of lists and label file
    val_share: Number = Field(0.2, ge=0.01, le=0.99)  # of each class of ``folder``
    shot: StrictInt = Field(0, ge=0, le=MANY)  # K: train on the same K videos of each class; 0: on all
    shot_seed: StrictInt = Field(0, ge=0, le=2**63 - 1)  # another one draws other videos
    # passes over the train list an epoch; 0: as many as give the length of the list that the K were drawn from
    shot_repeat: StrictInt = Field(1, ge=0, le=MANY)
    input_size: StrictInt = Field(224, ge=0, le=4096)  # 0: what the name of the tower tells
    scale_size: StrictInt = Field(0, ge=0, le=2**14)  # of the short side in evaluation; 0: the preset decides
    transforms: Text = ""  # rules of frames and pictures, a name of datasets.clips.presets; empty: the system's own
    # how pictures are resized, a name of utils.config.pixels.RESIZES; empty: the preset's (``tower``: the tower's own)
    resize: Text = ""
    train_sampling: Text = ""  # rule of training frames, a name of datasets.clips.presets; empty: the preset's
    random_shift: StrictBool = True  # random frames within segments in training
    dense: StrictBool = False  # 128-frame windows instead of the whole video
    crop_area: Shares = (0.08, 1.0)  # of the training crop, as a share of the frame
    randaug: RandAugmentConfig | None = None
    output_path: Text = "./exps"


@settings
class NetworkConfig:
    """The system, CLIP and its options, and the temporal head."""

    system: Text = "mote"  # a name of modules.build.SYSTEMS
    arch: Arch = "ViT-B/16"
    init: StrictBool = True  # False: only the image tower is CLIP's, the text tower is random
    activation: Literal["auto", "quick_gelu", "gelu"] = "auto"  # for local files of LAION's B and L
    drop_out: Number = Field(0.0, ge=0.0, le=0.99)
    emb_dropout: Number = Field(0.0, ge=0.0, le=0.99)
    # temporal module inside the image tower, a name of clip.shift; False: none, True: the one of a ResNet
    tm: NameOrSwitch = False
    joint_st: StrictBool = False  # attention over the patches of all frames
    # how the image tower sees the frames of a clip: frames (each on its own) or divided (space-time attention, see
    # clip.spacetime); empty: the system's own
    tower: Text = ""
    head_width: StrictInt = Field(0, ge=0, le=4096)  # of an attention head in the image tower; 0: 64, or as is known
    # what the backward pass computes again in place of keeping it, a name of clip.blocks.RECOMPUTE; empty: light on
    # a GPU, none on a CPU
    recompute: Text = ""
    # format of the sum through the image tower's blocks in a run in bf16, a name of modules.running.residual.RESIDUAL
    residual: Text = "fp32"
    fix_text: StrictBool = True
    fix_video: StrictBool = False
    # torch.compile of the transformer blocks, a name of modules.compile.COMPILE; True: blocks, False: off
    compile: NameOrSwitch = "auto"
    compile_cache: Text = ""  # folder of compiled code; empty: beside downloaded weights
    classes: Text = "templates"  # what videos are compared with, a name of modules.build.CLASSES
    templates: Text = "mote28"  # a name of modules.classes.templates.TEMPLATES, or a template
    # what templates are filled with: names, sentences (of the data set's file in descriptors/), or a file of these
    class_text: Text = "names"
    sim_header: Text = ""  # the head, a name of modules.build.HEADS (None: mean pooling); empty: the system's own
    temporal_layer: StrictInt = Field(4, ge=1, le=1000)
    num_experts: StrictInt = Field(4, ge=0, le=1000)  # 0: a plain FFN
    # rank of a linear residual behind the features, for training classes alone; 0: none
    residual_projection: StrictInt = Field(0, ge=0, le=4096)


@settings
class SolverConfig:
    """Optimisation; lrs and epochs as published."""

    type: Text = "cosine"  # of the schedule, a name of engine.optim.SCHEDULES
    epochs: StrictInt = Field(30, ge=1, le=MANY)
    start_epoch: StrictInt = Field(0, ge=0, le=MANY)
    optim: Text = "adamw"  # a name of engine.optim.OPTIMIZERS
    momentum: Number = 0.9  # sgd
    betas: Betas = (0.9, 0.999)  # of the Adams: what the means of gradients and their squares keep at each update
    loss_type: Text = ""  # which of the system's losses, a name of its ``losses``; empty: the first
    label_smoothing: Number = Field(0.0, ge=0.0, le=0.99)  # share of the target that all classes get in equal parts
    # Two videos of a batch as one, their shares drawn from Beta(a, a): the a of MixUp (pictures laid over each other)
    # and of CutMix (a box of one in the other); 0: off
    mixup: Number = Field(0.0, ge=0.0, le=100.0)
    cutmix: Number = Field(0.0, ge=0.0, le=100.0)
    mix_switch: Number = Field(0.0, ge=0.0, le=1.0)  # share of the steps that are CutMix's, where both are on
    # what processes get back of the others' rows where a loss compares them: all gradients, or as published (``full``,
    # ``published``; see utils.distributed.gather_rows)
    gather: Text = "full"
    lr: Number = Field(5e-5, ge=0.0)
    clip_ratio: Number = Field(0.07, ge=0.0)  # lr of CLIP's own parameters = lr * clip_ratio
    lr_warmup_step: Number = Field(5.0, ge=0.0, le=MANY)  # epochs
    lr_decay_step: tuple[Number, ...] = ()  # multistep, epochs
    lr_decay_factor: Number = 0.1
    weight_decay: Number = 0.2
    clip_grad_norm: Number = Field(0.0, ge=0.0)  # 0: off
    grad_accumulation_steps: StrictInt = Field(1, ge=1, le=MANY)
    draws: Literal["rank", "shared"] = "rank"  # of random numbers: each process its own, or all alike
    ema: Number = Field(0.0, ge=0.0, le=0.999999)  # decay of the averaged weights kept beside the raw ones, 0: none
    # Mean of CLIP's weights and those of each epoch's end, kept beside the raw ones, a name of
    # utils.weights.epoch_average; empty: none. Mean and sigma of ``gaussian`` are shares of the run
    epoch_average: Text = ""
    epoch_average_mean: Number = Field(0.75, ge=0.0, le=1.0)
    epoch_average_sigma: Number = Field(0.25, ge=0.001, le=1000.0)
    strategy: Literal["ddp", "fsdp"] = "ddp"  # every GPU holds the model, or a part of it
    # longest wait of the processes for each other
    collective_timeout_s: Number = Field(1800.0, ge=1.0, le=MOST_SECONDS)
    evaluate: StrictBool = False  # only validate


@settings
class LossConfig:
    """Remedies against forgetting: weights of what is added to the loss of any system (modules.systems.remedies)."""

    distill: Number = Field(0.0, ge=0.0)  # frame features away from the frozen CLIP's: 2 (1 - cos)
    distill_at: Literal["tower", "head"] = "tower"  # whose frame features: the image tower's, or those after the head
    head_mse: Number = Field(0.0, ge=0.0)  # mean square of what the head changes, as mote.feature_mse
    # KL from a teacher's relations to random anchors; it follows the image tower slowly (TACO: 0.4)
    relations: Number = Field(0.0, ge=0.0)
    anchors: StrictInt = Field(200, ge=2, le=MANY)  # of a step
    relations_temperature: Number = Field(0.01, ge=1e-6)  # of the softmax over anchors
    relations_momentum: Number = Field(0.9998, ge=0.0, le=1.0)  # the teacher keeps this at first, all at last


@settings
class LoggingConfig:
    """How often to report (steps), to validate (epochs) and to save in between."""

    print_freq: StrictInt = Field(10, ge=1, le=MANY)
    eval_freq: StrictInt = Field(1, ge=1, le=MANY)
    save_minutes: Number = Field(15.0, ge=0.0, le=MANY)  # between checkpoints within an epoch, taken at a report
    keep: StrictInt = Field(2, ge=1, le=MANY)  # newest checkpoints kept for resuming


@settings
class EvalConfig:
    """Evaluation constants of the paper and of the published code."""

    weight_average: Number = Field(0.99, ge=0.0, le=1.0)  # share of the tuned weights, the rest is CLIP's
    fusion: Text = ""  # of views, a name of engine.protocols.fusion.FUSIONS; empty: the test command's own
    softmax_scale: Number = Field(1.0, ge=0.0)  # of the cosines before the softmax of close-set fusion
    half_class_trials: StrictInt = Field(10, ge=1, le=MANY)
    mean_ap: StrictBool = False  # mean average precision over classes, too
    map_softmax: StrictBool = False  # of the scores once more before it, as published for ActivityNet
    # Retrieval: lambda of figures where similarities are weighed by their softmax, reported beside the others; 0: none
    dual_softmax: Number = Field(0.0, ge=0.0, le=MANY)
    tie_rule: Text = "mean"  # which place counts among equal similarities, a name of engine.protocols.retrieval


@settings
class ProbeConfig:
    """A linear classifier on frozen vectors (probe.py); nothing of it is published."""

    solver: Text = "logistic"  # a name of engine.protocols.probe.SOLVERS
    values: Positives = ()  # of C (logistic) or of the learning rate (linear), tried in turn; empty: the solver's own
    held_out: Number = Field(0.1, ge=0.01, le=0.9)  # of each class's training videos, which choose the value
    normalize: StrictBool = True  # vectors to unit length before
    steps: StrictInt = Field(1000, ge=1, le=MANY)  # logistic: at most
    epochs: StrictInt = Field(100, ge=1, le=MANY)  # linear
    batch_size: StrictInt = Field(1024, ge=1, le=MANY)  # linear


@settings
class Config:
    """A whole run."""

    resume: Text = ""  # a checkpoint, or auto: the newest one of the run folder
    pretrain: Text = ""
    seed: StrictInt = Field(1024, ge=0, le=2**63 - 1)
    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    # Settings of systems by the system's name: of the one that ``network.system`` names, and of those the file names.
    # In YAML each is a section of its own at the top.
    sections: Mapping[str, Any] = field(default_factory=dict)

    def section(self, name: str, cls: type[Settings]) -> Settings:
        """The settings of the system ``name``, instances of ``cls``; its defaults where the file says nothing."""
        return self.sections.get(name) or cls()
