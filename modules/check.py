"""What a configuration may not ask of a model: found before any weights are read."""

from clip.blocks import NONE, RECOMPUTE
from clip.model import IMAGE_TOWERS
from clip.shapes import DIVIDED
from clip.shift import TOKENT1D
from modules.build import CLASSES, DESCRIPTORS, HEADS, SYSTEMS, head_of, kind_of_classes
from modules.classes.classifiers import CLASSIFIERS
from modules.classes.sentences import KEY, NAMES, check_class_text
from modules.classes.templates import templates_of
from modules.compile import COMPILE, WHOLE, way_of
from modules.objectives.contrast import check_batch
from modules.objectives.mixing import SOFT_LOSSES, is_soft, mixes
from modules.running.residual import BF16, RESIDUAL
from modules.systems.remedies import AT_HEAD
from utils.config import Config, check_choice
from utils.distributed import GRADIENTS


def check_network(config: Config, videos_per_step: int | None = None) -> None:
    """Settings that contradict each other, found before any weights are read.

    Args:
        videos_per_step: of training, in the batches of all processes; None: nothing is trained.

    Raises:
        ValueError: names the keys.
    """
    network = config.network
    check_choice("network.system", network.system, SYSTEMS)
    check_choice("network.classes", network.classes, CLASSES)
    check_choice("network.recompute", network.recompute or NONE, RECOMPUTE)
    check_choice("network.residual", network.residual, RESIDUAL)
    if network.residual == BF16 and network.tm == TOKENT1D:
        raise ValueError("network.residual bf16: expected fp32 with network.tm tokent1d, which computes in it")
    _check_compile(config)
    templates_of(network.templates)
    check_class_text(network.class_text)
    check_choice("network.sim_header", head_of(config), HEADS)
    system = SYSTEMS[network.system]
    _check_tower(config)
    check_choice(f"solver.loss_type of {network.system}", config.solver.loss_type, system.losses)
    check_choice("solver.gather", config.solver.gather, GRADIENTS)
    if classifier := system.classifier(config.section(network.system, system.Settings)):
        check_choice(f"{network.system}.classifier", classifier.classifier.partition(":")[0], ("text", *CLASSIFIERS))
    kind = kind_of_classes(config)
    if network.class_text != NAMES and (classifier or kind != "templates"):
        of_system = f"network.system {network.system}, whose classes are {kind}," if system.own_classes else ""
        other = of_system or (f"{network.system}.classifier" if classifier else f"network.classes {kind}")
        raise ValueError(f"{KEY} is what templates are filled with, and {other} has none: set it to {NAMES}")
    if kind == DESCRIPTORS:
        _check_descriptors(config)
    if network.residual_projection and system.text_losses:
        raise ValueError(
            f"network.residual_projection is for the classes of training, and {network.system} compares with any text: "
            "set it to 0"
        )
    if videos_per_step is not None:
        _check_targets(config)
        _check_batches(config, videos_per_step)
        _check_remedies(config)
    if config.solver.ema and config.solver.strategy == "fsdp":
        raise ValueError("solver.ema keeps a whole second model, for which solver.strategy fsdp leaves no room")
    if config.data.modality == "features":
        if not network.fix_video:
            raise ValueError(
                "data.modality features has no pictures to train the image tower on: set network.fix_video to True"
            )
        if network.drop_out or network.emb_dropout:
            raise ValueError(
                "network.drop_out and network.emb_dropout act in the image tower, which data.modality features does "
                "not run: set them to 0"
            )


def _check_compile(config: Config) -> None:
    """See that the way to compile is known, and fits to what is sharded."""
    way = way_of(config.network.compile)
    check_choice("network.compile", way, COMPILE)
    if way == WHOLE and config.solver.strategy == "fsdp":
        raise ValueError(
            "network.compile whole: expected blocks with solver.strategy fsdp, which gathers one at a time"
        )


def _check_tower(config: Config) -> None:
    """See that frames are joined in one way, and that a head finds some to mix."""
    network, system = config.network, SYSTEMS[config.network.system]
    tower = network.tower or system.tower
    check_choice("network.tower", tower, IMAGE_TOWERS)
    is_divided = tower == DIVIDED
    ways = {"tower divided": is_divided, "tm": network.tm, "joint_st": network.joint_st}
    if len(found := [f"network.{name}" for name, is_on in ways.items() if is_on]) > 1:
        raise ValueError(f"{' and '.join(found)}: expected one of them, found {'both' if len(found) == 2 else 'all'}")
    if (network.joint_st or is_divided) and head_of(config) != "None" and not system.skips_head:
        raise ValueError(f"{found[0]} encodes a clip as one vector, so network.sim_header must be None")


