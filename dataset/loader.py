"""Datasets -> batches: choice and order of the samples, worker processes, unreadable images.
"""

import signal
import sys
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from common.camera import Camera
from common.errors import UserError
from common.parallel import keep_freed_memory

_logged = set()  # unreadable images named so far; training and validation share satellite images


class UnreadableBatch(NamedTuple):
    """Replaces a batch in which no image could be read."""

    pairs: int  # number of pairs that the batch should have had


class EpochSampler:
    """Batches of one epoch as lists of (epoch, index), in an order drawn from (seed, epoch).

    `epoch` and `first_step` are set before iterating; a run that resumes in the middle of an epoch sets both
    and gets the batches that it has not seen. The last, smaller batch is left out unless it is the only one.
    With several processes, batches are `processes` times larger, and process `rank` gets its share of each.
    """

    def __init__(self, samples, batch_size, seed, rank=0, processes=1):
        self.samples, self.seed = samples, seed
        self.batch_size, self.rank, self.processes = batch_size * processes, rank, processes
        self.epoch, self.first_step = 0, 0

    @property
    def steps(self):
        """Batches in a whole epoch."""
        return max(1, self.samples // self.batch_size)

    def __len__(self):
        return self.steps - self.first_step

    def __iter__(self):
        order = self.order(np.random.default_rng([self.seed, self.epoch]))
        for step in range(self.first_step, self.steps):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield [(self.epoch, int(i)) for i in batch[self.rank :: self.processes]]

    def order(self, rng):
        """All samples in the order of an epoch, (samples,)."""
        return rng.permutation(self.samples)


class TwoCitySampler(EpochSampler):
    """Batches of two cities for `crossdomain`, half of each; in an odd batch, the second city has one more.

    `city` (samples,) is the city of each sample. Every sample comes once per epoch. Batches pair the two
    cities with most samples left, so that as few samples as possible (`left_over`) remain without a partner.
    These fill the last batches before the order of batches is shuffled, regardless of city. A batch is that
    of one process. Raises UserError for fewer than two cities or two samples in a batch.
    """

    def __init__(self, city, batch_size, seed, rank=0, processes=1):
        super().__init__(len(city), batch_size, seed, rank, processes)
        self.city, self.one = np.asarray(city), batch_size
        mixes = "--mixstyle_mix crossdomain mixes"
        if len(np.unique(self.city)) < 2:
            raise UserError(f"{mixes} two cities, and the training list has one; use random")
        if batch_size < 2:
            raise UserError(f"{mixes} the samples of a batch; --batch_size 1 leaves nothing to mix")

    @property
    def left_over(self):
        """Samples of an epoch whose batch is not of two cities; the same in every epoch."""
        return len(self._compose(np.random.default_rng(0))[1])

    def order(self, rng):
        """All samples in the order of an epoch: batch after batch, then those that fill no batch."""
        batches, rest = self._compose(rng)
        whole = len(rest) // self.one * self.one
        batches = rng.permutation([*batches, *rest[:whole].reshape(-1, self.one).tolist()])
        batches = batches.reshape(-1, self.one)
        joint = len(batches) // self.processes * self.processes
        # Each process takes every n-th sample.
        shared = batches[:joint].reshape(-1, self.processes, self.one).swapaxes(1, 2)
        return np.concatenate([shared.ravel(), batches[joint:].ravel(), rest[whole:]]).astype(int)

    def _compose(self, rng):
        """(batches of two cities, (rest,) what is left over), drawn from a generator."""
        shuffled = rng.permutation(self.samples)
        queues = [shuffled[self.city[shuffled] == city].tolist() for city in np.unique(self.city)]
        first, batches = self.one // 2, []
        second = self.one - first
        while True:
            queues = [queues[i] for i in rng.permutation(len(queues))]  # among equals, any two
            queues.sort(key=len)
            if len(queues[-2]) < first or len(queues[-1]) < second:
                return batches, rng.permutation(np.array([i for queue in queues for i in queue], int))
            taken = [queues[-2].pop() for _ in range(first)] + [queues[-1].pop() for _ in range(second)]
            batches.append(taken)


class ReadableLoader:
    """A DataLoader that handles unreadable images according to the dataset's `on_bad_image`.

    'error': raises UserError, which names the file. 'skip': drops the sample without a replacement. Each
    unreadable image is named once on stderr, and the number of dropped pairs at the end of the epoch. An
    empty batch is left out, or, with `count_all`, replaced by an `UnreadableBatch`. An epoch without a
    readable pair raises UserError.
    """

    def __init__(self, dataset, count_all=False, **options):
        self.dataset, self.count_all = dataset, count_all
        options |= {"collate_fn": _collate_readable, "worker_init_fn": _start_worker}
        self.loader = DataLoader(dataset, **options)

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        pairs, dropped, first = 0, 0, None
        for batch, errors in self.loader:
            if errors and self.dataset.on_bad_image == "error":
                raise UserError(errors[0])
            dropped += len(errors)
            for error in errors:
                first = first or error
                if error not in _logged:
                    _logged.add(error)
                    tqdm.write(f"skipped: {error}", file=sys.stderr)
            readable = not isinstance(batch, UnreadableBatch)
            pairs += len(batch["index"]) if readable else 0
            if readable or self.count_all:
                yield batch
        if dropped and not pairs:
            raise UserError(f"not one of {dropped} pairs can be read; the first: {first}")
        if dropped:
            total = pairs + dropped
            tqdm.write(f"skipped {dropped} of {total} pairs, whose images cannot be read", file=sys.stderr)


def collate(samples):
    """A batch of samples that have the same entries: tensors and cameras are stacked. Returns a dict."""
    batch = {}
    for name, value in samples[0].items():
        stack = Camera.stack if isinstance(value, Camera) else torch.stack
        batch[name] = stack([sample[name] for sample in samples])
    return batch


def _collate_readable(samples):
    """(batch of the samples that could be read, one line for each that could not)."""
    readable = [sample for sample in samples if not isinstance(sample, UserError)]
    errors = [str(sample) for sample in samples if isinstance(sample, UserError)]
    return collate(readable) if readable else UnreadableBatch(len(samples)), errors


def training_loader(dataset, batch_size, seed, workers, pin_memory=False, part=(0, 1), two_cities=False):
    """(loader, its sampler) that shuffle a dataset anew each epoch. part: (process, processes).

    Batches of `two_cities` come from a `TwoCitySampler`. Raises UserError for too short a list.
    """
    if len(dataset) == 0:
        raise UserError("the training list is empty")
    if len(dataset) < part[1]:
        raise UserError(f"the training list has {len(dataset)} pairs, too few for {part[1]} processes")
    if two_cities:
        sampler = TwoCitySampler(dataset.index.city[dataset.pairs[:, 0]], batch_size, seed, *part)
    else:
        sampler = EpochSampler(len(dataset), batch_size, seed, *part)
    options = {"batch_sampler": sampler, "num_workers": workers, "pin_memory": pin_memory}
    return ReadableLoader(dataset, count_all=True, persistent_workers=workers > 0, **options), sampler


def evaluation_loader(dataset, batch_size, workers, pin_memory=False, part=(0, 1)):
    """A loader over a dataset in its order. Part (i, n) has every n-th of the same batches, from i on."""
    if len(dataset) == 0:
        raise UserError("the list to evaluate is empty")
    batches = [range(i, min(i + batch_size, len(dataset))) for i in range(0, len(dataset), batch_size)]
    options = {"batch_sampler": batches[part[0] :: part[1]], "num_workers": workers, "pin_memory": pin_memory}
    return ReadableLoader(dataset, **options)


def _start_worker(worker):
    """Leave a terminal's Ctrl-C, which reaches the workers too, to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()  # images come and go
