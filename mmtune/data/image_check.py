"""Look at many images at once, before a run that would meet the bad ones hours later. No torch."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from queue import SimpleQueue

from mmtune.conversation import ImageSlot
from mmtune.data.image_bytes import opened_bytes, read_bytes
from mmtune.data.image_files import decode_image, prepare_image
from mmtune.data.image_kinds import kind_of

CHUNK = 32
"""How many headers a thread takes at a time; of images to decode it takes one."""

HEAD_BYTES = 2**14
"""What of a file is read to find its header; a longer one is read in full."""

LARGE_PIXELS = 2**25
"""Above it, one image at a time is decoded, so that many threads need no more memory than one."""

ENDS = {"JPEG": b"\xff\xd9", "PNG": b"\0\0\0\0IEND\xaeB`\x82", "GIF": b";"}
"""Format -> its last bytes."""

NO_LOCK: AbstractContextManager = nullcontext()

Progress = Callable[[int], None]
Result = tuple[int, dict[ImageSlot, str]] | BaseException


def check_images(
    slots: Sequence[ImageSlot],
    *,
    decode: bool,
    num_threads: int | None = None,
    progress: Progress | None = None,
) -> dict[int, str]:
    """Find the images that cannot be opened. An image that is named often is looked at once.

    Args:
        slots: images, with paths that can be opened from here.
        decode: read every byte and decode it, JPEGs at 1/8 of their size: what passes opens. Otherwise the header
            and the end of a file are read, which finds what is missing, foreign or cut off but not what is damaged
            inside; where its end looks wrong, a file is decoded after all.
        num_threads: None takes one for each processor, or 8 without `decode`: Pillow decodes outside Python's lock,
            and a disk or a network answers many at once.
        progress: called from this thread with the number of images done.

    Returns:
        The index of each bad image and "reason. mend.", in the order of `slots`.
    """
    images = list(dict.fromkeys(slots))
    num_done, reasons = len(slots) - len(images), {}
    for count, found in _results(_Work(images, decode), max(1, num_threads or (os.cpu_count() or 1 if decode else 8))):
        reasons.update(found)
        num_done += count
        if progress is not None:
            progress(num_done)
    return {index: reasons[slot] for index, slot in enumerate(slots) if slot in reasons} if reasons else {}


def check_image(slot: ImageSlot, *, decode: bool, large: AbstractContextManager = NO_LOCK) -> str | None:
    """Return "reason. mend." where an image cannot be opened.

    Args:
        slot: where it is.
        decode: as `check_images` takes it.
        large: held while a large image is decoded.
    """
    if not decode and _looks_whole(slot):
        return None
    try:
        image = prepare_image(read_bytes(slot))
        image.draft(None, (1, 1))  # JPEGs at 1/8: their whole stream is read all the same; others know no draft
        with large if image.width * image.height > LARGE_PIXELS else NO_LOCK:
            decode_image(image)
    except ValueError as error:
        return str(error)
    return None


def _looks_whole(slot: ImageSlot) -> bool:
    """Whether header and end are those of a whole image. False says nothing yet."""
    try:
        with opened_bytes(slot) as (stream, size):
            head = stream.read(min(size, HEAD_BYTES))
            kind = kind_of(head)
            if kind == "WebP":  # its parser wants the whole file, and knows by itself whether that is whole
                head += stream.read(size - len(head))
            elif kind not in ENDS:
                return False
            prepare_image(head)
            if kind == "WebP":
                return True
            tail = ENDS[kind]
            stream.seek(size - len(head) - len(tail), os.SEEK_CUR)
            return stream.read(len(tail)) == tail
    except ValueError:
        return False


@dataclass
class _Work:
    """What threads share: the images not yet taken, the results not yet read, and whether to go on."""

    images: list[ImageSlot]
    decode: bool
    chunk_size: int = field(init=False)
    starts: Iterator[int] = field(init=False)
    results: "SimpleQueue[Result]" = field(default_factory=SimpleQueue)
    large: AbstractContextManager = field(default_factory=threading.Lock)
    is_stopped: bool = False

    def __post_init__(self) -> None:
        self.chunk_size = 1 if self.decode else CHUNK
        self.starts = iter(range(0, len(self.images), self.chunk_size))

    def run(self) -> None:
        """Take chunks until none is left; each gives one result."""
        try:
            for start in self.starts:  # taking the next number is one step of the interpreter: no two threads get it
                found, chunk = {}, self.images[start : start + self.chunk_size]
                for slot in chunk:
                    if self.is_stopped:
                        return
                    reason = check_image(slot, decode=self.decode, large=self.large)
                    if reason is not None:
                        found[slot] = reason
                self.results.put((len(chunk), found))
        except BaseException as error:  # a bug of ours: the thread that waits has to hear of it
            self.results.put(error)


def _results(work: _Work, num_threads: int) -> Iterator[tuple[int, dict[ImageSlot, str]]]:
    num_chunks = -(-len(work.images) // work.chunk_size)
    # Daemons: after Ctrl-C nothing waits for an image that is being decoded.
    threads = [threading.Thread(target=work.run, daemon=True) for _ in range(min(num_threads, num_chunks))]
    try:
        for thread in threads:
            thread.start()
        for _ in range(num_chunks):
            result = work.results.get()
            if isinstance(result, BaseException):
                raise result
            yield result
        for thread in threads:
            thread.join()
    finally:
        work.is_stopped = True
