#!/usr/bin/env bash
# Measures everything that needs a GPU and ends with one table: bash benchmarks/gpu.sh [batch size] [loader processes]
# A part that fails does not stop the others: its output stays in the folder named at the end, and the status is 1.
set -uo pipefail
cd "$(dirname "$0")/.."
batch=${1:-64}
workers=${2:-16}
python=${PYTHON:-python}
logs=$(mktemp -d)
failed=()
part() {
    echo "== $*"
    "$python" "${@:2}" 2>&1 | tee "$logs/$1.log" || failed+=("$1")
}
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
feed=(--batch_size "$batch" --num_workers "$workers")
part speed -m benchmarks.speed "${feed[@]}"
part compiled -m benchmarks.speed "${feed[@]}" --compile --sizes 512 --networks published ground_plane
part any_heading -m benchmarks.speed "${feed[@]}" --headings 36 --networks ground_plane
part tests -m pytest -n 0 tests/test_gpu.py
printf '\n| figure | measured |\n|---|---|\n'
cat "$logs"/*.log | sed -n 's/^=> \(.*\): \(.*\)$/| \1 | \2 |/p'
echo "$SECONDS s in all; the output of each part is in $logs"
for name in "${failed[@]}"; do
    printf '\nFAILED: %s\n' "$name"
    tail -n 40 "$logs/$name.log"
done
[ ${#failed[@]} -eq 0 ]