def _check_descriptors(config: Config) -> None:
    """See that nothing takes sets of descriptors for one vector a class."""
    if SYSTEMS[config.network.system].own_classes != DESCRIPTORS:
        takers = ", ".join(name for name, system in SYSTEMS.items() if system.own_classes == DESCRIPTORS)
        raise ValueError(
            f"network.classes {DESCRIPTORS}: {config.network.system} compares with one vector a class; expected "
            f"network.system {takers}"
        )
    if config.eval.fusion == "features":
        raise ValueError(
            f"eval.fusion features compares with one vector a class, and {config.network.system} with {DESCRIPTORS}: "
            "set it to softmax, probabilities or cosines"
        )


def _check_targets(config: Config) -> None:
    """See that training has what its loss matches videos with: labels, or texts."""
    name, solver = config.network.system, config.solver
    wants_texts = solver.loss_type in SYSTEMS[name].text_losses
    if wants_texts and not config.data.sources:
        raise ValueError(
            f"solver.loss_type {solver.loss_type} of {name} matches videos with texts: set data.sources (lists of "
            "captions or transcripts)"
        )
    if config.data.val_transcripts and not config.data.sources:
        raise ValueError("data.val_transcripts goes with data.sources, which are not set")
    if config.data.sources and not wants_texts:
        takers = [f"{other} with {', '.join(each.text_losses)}" for other, each in SYSTEMS.items() if each.text_losses]
        raise ValueError(
            f"data.sources has texts in the place of labels, which solver.loss_type {solver.loss_type} of {name} does "
            f"not take; expected network.system {', '.join(takers)}"
        )


def _check_remedies(config: Config) -> None:
    """See that what ``loss`` adds finds the features that it is about."""
    loss, network, system = config.loss, config.network, SYSTEMS[config.network.system]
    asked = [name for name in ("distill", "head_mse", "relations") if getattr(loss, name)]
    if asked and config.solver.loss_type in system.text_losses:
        raise ValueError(
            f"loss.{asked[0]} needs one set of features a clip, and solver.loss_type {config.solver.loss_type} of "
            f"{network.system} leaves patches out: set it to 0"
        )
    is_joined = network.joint_st or (network.tower or system.tower) == DIVIDED
    behind = ("head_mse", *["distill"] * (loss.distill_at == AT_HEAD))
    if is_joined and (about_frames := [name for name in asked if name != "relations"]):
        raise ValueError(
            f"loss.{about_frames[0]} is about the features of single frames, and the image tower (network.tower, "
            "network.joint_st) makes one vector of a clip: set it to 0"
        )
    if head_of(config) == "None" and (at_head := [name for name in asked if name in behind]):
        raise ValueError(f"loss.{at_head[0]}: there is no head to look behind, network.sim_header is None")
    if network.fix_video and (at_tower := [name for name in asked if name not in behind]):
        raise ValueError(
            f"loss.{at_tower[0]} keeps the image tower near a teacher, and network.fix_video keeps it as it is: set "
            "the one to 0 or the other to False"
        )
    if loss.relations and config.solver.strategy == "fsdp":
        raise ValueError("loss.relations keeps a whole second tower, for which solver.strategy fsdp leaves no room")


def _check_batches(config: Config, videos_per_step: int) -> None:
    """See that the loss can do with the batches of training, and with several classes in a video if these are mixed."""
    solver = config.solver
    if solver.loss_type not in SOFT_LOSSES:  # a contrast
        check_batch(videos_per_step)
    if is_soft(solver) and solver.loss_type not in SOFT_LOSSES:
        raise ValueError(
            f"solver.label_smoothing, solver.mixup and solver.cutmix make several classes right in part, and "
            f"solver.loss_type {solver.loss_type} takes one class a video: set them to 0"
        )
    if mixes(solver) and config.data.batch_size < 2:
        raise ValueError(
            "solver.mixup and solver.cutmix mix the videos of a batch with each other: expected data.batch_size of at "
            f"least 2, found {config.data.batch_size}"
        )
    if solver.cutmix and config.data.modality == "features":
        raise ValueError(
            "solver.cutmix puts a part of a picture into another, and data.modality features has no pictures: set it "
            "to 0 (solver.mixup mixes features, too)"
        )
