"""Descriptors of new classes: python -m tools.describe --labels labels.csv --out d.yaml --model http://localhost:8000/v1

A language model writes them, class by class; classes that the file has are kept, so a run that was stopped goes on.
Without --model the prompt is printed, for any chat: its answer is the file.
"""

import argparse
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

from clip.tokenizer import tokenize
from datasets.lists.labels import read_labels
from modules.classes.descriptor_files import LIMITS, SENTENCE, SETS, check_entry, read_descriptors, read_entries
from modules.classes.descriptors import filled
from modules.classes.templates import TEMPLATES
from tools.chat import Answer, open_model
from utils.cli import count, run_main
from utils.config.yaml_text import read_yaml
from utils.files import each_key_once, prepare_output, write_text
from utils.logger import setup_logging
from utils.text import render, shown

logger = logging.getLogger(__name__)

PROMPT = Path(__file__).with_name("describe.txt.jinja")
TRIES = 3  # of a class, each told what was wrong before
# An answer is one object; chats like to put it into a fence, and some models think aloud before.
ANSWER = re.compile(r"\s*(?:<think>.*?</think>\s*)?(?:```(?:json)?\s*\n(.*?)\n\s*```|(.*?))\s*", re.DOTALL)


class Unusable(ValueError):
    """No answer for a class could be used; those for others may be."""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", required=True, help="class names with commas between, or a file")
    parser.add_argument("--out", type=Path, required=True, help="the file of descriptors (.yaml)")
    parser.add_argument("--model", help="http://host:port/v1 (#NAME: one of its models), or a model of transformers")
    parser.add_argument("--num", type=count, default=4, help="texts of each set (default: 4)")
    parser.add_argument("--api_key_env", default="", metavar="NAME", help="environment variable with the server's key")
    parser.add_argument("--timeout_s", type=count, default=300, help="how long a server may be silent (default: 300)")
    args = parser.parse_args(argv)
    if args.out.suffix.lower() not in (".yaml", ".yml"):
        parser.error(f"--out: expected a name that ends with .yaml, found {shown(str(args.out))}")
    return args


def main(argv: list[str] | None = None) -> Path:
    """Describe the classes that the file lacks; returns the file.

    Raises:
        ValueError, OSError: one line: labels, file, model or server; what was described before is in the file.
        SystemExit: with status 1, when all else is written, if the answers for some classes could not be used.
    """
    args = parse_args(argv)
    setup_logging()
    names = read_labels(args.labels)
    entries = read_entries(args.out) if args.out.exists() else {}
    for name in names:
        if name in entries:
            check_texts(name, entries[name], args.num, f"{args.out}: class {shown(name)}")
    missing = [name for name in names if name not in entries]
    if args.model is None and missing:
        sys.stdout.write(render(PROMPT, names=missing, num=args.num, is_file=True))
        return args.out
    prepare_output(args.out)
    failed = describe(missing, entries, args) if missing else {}
    done = [name for name in names if name in entries]
    if done:
        read_descriptors(args.out, done, args.num)  # warns of texts that two classes have
    num_new = len(missing) - len(failed)
    sys.stdout.write(f"{args.out}: {len(done)} of {len(names)} classes, {num_new} of them new\n")
    if failed:
        lines = "".join(f"\n  {shown(name)}: {reason}" for name, reason in failed.items())
        sys.exit(f"error: {len(failed)} classes are left out, no answer of {TRIES} could be used:{lines}")
    return args.out


def describe(missing: list[str], entries: dict[str, Any], args: argparse.Namespace) -> dict[str, str]:
    """Add the missing classes to the entries, and write these after each; returns why some are still missing."""
    answer = open_model(args.model, args.api_key_env, args.timeout_s)
    failed = {}
    for number, name in enumerate(missing, start=1):
        try:
            entries[name] = described(name, answer, args.num)
        except Unusable as error:
            failed[name] = str(error)
            logger.warning("class %d of %d, %s: left out, %s", number, len(missing), shown(name), error)
        else:
            write_text(args.out, as_yaml(entries))
            logger.info("class %d of %d, %s: written", number, len(missing), shown(name))
    return failed


def described(name: str, answer: Answer, num: int) -> dict[str, Any]:
    """What a model says of a class.

    Raises:
        Unusable: why the last answer could not be used.
    """
    prompt, reason = render(PROMPT, names=[name], num=num, is_file=False), ""
    for _ in range(TRIES):
        text = answer(f"{prompt}\nAn earlier answer could not be used: {reason}\n" if reason else prompt)
        try:
            entry = parse_answer(text or "")
            check_texts(name, entry, num, "the answer")
            return entry
        except ValueError as error:
            reason = str(error)
    raise Unusable(reason)


def parse_answer(text: str) -> Any:
    """The JSON of an answer, with nothing beside it.

    Raises:
        ValueError: it is none, or has a key twice.
    """
    found = ANSWER.fullmatch(text)
    content = found[1] or found[2] or ""
    try:
        return json.loads(content, object_pairs_hook=each_key_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the answer: expected one JSON object, found {shown(text)} ({error})") from None


def check_texts(name: str, entry: Any, num: int, where: str) -> None:
    """See that the entry of a class is one that a file may have, and that the text tower can read.

    Raises:
        ValueError: another number of texts, one that is empty, too long, there twice, or just the name.
    """
    check_entry(entry, num, where)
    texts = [text for part in SETS for text in entry[part]] + [entry[SENTENCE]]
    plain = [" ".join(text.casefold().split()).rstrip(".") for text in texts]
    for place, text in enumerate(plain):
        if text in (*plain[:place], name.casefold()):
            what = "just the name of the class" if text == name.casefold() else "there twice"
            raise ValueError(f"{where}: {shown(texts[place])} is {what}")
    phrases = [[entry[part]] for part in SETS]
    read = [text for part in filled(phrases, [name]) for text in part[0]]
    try:
        tokenize(read + [template.format(entry[SENTENCE]) for template in TEMPLATES["mote28"]])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if read_yaml(as_yaml({name: entry}), where, LIMITS) != {"classes": {name: entry}}:
        raise ValueError(f"{where}: has characters that a file cannot hold")


def as_yaml(entries: dict[str, Any]) -> str:
    """A file of descriptors."""
    lines = ["classes:"]
    for name, entry in entries.items():
        lines.append(f"  {_quoted(name)}:")
        for part in SETS:
            lines += [f"    {part}:", *(f"      - {_quoted(text)}" for text in entry[part])]
        lines.append(f"    {SENTENCE}: {_quoted(entry[SENTENCE])}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A text of YAML, which reads strings of JSON; letters stay readable."""
    return json.dumps(text, ensure_ascii=False)


if __name__ == "__main__":
    run_main(main)
