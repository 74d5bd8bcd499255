#!/usr/bin/env bash
# Trains on two machines of eight GPUs; run it on both: train.sh 0 on the first, train.sh 1 on the second.
set -euo pipefail
exec torchrun \
    --nnodes 2 --node-rank "$1" --nproc-per-node 8 \
    --master-addr "${FIRST_HOST:-gpu-01}" --master-port 29500 \
    --max-restarts 0 \
    -m trainer \
    --shards "${SHARDS:-/mnt/corpus/shards}" --out "${OUT:-/mnt/runs/base}" \
    --model base --batch-size 4096
