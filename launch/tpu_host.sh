#!/usr/bin/env bash
# What tpu_vm.sh lets every host of a pod do; it arrives there with the rest of the checkout.
#
#   tpu_host.sh install                                  Python, this checkout and JAX for TPU, into .venv
#   tpu_host.sh run [SETUP_LINE ...] -- COMMAND WORD ... the run, after what an earlier call left has ended
#   tpu_host.sh stop                                     lets the run save and end, and waits for that

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Python 3.11 or newer is not on every TPU VM; uv brings one.
install() {
  export PATH=$HOME/.local/bin:$PATH
  type -P uv >/dev/null || python3 -m pip install --quiet --user uv
  [[ -x .venv/bin/python ]] || uv venv --quiet --python 3.11 .venv
  uv pip install --quiet --python .venv/bin/python -e '.[tpu,text,scores]' -c constraints.txt
}

# A run that was left behind, by a lost connection for example, would hold the chips.
stop() {
  local second
  pkill -TERM -x scaling-jax || return 0
  for ((second = 0; second < 300; second++)); do
    pgrep -x scaling-jax >/dev/null || return 0
    sleep 1
  done
  pkill -KILL -x scaling-jax
}

run() {
  stop
  # shellcheck source=/dev/null
  source .venv/bin/activate
  export SCALING_JAX_PROCESSES=auto  # JAX asks the TPU's own service who is who
  while [[ $1 != -- ]]; do
    eval "$1"
    shift
  done
  shift
  exec "$@"
}

"$@"
