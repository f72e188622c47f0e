"""What a video file is, by its header and packets: sizes, times, and what is unusual about it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

from datasets.pyav_reader import Index, open_video, read_index
from datasets.readers import UnreadableVideo, check_is_file

UNEVEN_SHARE = 0.01  # of the gaps between frames may be off by 30 % before the frame rate counts as variable
PICTURES = {b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture", b"GIF8": "a GIF picture"}


@dataclass
class Facts:
    """Of one video."""

    num_frames: int = 0
    width: int = 0  # pixels, as shown: after rotation
    height: int = 0
    fps: float = 0.0  # mean
    seconds: float = 0.0
    num_bytes: int = 0
    notes: list[str] = field(default_factory=list)


def probe(path: Path) -> Facts:
    """Facts of a video file, from its packets and its first frame.

    Raises:
        UnreadableVideo: with what the file is instead, where that can be told.
    """
    check_is_file(path)
    if path.stat().st_size == 0:
        raise UnreadableVideo("empty file (0 bytes)")
    start = _start(path)
    for signature, name in PICTURES.items():
        if start.startswith(signature):
            raise UnreadableVideo(f"{name}, not a video")
    try:
        with open_video(path) as (container, stream):
            index = read_index(container, stream)
            facts = _timing(index, float(stream.time_base))
            facts.notes += _container_notes(path, container, stream, facts)
    except UnreadableVideo as error:
        raise UnreadableVideo(_diagnosis(start, str(error))) from error
    facts.num_bytes = path.stat().st_size
    _look_at_first_frame(path, facts)
    return facts


def diagnose(path: str | Path, reason: str) -> str:
    """A decoder's reason, with what the file's first bytes tell of it."""
    path = Path(path)
    if not path.is_file() or not os.access(path, os.R_OK):
        return reason
    return _diagnosis(_start(path), reason) if path.stat().st_size else "empty file (0 bytes)"


def _timing(index: Index, time_base: float) -> Facts:
    facts = Facts(num_frames=len(index.times))
    gaps = np.diff(index.times)
    if index.is_seekable and len(gaps):
        facts.seconds = float(gaps.sum() + np.median(gaps)) * time_base  # the last frame lasts like the others
        facts.fps = facts.num_frames / facts.seconds
        uneven = np.abs(gaps / np.median(gaps) - 1) > 0.3
        if uneven.mean() > UNEVEN_SHARE:
            facts.notes.append(f"variable frame rate ({facts.fps:.3g} frames/s on average)")
    return facts


def _container_notes(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream, facts: Facts
) -> list[str]:
    notes = []
    suffix, extensions = path.suffix.lower().lstrip("."), container.format.extensions
    if extensions and suffix not in extensions:
        notes.append(f"wrong extension: .{suffix}, but the content is {container.format.name}")
    if not facts.fps and stream.average_rate:
        facts.fps = float(stream.average_rate)
        facts.seconds = facts.num_frames / facts.fps
    stated_s = (container.duration or 0) / 1e6
    if stream.frames > 1.02 * facts.num_frames + 1 and "mp4" not in container.format.name:
        notes.append(f"truncated mid-stream: {facts.num_frames} frames, the header says {stream.frames}")
    elif facts.seconds < 0.9 * stated_s - 0.5:
        notes.append(f"truncated mid-stream, or longer sound: {facts.seconds:.1f} s, the header says {stated_s:.1f} s")
    return notes


def _look_at_first_frame(path: Path, facts: Facts) -> None:
    with open_video(path) as (container, stream):
        frame = next(container.decode(stream), None)
        if frame is None:
            raise UnreadableVideo("no frame can be decoded")
        facts.width, facts.height = frame.width, frame.height
        if frame.rotation:
            facts.notes.append(f"rotated by metadata ({frame.rotation % 360} degrees)")
        if frame.rotation % 180:
            facts.width, facts.height = frame.height, frame.width
        bits = max(component.bits for component in frame.format.components)
        if bits > 8:
            facts.notes.append(f"{bits} bits a channel ({frame.format.name})")


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def _diagnosis(start: bytes, reason: str) -> str:
    """A decoder's reason, with what the file's first bytes tell."""
    if start[4:8] == b"ftyp" and not reason.startswith(("truncated", "no video stream (audio")):
        return "truncated in the header: the index of this MP4 (moov) is missing or cut"
    is_text = not any(byte < 32 and byte not in b"\t\n\r" for byte in start)
    return f"text, not a video ({reason})" if is_text else reason
