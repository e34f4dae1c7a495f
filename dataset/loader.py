"""Datasets -> batches: which samples, in what order, through how many workers, and what becomes of unreadable ones."""

import signal
import sys

import numpy as np
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from dataset.images import DataError
from engine.run import keep_freed_memory

_logged = set()  # unreadable images that this process has named; training and validation share satellite images


class EpochBatches:
    """Batches of one epoch as lists of (epoch, index), in an order drawn from (seed, epoch).

    `epoch` and `first_step` are set before iterating; a run that resumes in the middle of an epoch sets both and gets the
    batches that it has not seen. The last, smaller batch is left out unless it is the only one.
    Of several processes, `rank` of `processes`, each gets its share of batches that are as many times larger.
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
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.samples)
        for step in range(self.first_step, self.steps):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield [(self.epoch, int(i)) for i in batch[self.rank :: self.processes]]


class ReadableLoader:
    """A DataLoader that deals with images that cannot be read as the dataset's `on_bad_image` says.

    'error': DataError, which names the file. 'skip': the sample is dropped and nothing put in its place; each unreadable image
    is named once on stderr, the number of dropped pairs follows at the end of the epoch. A batch of which nothing is left
    is skipped, or comes as {} where batches are counted (`keep_empty`); an epoch without a readable pair is a DataError.
    """

    def __init__(self, dataset, keep_empty=False, **options):
        self.dataset, self.keep_empty = dataset, keep_empty
        self.loader = DataLoader(_ErrorsAsSamples(dataset), collate_fn=_collate_readable, worker_init_fn=_start_worker, **options)

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        pairs, dropped, first = 0, 0, None
        for batch, errors in self.loader:
            if errors and self.dataset.on_bad_image == "error":
                raise DataError(errors[0])
            dropped += len(errors)
            for error in errors:
                first = first or error
                if error not in _logged:
                    _logged.add(error)
                    tqdm.write(f"skipped: {error}", file=sys.stderr)
            if batch:
                pairs += len(batch["index"])
            if batch or self.keep_empty:
                yield batch
        if dropped and not pairs:
            raise DataError(f"not one of {dropped} pairs can be read; the first: {first}")
        if dropped:
            tqdm.write(f"skipped {dropped} of {pairs + dropped} pairs, whose images cannot be read", file=sys.stderr)


class _ErrorsAsSamples(Dataset):
    """A dataset whose DataErrors take the place of their samples on the way to the main process.

    Raised in a worker, they would come wrapped in its traceback, and PyTorch would wait five seconds for that worker to end.
    """

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, key):
        try:
            return self.dataset[key]
        except DataError as error:
            return error


def _collate_readable(samples):
    """(batch of the samples that could be read, one line for each that could not)."""
    readable = [sample for sample in samples if not isinstance(sample, DataError)]
    errors = [str(sample) for sample in samples if isinstance(sample, DataError)]
    return default_collate(readable) if readable else {}, errors


def training_loader(dataset, batch_size, seed, workers, pin_memory=False, part=(0, 1)):
    """(loader, its EpochBatches) that shuffle a dataset anew each epoch; `part` is (process, processes)."""
    if len(dataset) == 0:
        raise DataError("the training list is empty")
    if len(dataset) < part[1]:
        raise DataError(f"the training list has {len(dataset)} pairs, too few for {part[1]} processes")
    batches = EpochBatches(len(dataset), batch_size, seed, *part)
    options = {"batch_sampler": batches, "num_workers": workers, "pin_memory": pin_memory}
    return ReadableLoader(dataset, keep_empty=True, persistent_workers=workers > 0, **options), batches


def evaluation_loader(dataset, batch_size, workers, pin_memory=False, part=(0, 1)):
    """A loader over a dataset in its own order, or over part i of n, (i, n): every n-th of the very same batches."""
    if len(dataset) == 0:
        raise DataError("the list to evaluate is empty")
    batches = [range(i, min(i + batch_size, len(dataset))) for i in range(0, len(dataset), batch_size)]
    return ReadableLoader(dataset, batch_sampler=batches[part[0] :: part[1]], num_workers=workers, pin_memory=pin_memory)


def _start_worker(worker):
    """A terminal's Ctrl-C reaches the loader's workers too; what is to come of it is for the main process to say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()  # images come and go
