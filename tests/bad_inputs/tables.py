"""Video lists and label tables with mistakes in them."""

from pathlib import Path

from tests.bad_inputs.kinds import Bad, Places, text

LABELS = "id,name\n0,a bar moving left\n1,a bar moving right\n2,a bar moving up\n3,a bar moving down\n"

# Content of a video list, and what the message must say beside the file's name.
LISTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "empty"),
    "blank lines only": ("\n\n  \n", "empty"),
    "a byte-order mark only": (b"\xef\xbb\xbf", "empty"),
    "a path without label": ("val 00.mp4 0\nval.mp4\n", ":2"),
    "a label in words": ("val 00.mp4 0\nval 01.mp4 two\n", ":2"),
    "a superscript": ("val 00.mp4 \u00b2\n", ":1"),
    "Arabic digits": ("val 00.mp4 \u0663\n", ":1"),
    "a fraction": ("val 00.mp4 1.5\n", ":1"),
    "a negative label": ("val 00.mp4 -1\n", ":1"),
    "a label with a sign": ("val 00.mp4 +1\n", ":1"),
    "an exponent": ("val 00.mp4 1e0\n", ":1"),
    "hexadecimal": ("val 00.mp4 0x1\n", ":1"),
    "5,000 digits": ("val 00.mp4 " + "9" * 5000 + "\n", ":1"),
    "a label beyond the classes": ("val 00.mp4 0\nval 01.mp4 4\n", ":2"),
    "a header": ("path label\nval 00.mp4 0\n", ":1"),
    "a header with commas": ("path,label\nval 00.mp4,0\n", ":1"),
    "labels first": ("0 val 00.mp4\n", ":1"),
    "two labels": ("val 00.mp4 0 1\n", ":1|val 00.mp4 0"),
    "two labels with a comma": ("val 00.mp4 0,1\n", "one label a video, found 'val 00.mp4' with the labels 0,1"),
    "a frame list": ("val_00 120 0\nval_01 80 1\n", ":1|val_00 120"),
    "a quote that is not closed": ('"val 00.mp4 0\n', ":1|val 00.mp4"),
    "UTF-16": ("val 00.mp4 x\n".encode("utf-16"), ":1|UTF"),
    "UTF-16 without a mark": ("val 00.mp4 two\n".encode("utf-16-le"), ":1"),
    "Latin-1": ("caf\xe9.mp4 0\n".encode("latin-1"), "UTF-8"),
    "a NUL in a path": ("val\0 00.mp4 0\n", ":1|NUL"),
    "bytes of a video": (b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00" + bytes(range(128, 256)) * 9, "UTF|:1|NUL"),
    "JSON": ('[{"path": "val 00.mp4", "label": 0}]\n', ":1"),
    "YAML": ("- path: val 00.mp4\n  label: zero\n", ":1"),
    "old Mac line ends with a wrong label": ("val 00.mp4 0\rval 01.mp4 x\r", ":2"),
    "Windows line ends with a wrong label": ("val 00.mp4 0\r\nval 01.mp4 x\r\n", ":2"),
    "a merge conflict": ("val 00.mp4 0\n<<<<<<< HEAD\nval 01.mp4 1\n=======\n", ":2"),
    "an error page": ("<html><body>404</body></html>\n", ":1"),
    "a pointer of git-lfs": ("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", ":1"),
}  # fmt: skip

