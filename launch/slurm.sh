#!/usr/bin/env bash
# Submits a command to Slurm: one run over several nodes, or a study as an array of independent parts.
#
#   launch/slurm.sh --nodes 4 --gpus_per_node 8 --cpus_per_process 8 --time 24:00:00 -- \
#       scaling-jax pretrain --gin_file gin_configs/runs/pretrain_1b.gin --out /shared/runs/base \
#       --gin.STORE="{'mono_en': '/shared/stores/en_de/mono_en', 'mono_de': '/shared/stores/en_de/mono_de'}"
#   launch/slurm.sh --shards 16 --gpus_per_node 8 --cpus_per_process 32 --time 12:00:00 -- \
#       scaling-jax study --gin_file gin_configs/studies/zhang2024_en_de.gin --out /shared/runs/zhang --gin.DEVICES=8
#
#   --nodes N             nodes of one run (default 1)
#   --gpus_per_node N     GPUs of each (default 0: on CPUs)
#   --processes_per_node N  default: one for every GPU; one for all of them in a study
#   --cpus_per_process N  CPU cores for each process (default: what the site gives, often one)
#   --shards N            an array of N jobs, the i-th makes part i of the study
#   --time HH:MM:SS       limit of one job (default: the site's)
#   --grace N             seconds before that limit in which to save and be queued again (default 300)
#   --name NAME           of the job, and of its log NAME-JOB.log in this folder (default scaling_jax)
#   --partition P, --account A
#   --sbatch OPTION       any other option of sbatch, such as --sbatch=--qos=high; may be repeated
#   --setup LINE          a line of bash for the start of the job, such as --setup 'module load cuda'; may be repeated
#   --dry_run             print what would be submitted; it can be saved and edited
#
# Slurm takes your environment and this folder along, so activate .venv first. JAX finds the processes of a job by
# itself. A job that is preempted, or that comes near its limit, saves, and is queued again to go on. One that was
# cancelled or refused its input is not.

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

takes='nodes gpus_per_node processes_per_node cpus_per_process shards time grace name partition account'
lists='sbatch setup' switches=''
nodes=1 gpus_per_node=0 processes_per_node='' cpus_per_process='' shards='' time='' grace=300 name=scaling_jax
partition='' account='' sbatch=() setup=()
parse_options "$@"
check_command here
check_shards
check_number nodes
check_number gpus_per_node 0
check_number grace 0
[[ -z $cpus_per_process ]] || check_number cpus_per_process
if [[ -z $processes_per_node ]]; then
  processes_per_node=1
  [[ -n $shards ]] || ((gpus_per_node == 0)) || processes_per_node=$gpus_per_node
fi
check_number processes_per_node
[[ -z $shards ]] || ((processes_per_node == 1)) || fail "--processes_per_node $processes_per_node: 1 in a study's parts"
for word in "$name" "$time" "$partition" "$account" ${sbatch[@]+"${sbatch[@]}"}; do
  [[ $word != *[[:space:]]* ]] || fail "$(quoted "$word"): a line #SBATCH has no room for spaces"
done

job_script() {
  local log="$name-%j.log" job="\$SLURM_JOB_ID" words=()
  if [[ -n $shards ]]; then
    log="$name-%A_%a.log"
    job="\${SLURM_ARRAY_JOB_ID}_\$SLURM_ARRAY_TASK_ID"  # the id of one of its jobs is that of the whole array
  fi
  echo '#!/bin/bash'
  echo "#SBATCH --job-name=$name"
  echo "#SBATCH --output=$log"
  echo '#SBATCH --open-mode=append'
  echo "#SBATCH --nodes=$nodes"
  echo "#SBATCH --ntasks-per-node=$processes_per_node"
  ((gpus_per_node == 0)) || echo "#SBATCH --gpus-per-node=$gpus_per_node"
  [[ -z $cpus_per_process ]] || echo "#SBATCH --cpus-per-task=$cpus_per_process"
  [[ -z $time ]] || echo "#SBATCH --time=$time"
  [[ -z $partition ]] || echo "#SBATCH --partition=$partition"
  [[ -z $account ]] || echo "#SBATCH --account=$account"
  [[ -z $shards ]] || echo "#SBATCH --array=1-$shards"
  # SIGTERM goes to the processes of the run, not to this script, some time before the limit.
  echo "#SBATCH --requeue"
  echo "#SBATCH --signal=TERM@$grace"
  ((${#sbatch[@]} == 0)) || printf '#SBATCH %s\n' "${sbatch[@]}"
  echo
  ((${#setup[@]} == 0)) || printf '%s\n' "${setup[@]}"

  # srun starts the words themselves, no shell in between. A process that ends leaves the others the time to save;
  # since Slurm 22.05 srun no longer takes the cores a process from sbatch.
  words=(srun --kill-on-bad-exit=0 "--wait=$grace")
  [[ -z $cpus_per_process ]] || words+=("--cpus-per-task=$cpus_per_process")
  if [[ -n $shards ]] && ((nodes > 1)); then
    # Jobs of an array are each on their own: that these nodes belong together has to be said.
    cat <<'END'
host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export SCALING_JAX_COORDINATOR=$host:$((61440 + SLURM_JOB_ID % 4096))
END
    # shellcheck disable=SC2016
    words+=(bash -c 'SCALING_JAX_PROCESSES=$SLURM_NTASKS SCALING_JAX_PROCESS=$SLURM_PROCID exec "$@"' part)
  fi
  words+=("${command[@]}")
  echo "cancelled=''"
  echo "trap 'cancelled=1' TERM"
  printf '%s' "$(quoted "${words[@]}")"
  [[ -z $shards ]] || printf ' --shard "%s/%d"' "\$SLURM_ARRAY_TASK_ID" "$shards"
  cat <<END

code=\$?
# 143: SIGTERM came and the state was saved. Slurm itself queues a preempted job again, and never a cancelled one.
if [ "\$code" -eq 143 ] && [ -z "\$cancelled" ]; then
  scontrol requeue "$job"
fi
exit "\$code"
END
}

if [[ -n $dry_run ]]; then
  printf "sbatch <<'JOB'\n%s\nJOB\n" "$(job_script)"
  exit 0
fi
type -P sbatch >/dev/null || fail "no sbatch here: run this on a machine that submits to Slurm, or see --dry_run"
job_script | sbatch
