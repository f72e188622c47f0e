"""The films of the shapes set: videos of several acts, with captions or transcripts, and captions for the others.

A *duo* has two motions of one object in a row, and a caption that says both in their order. A *story* has four acts,
any object and motion each, and a transcript that tells them while they last. Their files stand beside those of the
other parts: `DIR/videos/<part>/`, and

- `DIR/lists/captions_train.txt`, lines `path TAB caption` of the parts train and duo_train;
- `DIR/lists/captions_val.txt` of duo_val, `DIR/lists/retrieval.txt` of duo_seen, and `DIR/lists/retrieval_new.txt` of
  duo_test, whose objects were not seen with these motions, or not at all; in each a caption fits one video;
- `DIR/lists/<story part>.csv` and `DIR/videos/<story part>/annotations/*.json`, as YT-Temporal has them.
"""

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np

from datasets.shapes.captions import Speech, caption, speech_of
from datasets.shapes.render import render
from datasets.shapes.scenes import sample_scenes
from datasets.shapes.videos import (
    FRAME_SIZES,
    FRAMES_PER_SECOND,
    ShapesSpec,
    encode_video,
    hints,
    videos_of,
    write_videos,
)
from datasets.shapes.world import ShapeClass, classes_of
from utils.files import claim_folder, write_text

FILMS_VERSION = 3  # raise it when the same seed gives other films or other texts
DUO_COPIES = {"duo_train": 9, "duo_val": 1, "duo_seen": 1, "duo_test": 1}  # films of an object and two motions
DUO_CLASSES = dict.fromkeys(DUO_COPIES, ("seen",)) | {"duo_test": ("zs_combinations", "zs_objects")}
RETRIEVAL = {"retrieval": "duo_seen", "retrieval_new": "duo_test"}  # list of captions -> its videos
VALIDATED = "story_val"
STORIES = {"story_train": 768, VALIDATED: 64}
FILM_PARTS = (*DUO_COPIES, *STORIES)
DUO_ACT_FRAMES = (14, 20)  # at the rate of the other videos
STORY_ACTS, ACT_SECONDS, REST_SECONDS = 4, 2, 1  # after each act its last picture stands for a while
STORY_RATE = 4  # frames a second


@dataclass(frozen=True)
class Film:
    """One video of several acts, and its number within its part."""

    part: str
    index: int
    acts: tuple[ShapeClass, ...]

    @property
    def is_story(self) -> bool:
        """Whether it has a transcript, in the place of a caption."""
        return self.part in STORIES

    @property
    def path(self) -> str:
        return f"{self.part}/{'data/' if self.is_story else ''}{self.index:04d}.mp4"


def write_films(out: Path, spec: ShapesSpec, workers: int = 1) -> None:
    """Write films and texts beside a set that is written, or complete them; then there is `films_complete.json`.

    Args:
        workers: processes that render and encode; the result does not depend on it.

    Raises:
        ValueError: `out` holds films of another spec.
    """
    marker, settings = out / "films_complete.json", asdict(spec) | {"films_version": FILMS_VERSION}
    claim_folder(out / "films.json", settings)
    if marker.exists():
        return
    films = {part: films_of(part, spec) for part in FILM_PARTS}
    every = [film for part in films.values() for film in part]
    write_videos(out / "videos", every, partial(_write_film, out / "videos", spec.seed), workers)
    (out / "lists").mkdir(exist_ok=True)
    singles = [(video.path, _key(spec.seed, video), (video.shape_class,)) for video in videos_of("train", spec)]
    duos = {part: [(f.path, _key(spec.seed, f), f.acts) for f in films[part]] for part in DUO_COPIES}
    _write_captions(out / "lists" / "captions_train.txt", [*singles, *duos["duo_train"]])
    for name, part in {"captions_val": "duo_val", **RETRIEVAL}.items():
        _write_captions(out / "lists" / f"{name}.txt", duos[part])
    for part in STORIES:
        _write_transcripts(out, part, films[part], spec.seed)
    write_text(marker, json.dumps(settings))


