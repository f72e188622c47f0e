"""Kinds of sources: what of a video's texts a visit takes, and which frames go with them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from datasets.decode.readers import UnreadableVideo
from datasets.lists.captions import read_captions
from datasets.lists.records import VideoList
from datasets.lists.transcripts import TranscriptList, read_transcripts
from datasets.sources import spans
from utils.config import SourceConfig

VISITS = 10  # drawn of a transcript until there are words in each of its spans

FrameRule = Callable[..., np.ndarray]  # (number of frames, rng=generator) -> int64 [T]


class Visit(NamedTuple):
    """What training sees of a video."""

    texts: list[str]  # K, in their order
    indices_of: FrameRule


class Texts(Protocol):
    """The texts of N videos."""

    videos: VideoList
    num_texts: int  # K, of a visit
    fingerprint: str  # of videos and texts, in their order

    def visit(self, index: int, rule: FrameRule, rng: np.random.Generator) -> Visit:
        """Draw texts of a video, and make a rule of whole videos one of the frames that the texts are about.

        Raises:
            UnreadableVideo: no texts can be drawn.
        """


@dataclass(frozen=True)
class Captions:
    """Each video with one of its captions, over all of it.

    Texts are held as arrays, which loader workers share without copying, see ``VideoList``.
    """

    videos: VideoList
    first_lines: np.ndarray  # int64 [N + 1], where the captions of each video begin
    ends: np.ndarray  # int64 [M], where each caption ends
    text: np.ndarray  # uint8, UTF-8
    num_texts = 1

    @property
    def fingerprint(self) -> str:
        """See ``Texts``."""
        digest = hashlib.sha256(self.videos.order_fingerprint().encode())
        for array in (self.first_lines, self.ends, self.text):
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()[:16]

    def caption(self, line: int) -> str:
        """One of M captions."""
        start = self.ends[line - 1] if line else 0
        return self.text[start : self.ends[line]].tobytes().decode()

    def visit(self, index: int, rule: FrameRule, rng: np.random.Generator) -> Visit:
        """See ``Texts``."""
        first, stop = self.first_lines[index : index + 2].tolist()
        return Visit([self.caption(int(rng.integers(first, stop)))], rule)


@dataclass(frozen=True)
class Transcripts:
    """K neighbouring spans of each video, with what is said in them."""

    transcripts: TranscriptList
    num_texts: int  # K

    @property
    def videos(self) -> VideoList:
        """See ``Texts``."""
        return self.transcripts.videos

    @property
    def fingerprint(self) -> str:
        """See ``Texts``."""
        return self.transcripts.fingerprint

    def visit(self, index: int, rule: FrameRule, rng: np.random.Generator) -> Visit:
        """See ``Texts``.

        Where nobody speaks in one of the spans they are drawn once more; the published code trains on empty texts.
        """
        try:
            duration, times, words = self.transcripts.transcript(index)
        except UnicodeDecodeError as error:
            raise UnreadableVideo(f"damaged words of its transcript ({error})") from None
        for _ in range(VISITS):
            drawn = spans.draw(duration, self.num_texts, rng)
            try:
                found = spans.spans_of(drawn, duration, self.num_texts)
            except ValueError as error:
                raise UnreadableVideo(str(error)) from None
            texts = spans.texts_of(found, times, words)
            if all(text.strip() for text in texts):
                return Visit(texts, partial(_frames, rule=rule, found=found, duration=duration))
        raise UnreadableVideo(f"no words in some of {self.num_texts} spans, however they were drawn ({VISITS} times)")


def _frames(
    num_frames: int, rng: np.random.Generator, rule: FrameRule, found: spans.Spans, duration: int
) -> np.ndarray:
    frames = spans.frames_of(found, duration, num_frames)
    if not len(frames):
        raise UnreadableVideo(f"{num_frames} frames in {duration} s: none in the spans that were drawn")
    return spans.within(frames, rule, rng=rng)


def captions(settings: SourceConfig, key: str) -> Captions:
    """Of a list ``path TAB caption``."""
    listed = read_captions(settings.list, settings.root, f"{key}.")
    captions = listed.captions
    lengths = (len(caption.encode()) for caption in captions)
    return Captions(
        listed.videos,
        np.searchsorted(listed.video_of_line, np.arange(len(listed.videos) + 1)),
        np.cumsum(np.fromiter(lengths, dtype=np.int64, count=len(captions))),
        np.frombuffer("".join(captions).encode(), dtype=np.uint8),
    )


def transcripts(settings: SourceConfig, key: str) -> Transcripts:
    """Of a folder that ``python -m datasets.prepare transcripts`` wrote."""
    return Transcripts(read_transcripts(settings.list, settings.root, f"{key}."), settings.num_texts)


ORDERED = "transcripts"  # the kind whose texts have an order
# Values of ``kind`` in data.sources: (settings of a source, its key in errors) -> its texts.
SOURCES: dict[str, Callable[[SourceConfig, str], Texts]] = {"captions": captions, ORDERED: transcripts}
