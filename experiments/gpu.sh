#!/usr/bin/env bash
# Measures convlab on one accelerator in about 12 minutes. The reports go to runs/.
#
#   bash experiments/gpu.sh              on a machine with an accelerator
#   bash experiments/gpu.sh --smoke      a check on any machine that every command runs
#
# DATA is a data set for the S-networks, as in --data (for example folder:cifar10.zip). FASHION is the folder of Fashion-MNIST's
# IDX files. Without them the networks train on embedded digits, and the last job is left out.
set -u
cd "$(dirname "$0")/.."
smoke=${1:-}
failed=0

# job SECONDS EXPERIMENT FLAGS: run an experiment for at most so many seconds. With --smoke its flags are left out.
job() {
  local limit=$1 experiment=$2
  shift 2
  echo "== $experiment $*"
  if [ "$smoke" = --smoke ]; then set -- --smoke; fi
  timeout "$limit" python -m "experiments.$experiment" "$@"
}

# must JOB: run a job that is expected to end in time.
must() {
  job "$@" || { echo "failed or out of time: $2"; failed=1; }
}

python -c 'import jax; print(jax.devices())'
must 150 speed --seconds 0.05 --sweep 20
must 90 slow_convolutions --seconds 0.5
must 120 speed_train --seconds 1 --repetitions 3

# The S-networks train for as many steps as fit: every run has four times the steps of the last, and its report stays.
end=$((SECONDS + 180))
must 180 learn_convolution ${DATA:+--data "$DATA" --flip} --width 150 --seeds 1 --steps 500
for steps in 2000 8000 32000 128000; do
  if [ "$smoke" = --smoke ] || [ $SECONDS -ge $end ]; then break; fi
  job $((end - SECONDS)) learn_convolution ${DATA:+--data "$DATA" --flip} --width 150 --seeds 1 --steps $steps || break
done

if [ -n "${FASHION:-}" ]; then must 180 ladder --fashion --manual-dir "$FASHION" --seeds 1; fi
exit $failed
