#!/usr/bin/env bash
# Everything about speed that needs a GPU, one table at the end: bash benchmarks/gpu.sh [batch size] [loader processes]
set -euo pipefail
cd "$(dirname "$0")/.."
batch=${1:-64}
workers=${2:-16}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
    python -m pytest -n 0 tests/test_gpu.py && echo "=> tests/test_gpu.py: passed" || echo "=> tests/test_gpu.py: FAILED, see above"
    python -m benchmarks.training --batch_size "$batch" --num_workers "$workers" --compile --panoramas 96 --steps 12 --repetitions 3
    python -m benchmarks.network --batch_size "$batch"
    python -m benchmarks.network --growth --repetitions 2
    python -m benchmarks.training --batch_size "$batch" --profile
    python -m benchmarks.search --times 4
    python -m benchmarks.search --model_path pretrained_any_heading --times 4
} 2>&1 | tee "$log"
printf '\n| figure | measured |\n|---|---|\n'
sed -n 's/^=> \(.*\): \(.*\)$/| \1 | \2 |/p' "$log"
echo "$SECONDS s in all"