# Content of a label file.
TABLES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "id"),
    "a header only": ("id,name\n", "class|num_classes|id"),
    "no header": ("0,a\n1,b\n2,c\n3,d\n", "id|name"),
    "no column id": ("name,folder\na,b\n", "id"),
    "no column name": ("id,folder\n0,a\n", "name"),
    "too many fields": ("id,name\n0,a\n1,a cross, red\n2,c\n3,d\n", ":3"),
    "too few fields": ("id,name\n0,a\n1\n2,c\n3,d\n", ":3"),
    "an id in words": ("id,name\n0,a\none,b\n", ":3"),
    "an id that is a superscript": ("id,name\n0,a\n\u00b2,b\n", ":3"),
    "an id of 5,000 digits": ("id,name\n" + "9" * 5000 + ",a\n", ":2"),
    "a negative id": ("id,name\n-1,a\n0,b\n", ":2"),
    "a fraction as id": ("id,name\n0.5,a\n", ":2"),
    "an id twice": ("id,name\n0,a\n0,b\n1,c\n2,d\n", r"t\.csv.*(0|twice|ids)"),
    "a gap": ("id,name\n0,a\n1,b\n2,c\n4,d\n", r"t\.csv.*ids"),
    "ids from one": ("id,name\n1,a\n2,b\n3,c\n4,d\n", r"t\.csv.*ids"),
    "an empty name": ("id,name\n0,a\n1,\n2,c\n3,d\n", ":3"),
    "a name of spaces": ("id,name\n0,a\n1,   \n2,c\n3,d\n", ":3"),
    "a name twice": ("id,name\n0,a\n1,b\n2,a\n3,d\n", "(:2.*4|:4.*2|2 and 4)"),
    "a name twice, in capitals": ("id,name\n0,a cat\n1,b\n2,A Cat\n3,d\n", "(:2.*4|:4.*2|2 and 4)"),
    "a name twice, other spaces": ("id,name\n0,a cat\n1,b\n2,a  cat\n3,d\n", "(:2.*4|:4.*2|2 and 4)"),
    "a line break in a name": ('id,name\n0,"a\ncat"\n1,b\n2,c\n3,d\n', ":2"),
    "a NUL in a name": ("id,name\n0,a\0b\n1,b\n2,c\n3,d\n", ":2|NUL"),
    "a bell in a name": ("id,name\n0,a\ab\n1,b\n2,c\n3,d\n", ":2"),
    "a name of 200,000 characters": ("id,name\n0,a\n1," + "x" * 200_000 + "\n2,c\n3,d\n", ":3"),
    "a quote that is not closed": ('id,name\n0,"a\n1,b\n2,c\n3,d\n', ":[2-6]"),
    "another number of classes": (LABELS.rsplit("\n", 2)[0] + "\n", "num_classes is 4"),
    "bytes of a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4, "text|UTF|NUL"),
    "a spreadsheet": (b"PK\x03\x04" + bytes(range(256)) * 20, "text|UTF|NUL|id"),
    "JSON": ('{"0": "a", "1": "b"}\n', "id|name"),
    "a column twice": ("id,name,name\n0,a,b\n1,c,d\n2,e,f\n3,g,h\n", "name"),
    "semicolons, a short row": ("id;name\n0;a\n1\n2;c\n3;d\n", ":3"),
    "tabs, a long row": ("id\tname\n0\ta\n1\tb\tx\n2\tc\n3\td\n", ":3"),
    "UTF-16, an empty name": ("id,name\n0,a\n1,\n2,c\n3,d\n".encode("utf-16"), ":3"),
}  # fmt: skip

# Names given to predict --labels as a file; these have no ids.
NAME_FILES: dict[str, tuple[str, str | bytes, str]] = {
    "empty": ("l.txt", "", "no class names"),
    "blank lines": ("l.txt", "\n\n", "no class names"),
    "a name twice": ("l.txt", "a\nb\na\n", "1.*3|:1.*:3|:3.*1"),
    "a table without names": ("l.csv", "id,label\n0,a\n", "name"),
    "too many fields": ("l.csv", "id,name\n0,a\n1,a cross, red\n", ":3"),
    "a wrong id": ("l.csv", "id,name\n0,a\nx,b\n", ":3"),
    "bytes": ("l.txt", b"\x81\x8d\x00\xff" * 50, "text|NUL|control"),
    "a name too long": ("l.txt", "word " * 300 + "\nb\n", "word"),
    "a video": ("l.csv", b"\x00\x00\x00\x20ftypisom" + bytes(range(200, 256)) * 9, "text|NUL|control"),
}


def _frames(content: str, images: dict[str, bytes] | None = None):
    def make(folder: Path, _: Places) -> None:
        (folder / "l.txt").write_text(content)
        (folder / "t.csv").write_text(LABELS)
        for name, data in (images or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)

    return make


