#!/usr/bin/env bash
# Six minutes of training by the recipe of the model in the package, on a GPU, and what it draws, judged.
#
#     tests/gpu/train_box.sh runs/gpu-box                       # PyTorch
#     FRAMEWORK=tensorflow MINUTES=6 tests/gpu/train_box.sh runs/gpu-box-tf
#     DATASET=fashion-mnist DATA_DIR=~/fashion tests/gpu/train_box.sh runs/gpu-box
#
# DATASET is auto by default: the full Fashion-MNIST if it can be had, else the 10,000 images in the package. The number
# of epochs follows from the speed. The folder gets train_box.log, the run, its images and their evaluation.
set -uo pipefail
[[ $# == 1 ]] || { echo "usage: $0 FOLDER, for the results" >&2; exit 2; }
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
exec > >(tee "$out/train_box.log") 2>&1
# shellcheck source=tests/gpu/steps.sh
source "$(dirname "$0")/steps.sh"

minutes=${MINUTES:-6} images=${IMAGES:-2000}
framework=${FRAMEWORK:-torch}
tree=ddpm_${framework/tensorflow/tf}
data=(--dataset "${DATASET:-auto}" ${DATA_DIR:+--data-dir "$DATA_DIR"})

step $((60 * minutes + 120)) "training for $minutes minutes" \
  "$PY" -m "$tree.train" "${data[@]}" --precision bf16 --device gpu --minutes "$minutes" --keep-checkpoints 1 \
  --run-dir "$out/run"
step 120 "drawing $images images" \
  "$PY" -m "$tree.inference" --checkpoint "$out/run" --device gpu --precision bf16 --sampler dpmpp_2m_sde \
  --num-images "$images" --batch-size 500 --out "$out/samples"
step 180 "judging" "$PY" -m ddpm_shared.evaluation "$out/samples" "${data[@]}" --out "$out/evaluation"

printf '\n%s steps failed; %s s in all; %s\n' "$failed" "$SECONDS" "$out"
exit $((failed > 0))
