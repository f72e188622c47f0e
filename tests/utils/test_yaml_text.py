"""YAML of strangers: bounded, every key once, and only what means the same to everybody."""

import pytest

from utils.config.yaml_text import read_yaml
from utils.text import MAX_SHOWN, shown

LAUGHS = "data:\n  dataset:\n    - &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"    - &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1\nb: -3\nc: +0", {"a": 1, "b": -3, "c": 0}),
        ("a: 1.5\nb: 5.0e-5\nc: .5\nd: -.inf", {"a": 1.5, "b": 5e-5, "c": 0.5, "d": float("-inf")}),
        ("[017, 0o17, 0x1F, 1:30, 1_000, 2020-01-01, 5e-5, =]",
         ["017", "0o17", "0x1F", "1:30", "1_000", "2020-01-01", "5e-5", "="]),
        ("[yes, Off, ~, null, N]", [True, False, None, None, "N"]),
        ("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}", {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}}),
        ("a: ü".encode(), {"a": "ü"}),
        ("a: ü".encode("utf-8-sig"), {"a": "ü"}),
        ("a: ü".encode("utf-16"), {"a": "ü"}),
    ],
)  # fmt: skip
def test_plain_values_are_read(text, value):
    assert read_yaml(text, "f.yaml") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, r"f\.yaml:7: too much for a configuration: more than 10000 values"),
        ("a: &a " + "x" * 500_000 + "\nb: [" + "*a," * 9000 + "]", r"f\.yaml:2: too much"),
        ("[" + "1," * 500_000 + "]", r"f\.yaml:1: too much"),
        ("[" * 20_000, r"f\.yaml:1: more than 20 lists and mappings"),
        ("a: " + "{a: " * 3000 + "1" + "}" * 3000, r"f\.yaml:1: more than 20 lists and mappings"),
        ("- " * 5000, r"f\.yaml:1: more than 20 lists and mappings"),
        ("".join(" " * i + "a:\n" for i in range(500)), r"f\.yaml:20: more than 20 lists and mappings"),
        ("a: &a [1, *a]", r"f\.yaml:1: the alias 'a' stands within what it names"),
        ("a: *b", r"f\.yaml:1: not YAML: found undefined alias 'b'"),
        ("data:\n  n: 8\n  n: 4\n", r"f\.yaml:3: the key 'n' is given twice, first in line 2"),
        ("a: {x: 1}\nb: 2\na: {y: 1}", r"f\.yaml:3: the key 'a' is given twice, first in line 1"),
        ("{a: 1, a: 2}", r"f\.yaml:1: the key 'a' is given twice, first in line 1"),
        ("a: 1\n'a': 2", r"f\.yaml:2: the key 'a' is given twice"),
        ("x: &x {a: 1}\ny:\n  <<: *x\n  <<: *x", r"f\.yaml:4: the key '<<' is given twice"),
        ("<<: 5", r"f\.yaml:1: not YAML: .*merging"),
        ("a: 1\n2: 3", r"f\.yaml:2: expected a name as key, found '2'"),
        ("~: 3", r"f\.yaml:1: expected a name as key, found '~'"),
        ("yes: 3", r"f\.yaml:1: expected a name as key, found 'yes'"),
        ("? [a, b]\n: 3", r"f\.yaml:1: expected a name as key, found a list or a mapping"),
        ("a: !!python/object:os.system x", r"f\.yaml:1: tags are not allowed"),
        ("a: 1\nb: !!set {x}", r"f\.yaml:2: tags are not allowed"),
        ("a: !!binary aGVsbG8=", r"f\.yaml:1: tags are not allowed"),
        ("a: !!int x", r"f\.yaml:1: tags are not allowed"),
        ("a: !!bool perhaps", r"f\.yaml:1: tags are not allowed"),
        ("a:\n\tb: 1", r"f\.yaml:2: not YAML: .*'\\t' that cannot start any token"),
        ("a: 1\n---\nb: 1", r"f\.yaml:2: not YAML: expected a single document"),
        ("a: [1, 2", r"f\.yaml:1: not YAML: "),
        (b"a: 1\nb: \xe9t\xe9", r"f\.yaml:2: not YAML: "),
        (b"a: 1\nb: \0", r"f\.yaml:2: not YAML: special characters are not allowed"),
        ("a: 1".encode("utf-16-le"), r"f\.yaml:1: not YAML: special characters are not allowed"),
        ("a: \ud800", r"f\.yaml:1: not YAML: special characters are not allowed"),
        (bytes(range(256)) * 10, r"f\.yaml:2: not YAML: "),
        ("#" * 2**21, r"f\.yaml: larger than 1048576 bytes"),
    ],
)
def test_what_is_refused_is_one_short_line_with_file_and_line(text, message):
    with pytest.raises(ValueError, match=message) as error:
        read_yaml(text, "f.yaml")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_long_values_are_cut_in_messages():
    assert shown([1, "a"]) == "[1, 'a']"
    assert shown("x" * 1000) == "'" + "x" * (MAX_SHOWN - 1) + "... (1002 characters)"