def films_of(part: str, spec: ShapesSpec) -> list[Film]:
    """The films of a part in list order; a scale below 1 leaves some out."""
    acts = _stories(part, spec.seed) if part in STORIES else _duos(part)
    count = max(2, round(len(acts) * min(spec.scale, 1.0)))
    kept = [acts[place * len(acts) // count] for place in range(count)]
    return [Film(part, index, of_film) for index, of_film in enumerate(kept)]


def _duos(part: str) -> list[tuple[ShapeClass, ...]]:
    """All ordered pairs of two motions of one object, each as often as the part has copies."""
    pairs = []
    for label_set in DUO_CLASSES[part]:
        classes = classes_of(label_set)
        pairs += [pair for pair in permutations(classes, 2) if pair[0].object_id == pair[1].object_id]
    return [pair for pair in pairs for _ in range(DUO_COPIES[part])]


def _stories(part: str, seed: int) -> list[tuple[ShapeClass, ...]]:
    """Four different classes of training each, drawn: no two alike, nor one of training as one of validation."""
    generator, classes = np.random.default_rng([seed, zlib.crc32(part.encode())]), classes_of("seen")

    def draw() -> tuple[ShapeClass, ...]:
        return tuple(classes[label] for label in generator.permutation(len(classes))[:STORY_ACTS])

    stories = [draw() for _ in range(STORIES[part])]
    taken = set() if part == VALIDATED else set(_stories(VALIDATED, seed))
    for place in range(len(stories)):
        while stories[place] in taken:
            stories[place] = draw()
        taken.add(stories[place])
    return stories


def render_film(film: Film, seed: int) -> np.ndarray:
    """The frames of a film, uint8 [T, H, W, 3]: a shot for each act, from a generator keyed by seed, part and index."""
    generator = np.random.default_rng(_key(seed, film))
    size = FRAME_SIZES[generator.integers(len(FRAME_SIZES))]
    num_frames = ACT_SECONDS * STORY_RATE
    if not film.is_story:
        num_frames = int(generator.integers(DUO_ACT_FRAMES[0], DUO_ACT_FRAMES[1] + 1))
    object_ids, motion_ids = np.array(film.acts).T
    scenes = sample_scenes(object_ids, motion_ids, np.zeros(len(film.acts), dtype=bool), generator)
    instants = np.linspace(-0.5, 0.5, num_frames, dtype=np.float32)[None].repeat(len(film.acts), axis=0)
    frames = render(scenes, instants, hints(instants.shape, generator), size, generator)  # [acts, T, H, W, 3]
    if film.is_story:
        frames = np.concatenate([frames, frames[:, -1:].repeat(REST_SECONDS * STORY_RATE, axis=1)], axis=1)
    return frames.reshape(-1, *frames.shape[2:])


def film_transcript(film: Film, seed: int) -> Speech:
    """What is said in a story."""
    starts = [place * (ACT_SECONDS + REST_SECONDS) for place in range(len(film.acts))]
    return speech_of(film.acts, starts, ACT_SECONDS, _generator_of_texts(_key(seed, film)))


def _key(seed: int, video: Film) -> list[int]:
    return [seed, zlib.crc32(video.part.encode()), video.index]


def _generator_of_texts(key: Sequence[int]) -> np.random.Generator:
    """Another one than that of the pictures, so that neither changes with the other."""
    return np.random.default_rng([*key, zlib.crc32(b"texts")])


def _write_film(root: Path, seed: int, film: Film) -> None:
    rate = STORY_RATE if film.is_story else FRAMES_PER_SECOND
    encode_video(render_film(film, seed), root / film.path, rate)


def _write_captions(path: Path, videos: Iterable[tuple[str, list[int], tuple[ShapeClass, ...]]]) -> None:
    """Of videos with path, key and acts each."""
    lines = [f"{name}\t{caption(acts, _generator_of_texts(key))}\n" for name, key, acts in videos]
    write_text(path, "".join(lines))


def _write_transcripts(out: Path, part: str, films: Sequence[Film], seed: int) -> None:
    (out / "videos" / part / "annotations").mkdir(exist_ok=True)
    for film in films:
        told = film_transcript(film, seed)
        content = {
            "info": {"duration": len(film.acts) * (ACT_SECONDS + REST_SECONDS)},
            "subtitles": [{"word": word, "time": time} for word, time in zip(told.words, told.times, strict=True)],
            "denoised": [{"cleanasr": text} for text in told.sentences],
        }
        write_text(out / "videos" / part / "annotations" / f"{film.index:04d}.json", json.dumps(content))
    write_text(out / "lists" / f"{part}.csv", "".join(["Name\n", *(f"{film.path}\n" for film in films)]))
