#!/usr/bin/env bash
# Everything about speed that needs a GPU, in under 8 minutes: bash benchmarks/gpu.sh [batch size] [loader processes]
set -euo pipefail
cd "$(dirname "$0")/.."
batch=${1:-64}
workers=${2:-16}
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
python -m pytest tests/test_gpu.py
python -m benchmarks.training --batch_size "$batch" --num_workers "$workers" --compile --panoramas 96 --steps 12 --repetitions 3
python -m benchmarks.network --batch_size "$batch"
python -m benchmarks.network --growth --repetitions 2
python -m benchmarks.training --batch_size "$batch" --profile
