"""Questions to all workers at once, and their answers.

A worker answers for the whole service, and knows only of itself. What is not worth a word of
shared memory all the time (who is connected, which keys are hot) it asks the others for: it writes
a question, wakes everybody, and each worker writes its answer. One question is asked at a time:
whoever asks holds a lock, which the kernel gives back where its process dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from typing import Final

_NUMBER: Final = 0
_LENGTH: Final = 1
_HEADER: Final = 2
_ANSWERED: Final = 0
_SIZE: Final = 1
_WIDTH: Final = 8
"""Words of each worker: those of a cache line."""
_LONGEST: Final = 4096
"""Bytes of a question."""


class Inquiries:
    """Made by the supervisor before it forks. Files in memory hold what is asked and answered."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        words = _HEADER + _WIDTH * workers
        self._words = memoryview(mmap.mmap(-1, words * 8)).cast("q")
        self._question = os.memfd_create("keyrack-question", os.MFD_CLOEXEC)
        self._answers = [os.memfd_create("keyrack-answer", os.MFD_CLOEXEC) for _ in range(workers)]

    def close(self) -> None:
        """Let go of the descriptors."""
        for file in (self._question, *self._answers):
            os.close(file)

    # Who asks

    def try_begin(self) -> bool:
        """Get hold of the right to ask; False while another process has it."""
        try:
            fcntl.lockf(self._question, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def end(self) -> None:
        """Let others ask, and forget what was answered."""
        for answer in self._answers:
            os.ftruncate(answer, 0)
        fcntl.lockf(self._question, fcntl.LOCK_UN)

    def ask(self, question: bytes) -> int:
        """Ask; return the number of the question. Then wake the workers."""
        if len(question) > _LONGEST:
            raise ValueError("the question is too long")
        os.pwrite(self._question, question, 0)
        self._words[_LENGTH] = len(question)
        self._words[_NUMBER] += 1
        return self._words[_NUMBER]

    def answered(self, worker: int, number: int) -> bytes | None:
        """Return what a worker has answered to a question; None while it has not."""
        at = _HEADER + worker * _WIDTH
        if self._words[at + _ANSWERED] != number:
            return None
        return os.pread(self._answers[worker], self._words[at + _SIZE], 0)

    # Who is asked

    @property
    def number(self) -> int:
        """The number of the last question."""
        return self._words[_NUMBER]

    def question(self) -> bytes:
        """Return the last question."""
        return os.pread(self._question, self._words[_LENGTH], 0)

    def answer(self, worker: int, number: int, data: bytes) -> None:
        """Answer a question, if it is still the last one."""
        if self._words[_NUMBER] != number:
            return
        at = _HEADER + worker * _WIDTH
        with contextlib.suppress(OSError):  # where there is no memory for it nobody is told
            os.pwrite(self._answers[worker], data, 0)
            self._words[at + _SIZE] = len(data)
            self._words[at + _ANSWERED] = number
