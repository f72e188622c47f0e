"""What stands for a class in templates: its name, or a sentence that describes it (``network.class_text``)."""

from pathlib import Path

from modules.classes.descriptor_files import sentences_of
from utils.text import shown

FOLDER = Path(__file__).resolve().parents[2] / "descriptors"  # <data set>.yaml each
KEY = "network.class_text"
NAMES, SENTENCES = "names", "sentences"  # its values, beside a file


def class_texts(class_text: str, class_names: list[str], dataset: str) -> list[str]:
    """The text of each class that templates are filled with.

    Args:
        class_text: ``names``: the names themselves; ``sentences``: those of the file of ``dataset`` in ``descriptors``;
            or a file of descriptors.
        dataset: ``data.dataset``.

    Raises:
        FileNotFoundError, ValueError: no such file, or a class is missing in it, see ``sentences_of``.
    """
    if class_text == NAMES:
        return class_names
    path = shipped_file(dataset, f"{KEY}: {SENTENCES}") if class_text == SENTENCES else Path(class_text)
    return sentences_of(path, class_names)


def check_class_text(class_text: str) -> None:
    """See that ``network.class_text`` is one of its values, or has the name of a file of descriptors.

    Raises:
        ValueError: it is not.
    """
    if class_text not in (NAMES, SENTENCES) and Path(class_text).suffix.lower() not in (".yaml", ".yml"):
        raise ValueError(
            f"{KEY}: expected {NAMES}, {SENTENCES} or a .yaml file of descriptors, found {shown(class_text)}"
        )


def shipped_file(dataset: str, key: str) -> Path:
    """The file in ``descriptors/`` of a data set, or of the one that it is a part of: ``hmdb51_split1`` is of hmdb51.

    Args:
        key: of the configuration, that asks for it.

    Raises:
        ValueError: there is none.
    """
    known = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    words = dataset.split("_")
    for length in range(len(words), 0, -1):
        start = "_".join(words[:length])
        if found := [stem for stem in known if f"{stem}_".startswith(f"{start}_")]:
            return FOLDER / f"{found[0]}.yaml"  # the first is the shortest
    raise ValueError(
        f"{key}: descriptors/ has no file for data.dataset {shown(dataset)} (it has {', '.join(known)}): name a file"
    )
