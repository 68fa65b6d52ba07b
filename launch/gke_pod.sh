#!/usr/bin/env bash
# What gke.sh starts in every container: gke_pod.sh [SETUP_LINE ...] -- COMMAND WORD ...
# TPU pods are found by JAX itself. For GPU nodes, xpk says in the environment who is who.

set -euo pipefail

if ((${NNODES:-1} > 1)); then
  export SCALING_JAX_COORDINATOR=$JAX_COORDINATOR_ADDRESS:${JAX_COORDINATOR_PORT:-6002}
  export SCALING_JAX_PROCESSES=$NNODES SCALING_JAX_PROCESS=$NODE_RANK
fi
while [[ $1 != -- ]]; do
  eval "$1"
  shift
done
shift
exec "$@"
