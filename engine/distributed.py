"""Processes that work together; the only file that knows torch.distributed.

torchrun starts the processes and gives each its rank through the environment; a single process needs no flag.
Tensors travel by NCCL between GPUs, everything else by gloo.
"""

import os
import time
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from common.errors import UserError

# A process that dies is noticed at once, by torchrun and by gloo. This is for one that hangs.
TIMEOUT = timedelta(minutes=20)


@contextmanager
def processes(device):
    """Joins torchrun's processes within a `with` block; gives this one's device, 'cuda' with its number."""
    if not _in_a_group():
        yield device
        return
    if device.type == "cuda":
        number = int(os.environ.get("LOCAL_RANK", 0)) if device.index is None else device.index
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield device
    except Exception as error:  # no farewell: it would wait for processes that are gone
        of_gloo = isinstance(error, RuntimeError) and "gloo/transport" in str(error)
        if not of_gloo and not isinstance(error, dist.DistError):
            raise
        time.sleep(2)  # let torchrun notice first who died first
        says = f"process {rank()}: the connection to another process is lost; look for the error of that one"
        raise UserError(says) from error
    except BaseException:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _in_a_group():
    return {"RANK", "WORLD_SIZE"} <= os.environ.keys()


def rank():
    """The number of this process, from 0, also before it has joined the others. Rank 0 writes files."""
    if dist.is_initialized():
        return dist.get_rank()
    return int(os.environ["RANK"]) if _in_a_group() else 0


def world_size():
    """How many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def first():
    """Rank 0 runs the block first: it makes what the others then find (a download, a folder)."""
    if rank() > 0:
        broadcast(None)  # comes when rank 0 is done
    yield
    if rank() == 0:
        broadcast(None)


def broadcast(value):
    """Rank 0's value, in every process. It may be anything that pickles."""
    box = [value]
    if world_size() > 1:
        dist.broadcast_object_list(box)
    return box[0]


def gather(value):
    """Every process's value, in the order of ranks, in every process. It may be anything that pickles."""
    values = [value]
    if world_size() > 1:
        values = [None] * world_size()
        dist.all_gather_object(values, value)
    return values


def gather_table(table):
    """The whole table, ordered by `index`, an int column, from parts (dicts of arrays, or {}), everywhere."""
    if world_size() == 1:
        return table
    parts = [part for part in gather(table) if len(part)]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    _, order = np.unique(whole["index"], return_index=True)
    return {name: column[order] for name, column in whole.items()}


def mean(values):
    """The mean over processes of each float of a dict; one that is not finite anywhere is so in all."""
    if world_size() == 1:
        return values
    total = torch.tensor(list(values.values()), dtype=torch.float64)
    dist.all_reduce(total)
    return dict(zip(values, (total / world_size()).tolist(), strict=True))


def launcher():
    """The command that starts a script as this one was started."""
    if world_size() == 1:
        return "python"
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    nodes = f" --nnodes {world_size() // here} ..." if world_size() > here else ""
    return f"torchrun --nproc_per_node {here}{nodes}"


def any_of(flag):
    """Whether the flag is set in at least one process."""
    return mean({"flag": float(bool(flag))})["flag"] > 0


def data_parallel(model, device):
    """The model as the processes train it together: gradients are averaged; rank 0's weights go to all.

    Save, load and evaluate the model itself. Batch norms see the global batch on GPUs; on the CPU each
    process normalises its own batch, and rank 0's running statistics count.
    """
    if world_size() == 1:
        return model
    if device.type == "cuda":
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)  # in place
    return torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)


def without_exchange(model):
    """A context in which backward passes of a `data_parallel` model add gradients without exchanging them."""
    return model.no_sync() if world_size() > 1 else nullcontext()


def broadcast_buffers(model):
    """Gives rank 0's buffers (running statistics) to every process, for saving or measuring."""
    if world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
