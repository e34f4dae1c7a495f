"""Scripts and functions in processes of their own, which tests may kill: forks of one server that has imported torch."""

import importlib
import multiprocessing
import os
import socket
import sys
import time

import torch

_context = multiprocessing.get_context("forkserver")
_preloaded = ["children", "train_VIGOR", "engine.trainer", "dataset.augment"]
_preloaded += ["dataset.vigor", "loss.heatmap", "model", "torch._dynamo", "torch.utils.tensorboard"]
_context.set_forkserver_preload(_preloaded)

SMALL = (
    "--satellite_size 64 --panorama_size 64 128 --d_model 16 --num_heads 2 --backbone_weights none "
    "--batch_size 2 --num_workers 0 --val_every 1"
)


def start(output, function, *arguments, **environment):
    """A started process that calls a function of a test module; stdout and stderr go to the file `output`."""
    process = _context.Process(target=_run, args=(str(output), function, arguments, environment))
    process.start()
    return process


def start_script(output, name, flags, patch=None, **environment):
    """A started process that runs a script as its command line would, after calling `patch`."""
    return start(output, _script, name, flags.split(), patch, **environment)


def run_script(output, name, flags, patch=None, status=0):
    """Run a script to its end, which has to be `status` (minus a signal's number where that killed it); returns its output."""
    process = start_script(output, name, flags, patch)
    process.join(120)
    said = output.read_text()
    assert process.exitcode == status, f"exit status {process.exitcode}, expected {status}\n{said}"
    return said


def run_group(output, size, function, *arguments):
    """Call a function in `size` processes that find each other as torchrun's do; all of them have to succeed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    outputs = [output.with_name(f"{output.name}.{rank}") for rank in range(size)]
    group = [start(outputs[rank], function, *arguments, RANK=str(rank), **common) for rank in range(size)]
    for process in group:
        process.join(120)
    said = "\n".join(path.read_text() for path in outputs)
    assert [process.exitcode for process in group] == [0] * size, said
    return said


def wait_for(condition, process, seconds=60):
    """Wait until `condition()`, while the process lives."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.is_alive() and time.monotonic() < end, f"exit status {process.exitcode}"
        time.sleep(0.01)


def _run(output, function, arguments, environment):
    file = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.environ.update(environment)
    torch.set_num_threads(1)
    function(*arguments)


def _script(name, flags, patch):
    from engine import options

    if patch:
        patch()
    script = importlib.import_module(name)
    options.run_script(script.main, script.build_parser(), script.user_errors, flags)