# Lists of frame folders.
FRAME_LISTS = {
    "a video list": ("val.mp4 0\n", ":1"),
    "frames in words": ("a many 0\n", ":1"),
    "10^20 frames": ("a 100000000000000000000 0\n", ":1"),
    "a negative number of frames": ("a -3 0\n", ":1"),
    "no frames": ("a 0 0\n", ":1|no frames|every|all"),
    "a superscript": ("a \u00b2 0\n", ":1"),
}
TEMPLATES = (
    "img_{x}.jpg",
    "img_{}_{}.jpg",
    "{0.foo}",
    "img_{",
    "img.jpg",
    "img_{:d",
    "{!r:x}",
    "img_{:0999999999d}.jpg",
)

# Lists of captions, and of choices.
CAPTION_LISTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "empty"),
    "a label": ("val 00.mp4\ta bar\nval 01.mp4 1\n", ":2"),
    "no caption": ("val 00.mp4\ta bar\nval 01.mp4\t\n", ":2.*empty"),
    "no path": ("\ta bar\n", ":1"),
    "a video in two places": ("val 00.mp4\ta\nval 01.mp4\tb\nval 00.mp4\tc\n", ":3.*line 1"),
    "videos that are not there": ("gone.mp4\ta bar\n", "gone.mp4"),
    "bytes of a video": (b"\x00\x00\x00\x20ftypisom\t" + bytes(range(128, 256)) * 9, "UTF|:1|NUL"),
    "a NUL": ("val 00.mp4\ta\0b\n", ":1|NUL"),
}  # fmt: skip
CHOICE_LISTS: dict[str, tuple[str | bytes, str]] = {
    "captions": ("val 00.mp4\ta bar\n", ":1"),
    "an answer beyond the options": ("val 00.mp4\t2\ta\tb\n", ":1.*2 options"),
    "a negative answer": ("val 00.mp4\t-1\ta\tb\n", ":1"),
    "a superscript": ("val 00.mp4\t\u00b2\ta\tb\n", ":1"),
    "an empty option": ("val 00.mp4\t0\ta\t\tb\n", ":1.*option 1"),
}

TEST = ["--config", "{config}", "--weights", "{weights}", "--output", "{w}/out", "--precision", "fp32"]
TRAIN = ["--config", "{config}", "--log_time", "x", "--precision", "fp32", "data.output_path={w}/runs"]
PREDICT = ["{data}/videos/val 00.mp4", "--arch", "{data}/tiny_clip.pt"]

TABLE_KINDS = (
    [Bad(f"list: {kind}", "train", [*TRAIN, "data.val_list={w}/l.txt"], rf"(?=.*(l\.txt|data\.val_list)).*({says})",
         text("l.txt", content)) for kind, (content, says) in LISTS.items()]
    + [Bad(f"labels: {kind}", "test", [*TEST, "data.label_list={w}/t.csv"], rf"(?=.*(t\.csv)).*({says})",
           text("t.csv", content)) for kind, (content, says) in TABLES.items()]
    + [Bad(f"captions: {kind}", "test_retrieval", [*TEST, "data.val_list={w}/l.txt"],
           rf"(?=.*(l\.txt|debug)).*({says})", text("l.txt", content))
       for kind, (content, says) in CAPTION_LISTS.items()]
    + [Bad(f"choices: {kind}", "test_retrieval", [*TEST, "--choices", "data.val_list={w}/l.txt"],
           rf"(?=.*l\.txt).*({says})", text("l.txt", content)) for kind, (content, says) in CHOICE_LISTS.items()]
    + [Bad(f"names: {kind}", "predict", [*PREDICT, "--labels", f"{{w}}/{name}"], rf"(?=.*{name}|.*word).*({says})",
           text(name, content)) for kind, (name, content, says) in NAME_FILES.items()]
    + [Bad(f"frames: {kind}", "test", [*TEST, "data.modality=RGB", "data.val_list={w}/l.txt", "data.val_root={w}"],
           rf"(?=.*l\.txt|.*unreadable|.*read).*({says})", _frames(content))
       for kind, (content, says) in FRAME_LISTS.items()]
    + [Bad(f"frames: template {template[:30]}", "test",
           [*TEST, "data.modality=RGB", "data.val_list={w}/l.txt", "data.val_root={w}",
            f"data.image_tmpl='{template}'"],
           r"data\.image_tmpl", _frames("a 3 0\n")) for template in TEMPLATES]
)  # fmt: skip
