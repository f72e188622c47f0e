"""Files in the place of weights, and weights that cannot be: one line that names the file and what is wrong."""

import argparse
import contextlib
import datetime
import gzip
import json
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from clip.load import load_clip
from modules.formats.ours import joined, read_checkpoint
from utils.files import write_text
from utils.weights.files import one_line
from utils.weights.four_keys import save_checkpoint
from utils.weights.model_files import write_model_file

NAN = float("nan")
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 600000000\n"


def content(**more) -> dict:
    head = {"spe_cls_feature": torch.ones(2, 3)}
    model = {"logit_scale": torch.tensor(4.6), "visual.proj": torch.arange(6.0).view(2, 3)}
    return {"epoch": 4, "model_state_dict": model, "fusion_model_state_dict": head, "optimizer_state_dict": {}, **more}


def weights(**changes) -> dict:
    return content() | {"model_state_dict": content()["model_state_dict"] | changes}


def assert_refused(path: Path, *parts: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        read_checkpoint(path)
    message = str(error.value)
    assert "\n" not in message
    assert "\x1b" not in message
    assert all(part in message for part in (path.name, *parts)), message


# --- files that are something else

OTHER_FILES = {
    "empty": (b"", "empty"),
    "text": (b"hello, this is not a checkpoint\n" * 3, "text"),
    "text of other letters": ("größer als vorher\n".encode(), "text"),
    "a web page": (b"<!DOCTYPE html>\n<html><body>404</body></html>", "web page"),
    "a web page without a type": (b"\n <HTML><head></head></html>", "web page"),
    "an XML error": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    "a pointer of git-lfs": (LFS, "git lfs pull"),
    "a gzip archive": (gzip.compress(b"weights"), "gzip"),
    "JSON": (b'{"model": 1}', "text"),
    "zeros": (bytes(5000), "not readable"),
    "numbers": (bytes(range(256)) * 20, "not readable"),
    "the start of a zip": (b"PK\x03\x04" + bytes(200), "damaged"),
    "a pickle cut short": (pickle.dumps({"a": [1] * 100}, protocol=2)[:50], "not readable"),
}


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "x.bin"])
@pytest.mark.parametrize("case", OTHER_FILES)
def test_other_files_are_said_to_be_what_they_are(case, name, tmp_path):
    data, what = OTHER_FILES[case]
    (tmp_path / name).write_bytes(data)
    is_binary = case in ("zeros", "numbers", "the start of a zip", "a pickle cut short")
    assert_refused(tmp_path / name, *(["damaged"] if is_binary and name == "x.safetensors" else [what]))
    with pytest.raises(ValueError, match=rf"{name}: not readable as CLIP weights"):
        load_clip(str(tmp_path / name))


