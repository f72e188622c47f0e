"""What a video file is, by its header and packets: sizes, times, and what is unusual about it."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

from datasets.decode.pyav_reader import Index, open_video, read_index
from datasets.decode.readers import UnreadableVideo, open_regular
from datasets.decode.time_limit import TookTooLong, within

UNEVEN_SHARE = 0.01  # of the gaps between frames may be off by 30 % before the frame rate counts as variable
PICTURES = {b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture"}
MOST_OF_INDEX = 2**26  # bytes of an MP4's index that are searched


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


def probe(path: Path, max_pixels: int) -> Facts:
    """Facts of a video file, from its packets and its first frame.

    Raises:
        UnreadableVideo: see ``datasets.decode.pyav_reader``.
    """
    with open_video(path, max_pixels) as (container, stream):
        index = read_index(container, stream)
        facts = _timing(index, float(stream.time_base))
        facts.notes += _container_notes(path, container, stream, facts)
        facts.num_bytes = container.size
    _look_at_first_frame(path, facts, max_pixels)
    return facts


def diagnosed(path: str | Path, error: UnreadableVideo, limit_s: float) -> str:
    """Why a video is unreadable: the error's reason, after what the file itself tells of it, if anything.

    Args:
        limit_s: of looking into the file, in seconds; 0: none.
    """
    reason = str(error)
    if isinstance(error, TookTooLong):  # it would again
        return reason
    try:
        remark = within(limit_s, _remark, path)
    except (UnreadableVideo, OSError):
        return reason
    return f"{remark} ({reason})" if remark else reason


def _remark(path: str | Path) -> str:
    """What the bytes of an unreadable file tell of it; empty if nothing."""
    with open_regular(path) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
        start = file.read(512)
        if not start:
            return "empty file (0 bytes)"
        for signature, name in PICTURES.items():
            if start.startswith(signature):
                return f"{name}, not a video"
        if start[4:8] == b"ftyp":
            return _remark_on_mp4(file, os.fstat(descriptor).st_size)
    return "" if any(byte < 32 and byte not in b"\t\n\r" for byte in start) else "text, not a video"


def _remark_on_mp4(file: BinaryIO, num_bytes: int) -> str:
    place = 0
    while place + 8 <= num_bytes:  # boxes: length, kind, content
        file.seek(place)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        elif length == 0:  # the last one
            length = num_bytes - place
        if kind == b"moov" and place + length <= num_bytes:
            return "encrypted" if b"encv" in file.read(min(length, MOST_OF_INDEX)) else ""
        place += max(length, 8)
    return "truncated in the header: the index of this MP4 (moov) is missing or cut"


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


def _look_at_first_frame(path: Path, facts: Facts, max_pixels: int) -> None:
    with open_video(path, max_pixels) as (container, stream):
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