def test_other_zip_archives_are_said_to_be_what_they_are(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    assert_refused(tmp_path / "x.npz", "zip archive that torch.save did not write")
    torch.save(content(), tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(tmp_path / "bomb.pt", "w") as bomb:
        for name in whole.namelist():
            bomb.writestr(name, whole.read(name))
        bomb.writestr("archive/data/9", bytes(2**27), compress_type=zipfile.ZIP_DEFLATED)
    assert_refused(tmp_path / "bomb.pt", "damaged, its parts do not add up")


def test_what_is_no_file_is_named(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.pt")
    assert_refused(tmp_path / "pipe.pt", "not a regular file")
    assert_refused(tmp_path / "gone.pt", "no such file")
    (tmp_path / "folder.pt").mkdir()
    assert_refused(tmp_path / "folder.pt", "model.safetensors: no such file")


def test_content_counts_not_the_name(tmp_path):
    write_model_file(tmp_path / "x.safetensors", joined(content()), content())
    (tmp_path / "x.safetensors").rename(tmp_path / "x.pt")
    assert read_checkpoint(tmp_path / "x.pt")["epoch"] == 4


# --- damage


def test_a_flipped_bit_anywhere_is_found_or_harmless(tmp_path):
    torch.save(content(class_names=["a", "b"]), tmp_path / "whole.pt")
    expected = read_checkpoint(tmp_path / "whole.pt")
    whole, path = (tmp_path / "whole.pt").read_bytes(), tmp_path / "flipped.pt"
    found = 0
    # Everywhere, and every bit of the directory at the end, where an attribute would make a part one of no values.
    places = [(place, place % 8) for place in range(0, len(whole), 7)]
    start = whole.index(b"PK\x01\x02")
    for place, bit in places + [(place, 4) for place in range(start, len(whole))]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        found += is_refused_or_same(path, expected)
    assert found > 100


def test_a_flipped_bit_of_our_safetensors_is_found_or_harmless(tmp_path):
    write_model_file(
        tmp_path / "whole.safetensors", joined(content(class_names=["a", "b"])), content(class_names=["a", "b"])
    )
    expected = read_checkpoint(tmp_path / "whole.safetensors")
    whole, path = (tmp_path / "whole.safetensors").read_bytes(), tmp_path / "flipped.safetensors"
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        is_refused_or_same(path, expected)
    whole = bytearray(whole)
    whole[-1] ^= 1
    path.write_bytes(whole)
    assert_refused(path, "check sum")


def is_refused_or_same(path: Path, expected: dict) -> bool:
    """Whether the file is refused by name; if not, it holds what is expected."""
    with contextlib.suppress(ValueError):
        assert_same(read_checkpoint(path), expected)
        return False
    assert_refused(path)
    return True


def assert_same(found: dict, expected: dict) -> None:
    for part in ("model_state_dict", "fusion_model_state_dict"):
        assert found[part].keys() == expected[part].keys()
        assert all(torch.equal(found[part][name], value) for name, value in expected[part].items())
    assert (found["epoch"], found["class_names"]) == (expected["epoch"], expected["class_names"])


def test_damage_is_called_damage(tmp_path):
    torch.save(content(), tmp_path / "x.pt")
    whole = bytearray((tmp_path / "x.pt").read_bytes())
    values = content()["model_state_dict"]["visual.proj"].numpy().tobytes()
    whole[whole.index(values)] ^= 1
    (tmp_path / "x.pt").write_bytes(whole)
    assert_refused(tmp_path / "x.pt", "damaged", "does not have its check sum")
    (tmp_path / "x.pt").write_bytes(whole[:-30])
    assert_refused(tmp_path / "x.pt", "damaged")


def test_files_from_before_pytorch_1_6_are_read(tmp_path):
    torch.save(content(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(
        read_checkpoint(tmp_path / "old.pt")["model_state_dict"]["visual.proj"], torch.arange(6.0).view(2, 3)
    )


HEADER = json.dumps({"clip.a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
BOTH = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
SAFETENSORS = {
    "a header of 2^62 bytes": struct.pack("<Q", 2**62) + b"{" + bytes(50),
    "a header of no bytes": struct.pack("<Q", 0) + b"{" + bytes(50),
    "a header that is no JSON": struct.pack("<Q", 20) + b"{" + b"x" * 19 + bytes(8),
    "a header of many levels": struct.pack("<Q", 50001) + b"{" + b'"a":{' * 10000 + bytes(8),
    "overlapping tensors": struct.pack("<Q", len(json.dumps({"clip.a": BOTH, "clip.b": BOTH})))
    + json.dumps({"clip.a": BOTH, "clip.b": BOTH}).encode() + bytes(8),
    "data cut short": struct.pack("<Q", len(HEADER)) + HEADER + bytes(4),
    "data too long": struct.pack("<Q", len(HEADER)) + HEADER + bytes(40),
    "a negative offset": struct.pack("<Q", len(HEADER) + 1) + HEADER.replace(b"[0, 8]", b"[-8, 0]") + bytes(8),
    "an absurd shape": struct.pack("<Q", len(HEADER) + 18) + HEADER.replace(b"[2]", b"[%d]" % (2**63 - 1)) + bytes(8),
    "an unknown type": struct.pack("<Q", len(HEADER)) + HEADER.replace(b"F32", b"Q32") + bytes(8),
}  # fmt: skip


@pytest.mark.parametrize("case", SAFETENSORS)
def test_malformed_safetensors_are_named(case, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(SAFETENSORS[case])
    assert_refused(tmp_path / "x.safetensors", "not readable (damaged, or not safetensors: ")
    with pytest.raises(ValueError, match=r"x\.safetensors: not readable as CLIP weights"):
        load_clip(str(tmp_path / "x.safetensors"))


# --- objects that are not read


class Own:
    """Somebody's class."""


REFUSED = {
    "argparse.Namespace": argparse.Namespace(lr=0.1),
    "numpy._core.multiarray.scalar": np.float64(0.5),
    "numpy._core.multiarray._reconstruct": np.zeros(3),
    f"{pathlib.PosixPath.__module__}.PosixPath": pathlib.PosixPath("a"),  # moved in Python 3.13
    "datetime.datetime": datetime.datetime(2024, 1, 1),
    "torch.nn.modules.linear.Linear": torch.nn.Linear(1, 1),
    f"{__name__}.Own": Own(),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_object_is_named_with_the_safe_way(name, protocol, tmp_path):
    if name.startswith("numpy") and protocol == 4:
        pytest.skip("NumPy names its functions otherwise there")
    torch.save(content(args=REFUSED[name]), tmp_path / "x.pt", pickle_protocol=protocol)
    assert_refused(tmp_path / "x.pt", name, "weights_only", "state_dict", "the safe way: ")


def test_a_refused_object_in_a_plain_pickle_or_an_old_file_is_named(tmp_path):
    (tmp_path / "x.pt").write_bytes(pickle.dumps(content(args=argparse.Namespace())))
    assert_refused(tmp_path / "x.pt", "argparse.Namespace")
    torch.save(content(args=argparse.Namespace()), tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert_refused(tmp_path / "x.pt", "argparse.Namespace")


def test_a_command_in_a_pickle_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            import os

            return os.mkdir, (str(tmp_path / "made"),)

    torch.save(content(args=Evil()), tmp_path / "x.pt")
    assert_refused(tmp_path / "x.pt", "posix.mkdir")
    assert not (tmp_path / "made").exists()


def test_messages_are_cut_between_words():
    assert one_line(ValueError("\x1b[1mbold\x1b[0m\nmore")) == "bold"
    cut = one_line(ValueError("word " * 200))
    assert len(cut) < 310
    assert cut.endswith("word ...")
    assert one_line(ValueError()) == "ValueError"


# --- names and values of weights

WRONG_WEIGHTS = {
    "NaN": (torch.tensor([[1.0, NAN]]), "is not finite: 1 of its 2 values"),
    "infinite": (torch.tensor([[1.0, float("inf")]]), "is not finite"),
    "too large for float32": (torch.tensor([1e300], dtype=torch.float64), "is not finite"),
    "NaN in bfloat16": (torch.tensor([NAN], dtype=torch.bfloat16), "is not finite"),
    "integers": (torch.ones(2, 3, dtype=torch.int64), "is int64"),
    "bytes": (torch.ones(2, 3, dtype=torch.uint8), "is uint8"),
    "truth values": (torch.ones(2, 3, dtype=torch.bool), "is bool"),
    "complex": (torch.ones(2, 3, dtype=torch.complex64), "is complex64"),
    "float8": (torch.ones(2, 3).to(torch.float8_e4m3fn), "is float8_e4m3fn"),
    "sparse": (torch.ones(2, 3).to_sparse(), "another kind (torch.sparse_coo"),
    "without values": (torch.empty(2, 3, device="meta"), "device meta"),
    "one value repeated": (torch.ones(1).expand(10**12), "repeats a part of its values"),
    "no tensor": (3.0, "is of type float"),
    "a list": ([1.0], "is of type list"),
}


@pytest.mark.parametrize("case", WRONG_WEIGHTS)
def test_what_cannot_be_a_weight_is_named_by_tensor_and_file(case, tmp_path):
    value, what = WRONG_WEIGHTS[case]
    torch.save(weights(**{"visual.proj": value}), tmp_path / "x.pt")
    assert_refused(tmp_path / "x.pt", "visual.proj", what)
    head = content() | {"fusion_model_state_dict": {"spe_cls_feature": value}}
    torch.save(head, tmp_path / "x.pt")
    assert_refused(tmp_path / "x.pt", "spe_cls_feature", what)


@pytest.mark.filterwarnings("ignore")  # they are on their way out
def test_quantized_weights_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(weights(**{"visual.proj": torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8)}), path)
    assert_refused(path, "visual.proj is a tensor of another kind")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_of_every_usual_type_are_read(dtype, tmp_path):
    torch.save(weights(**{"visual.proj": torch.ones(2, 3, dtype=dtype)}), tmp_path / "x.pt")
    found = read_checkpoint(tmp_path / "x.pt")
    assert found["model_state_dict"]["visual.proj"].dtype == dtype
    write_model_file(tmp_path / "x.safetensors", joined(found), found)
    assert read_checkpoint(tmp_path / "x.safetensors")["model_state_dict"]["visual.proj"].dtype == dtype


def test_a_view_that_repeats_a_shorter_storage_is_laid_out(tmp_path):
    repeated = torch.arange(5.0).as_strided((2, 3), (1, 1))
    torch.save(weights(**{"visual.proj": repeated}), tmp_path / "x.pt")
    found = read_checkpoint(tmp_path / "x.pt")
    proj = found["model_state_dict"]["visual.proj"]
    assert torch.equal(proj, repeated)
    assert proj.untyped_storage().nbytes() == 4 * 6
    write_model_file(tmp_path / "x.safetensors", joined(found), found)  # which takes no others


def test_the_counter_of_a_batch_norm_is_an_integer_and_nothing_else_is(tmp_path):
    name = "visual.bn1.num_batches_tracked"
    for counter in (torch.tensor(7), torch.tensor(7.0).half()):  # the latter where all tensors were halved
        torch.save(weights(**{name: counter}), tmp_path / "x.pt")
        assert read_checkpoint(tmp_path / "x.pt")["model_state_dict"][name].item() == 7
    torch.save(weights(**{name: torch.tensor(True)}), tmp_path / "x.pt")
    assert_refused(tmp_path / "x.pt", f"{name} is bool, expected int64, float32")


PREFIXES: dict[str, Callable[[str], str]] = {
    "data parallel": lambda name: f"module.{name}",
    "twice": lambda name: f"module.module.{name}",
    "compiled": lambda name: f"_orig_mod.{name}",
    "compiled in data parallel": lambda name: f"module._orig_mod.{name}",
    "data parallel in compiled": lambda name: f"_orig_mod.module.{name}",
    "compiled parts": lambda name: name.replace("visual.", "visual._orig_mod.").replace(".proj", "._orig_mod.proj"),
    "sharded, recomputed": lambda name: f"_fsdp_wrapped_module._checkpoint_wrapped_module.{name}",
}


@pytest.mark.parametrize("case", PREFIXES)
def test_prefixes_of_wrappers_are_taken_off(case, tmp_path):
    parts = ("model_state_dict", "fusion_model_state_dict")
    wrapped = {part: {PREFIXES[case](name): value for name, value in content()[part].items()} for part in parts}
    torch.save(content() | wrapped, tmp_path / "x.pt")
    found = read_checkpoint(tmp_path / "x.pt")
    assert all(found[part].keys() == content()[part].keys() for part in parts)


def test_names_that_fall_together_or_are_none_are_errors(tmp_path):
    torch.save(weights(**{"module.visual.proj": torch.ones(2, 3)}), tmp_path / "x.pt")
    assert_refused(tmp_path / "x.pt", "visual.proj and module.visual.proj are both visual.proj")
    torch.save(content() | {"model_state_dict": {5: torch.ones(1)}}, tmp_path / "x.pt")
    assert_refused(tmp_path / "x.pt", "found the key 5")


@pytest.mark.parametrize(
    ("name", "value"),
    [("epoch", "3"), ("epoch", torch.tensor(3)), ("epoch", True), ("merged", "yes"), ("config", {"data": 1}),
     ("class_names", "a, b"), ("class_names", [1, 2]), ("towers", 5)],
)  # fmt: skip
def test_what_a_checkpoint_says_beside_its_tensors_has_its_type(name, value, tmp_path):
    torch.save(content(**{name: value}), tmp_path / "x.pt")
    assert_refused(tmp_path / "x.pt", f"{name}: expected")


# --- writing


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_to_be_full(tmp_path, monkeypatch):
    """The unfinished file is a link to a device that is always full."""
    link = lambda path, *_: None if path.is_symlink() else path.symlink_to("/dev/full")  # noqa: E731
    opened = Path.open

    def open_full(path: Path, *args, **kwargs):
        if path.suffix == ".part":
            link(path)
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_full)
    large = weights(**{"visual.proj": torch.ones(100_000)})
    with pytest.raises(OSError, match=r"could not write .*x\.pt \(No space left on device\)"):
        save_checkpoint(tmp_path / "x.pt", large)
    with pytest.raises(OSError, match=r"No space left on device: .*x\.safetensors"):
        write_model_file(tmp_path / "x.safetensors", joined(large), large)
    with pytest.raises(OSError, match=r"No space left on device: .*results\.json"):
        write_text(tmp_path / "results.json", "x" * 100_000)
    assert list(tmp_path.iterdir()) == []


def test_safetensors_of_others_need_no_check_sum(tmp_path):
    metadata = {"mote": json.dumps({"epoch": 2})}
    save_file({"clip.a": torch.ones(2)}, tmp_path / "x.safetensors", metadata=metadata)
    assert read_checkpoint(tmp_path / "x.safetensors")["epoch"] == 2
    for wrong in ("[]", "[" * 100_000, "5", '{"epoch": "x"}', "{"):
        (tmp_path / "x.safetensors").write_bytes(save({"clip.a": torch.ones(2)}, metadata={"mote": wrong}))
        with pytest.raises(ValueError, match=r"x\.safetensors: .*expected"):
            read_checkpoint(tmp_path / "x.safetensors")
